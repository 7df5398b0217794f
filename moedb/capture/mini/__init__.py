"""The embedded model, qwen-moe-mini: its corpus, its training, its evaluation, and its files.

Nothing else of moedb depends on how it is made: to the rest it is a checkpoint in ``data``.
"""
