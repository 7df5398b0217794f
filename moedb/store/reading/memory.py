"""DuckDB in memory."""

import duckdb


def connect_in_memory() -> duckdb.DuckDBPyConnection:
    """Open a connection of its own to nothing on the disk, without a progress bar.

    The bar, shown from the second second on, is written to stdout, between the rows.
    """
    connection = duckdb.connect(":memory:")
    ((shows_bar,),) = connection.execute("select current_setting('enable_progress_bar')").fetchall()
    # in a notebook without ipywidgets there is none, and to set it is an error
    if shows_bar:
        connection.execute("set enable_progress_bar = false")
    return connection
