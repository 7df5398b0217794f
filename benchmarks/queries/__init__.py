"""How long the named queries take, beside numpy and polars written by hand.

``python -m benchmarks.queries`` is the door. ``synthetic`` writes the stores, ``cases`` says what
is asked, ``by_hand`` answers it without moedb, ``measuring`` compares the answers and takes the
time, ``report`` prints it.
"""
