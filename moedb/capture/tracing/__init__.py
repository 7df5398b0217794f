"""One pass of a model, read off and checked.

A batch comes in, ``batch_records`` go out: numpy, for the tokens that are kept. ``tracer``
reads every value under nnsight in the order of the wiring; ``checks`` holds it against the
model's own arithmetic; ``rehearsal`` runs a few tokens first and compares with the untouched
model. What is stored of them is the business of ``pipeline``.
"""
