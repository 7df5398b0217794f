"""The formats that rows are printed and written in, and the endings of their files."""

FORMATS = ("table", "csv", "json", "jsonl", "markdown", "latex", "html", "parquet")

FORMAT_OF_ENDING = {
    ".tex": "latex",
    ".csv": "csv",
    ".md": "markdown",
    ".html": "html",
    ".json": "json",
    ".jsonl": "jsonl",
    ".parquet": "parquet",
}
