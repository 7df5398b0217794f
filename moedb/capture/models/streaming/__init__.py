"""A model that is larger than memory, read from its files layer by layer.

A checkpoint and an amount of memory come in; a model goes out that behaves as if it were loaded:
each layer's weights are read into memory that stays (``layer_weights``) just before it runs.
``deferred`` applies transformers' conversions to tensors that are not read yet,
``stored_tensors`` reads them, and ``gptq_weights`` what GPTQ quantized. Nothing outside this folder
knows which layers are in memory.
"""
