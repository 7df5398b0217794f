"""DuckDB in memory."""

import duckdb


def connect_in_memory() -> duckdb.DuckDBPyConnection:
    """Open a connection of its own to nothing on the disk, without a progress bar."""
    return hide_bar(duckdb.connect(":memory:"))


def hide_bar(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """Have a connection show no progress bar, and return it.

    The bar, shown from the second second on, is written to stdout, between the rows.
    """
    found = connection.execute("select current_setting('enable_progress_bar')").fetchall()
    # in a notebook without ipywidgets there is none, and to set it is an error
    if found != [(False,)]:
        connection.execute("set enable_progress_bar = false")
    return connection
