"""What is committed: the manifests of a store, read once and checked.

A folder comes in, a ``snapshot`` goes out, with damaged runs kept apart. No data are read but the
footers of Parquet files.
"""
