"""Loading what a checkpoint holds, without running what comes with it.

A checkpoint comes in; its configuration, its model with or without weights, and its tokenizer go
out (``pretrained``, ``quantized`` for GPTQ). ``safe_config`` says what a ``config.json`` may not.
"""
