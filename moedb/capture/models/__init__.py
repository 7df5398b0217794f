"""Getting a model ready: found, checked, loaded, placed.

A name or a folder comes in (``checkpoints``, ``hub``), an open model goes out (``opening``), on the
device there is (``device``, ``placement``), with all layers or the first ones (``layer_ranges``).
``loading`` reads what a checkpoint holds; ``streaming`` runs a model that is larger than memory.
``training_checkpoints`` are those that a training resumes from. Only safetensors are read, and no
code of a checkpoint is ever run.
"""
