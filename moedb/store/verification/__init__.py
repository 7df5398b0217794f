"""Reading a run again: every checksum, and what must hold of the values.

A run comes in, what was checked comes out, or all that is wrong with it.
"""
