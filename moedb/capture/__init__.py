"""Running models and recording what they do. The only part of moedb that imports torch.

``jobs`` turn a dataset into examples, ``models`` get a model ready, ``structure`` finds its MoE
blocks, ``tracing`` reads one pass off, ``pipeline`` plans, runs and hands units to the store.
``interventions`` run a captured run's examples again through a model that is changed on the way.
``mini`` is the embedded model and how it is made. ``examples`` and ``conditions`` are what passes
between them.
"""
