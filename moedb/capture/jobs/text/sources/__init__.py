"""Where rows of text come from: a file for each format, and the hub.

A path or a dataset's name comes in, rows (mappings) go out, one at a time. ``opening`` chooses. A
new format is a file here and a line in ``files``.
"""
