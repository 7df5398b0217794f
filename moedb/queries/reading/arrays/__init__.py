"""Rows of arrays: some of one that may be larger than memory, and as functions of SQL."""
