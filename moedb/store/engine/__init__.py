"""DuckDB over a snapshot: connected, limited to the store, interrupted, and cleaned up after.

A snapshot comes in, a connection with a view for each table goes out; another engine would stand
beside these files.
"""
