"""What a model is built of: where its MoE blocks are, and how they compute.

A model comes in; a ``wiring`` goes out that says which modules are the router, the experts and
the shared expert, by which rule weights are made, of which parts the block's output is the sum,
and in which order all of them run. Found by structure and by a probe, never by a family's name.
``taps`` lets a block's expert outputs be read. Nothing here knows a job, a store or nnsight.
"""
