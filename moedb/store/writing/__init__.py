"""Writing a run: staged, moved to its place, and counted when its manifest exists.

Columns and rows of arrays come in, committed units go out (``run_writer``). ``writability`` says
beforehand whether a store can be written, ``removal`` deletes a run, ``naming`` calls it by a name
of its user's, ``tables`` makes the files.
"""
