"""The measures that SQL cannot say, a file each, with its description beside its function.

A reader and parameters come in, computed rows go out. ``registry`` lists them; a new measure is a
file here and a line there.
"""
