"""The formats that rows are printed and written in, and the endings of their files."""

FORMATS = ("table", "csv", "json", "jsonl", "markdown", "latex", "html", "parquet")

DATA_FORMATS = ("csv", "json", "jsonl", "parquet")
"""Those that hold the columns and their values as they are."""

DUCKDB = "duckdb"
"""The format of a file with whole runs, which is no table."""

DUCKDB_ENDINGS = (".duckdb", ".ddb", ".db")
"""How its files are named."""

FORMAT_OF_ENDING = {
    ".tex": "latex",
    ".csv": "csv",
    ".md": "markdown",
    ".html": "html",
    ".json": "json",
    ".jsonl": "jsonl",
    ".parquet": "parquet",
}

FONT_SIZES = ("tiny", "scriptsize", "footnotesize", "small", "normalsize")
"""The sizes of the letters of a LaTeX table, by LaTeX's names, smallest first."""
