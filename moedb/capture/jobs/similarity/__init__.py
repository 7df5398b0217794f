"""How alike the weights of a layer's experts are, compared while the model is there.

A model comes in; rows of the table ``expert_cosines`` go out. ``weights`` finds which weights
are which expert's, and ``gating`` which of them are the gate's; ``cosines`` compares them, with
``matching`` neuron by neuron, and ``layers`` does so layer by layer during a pass, as a layer's
weights may be in memory only while it runs.
"""
