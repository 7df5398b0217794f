"""Which runs and splits a SQL statement reads: by the macros it calls, and by DuckDB's plan."""
