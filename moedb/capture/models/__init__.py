"""Getting a model ready: found, checked, loaded, placed.

A name or a folder comes in (``checkpoints``, ``hub``), an open model goes out (``loading``,
``opening``), on the device there is, quantized or not, with all layers or the first ones.
``streaming`` runs one that is larger than memory. Only safetensors are read, and no code of a
checkpoint is ever run.
"""
