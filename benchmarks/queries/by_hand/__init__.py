"""The queries without moedb, as one who knows the layout of the files writes them by hand.

``in_numpy`` and ``in_polars`` read the Parquet files of ``run_files`` and count; ``numpy_reading``
has what the first reads with, ``arithmetic`` what follows from the counts, for both.
"""
