"""Values and names as SQL text, for the definitions in which DuckDB takes no parameters."""


def literal(value: object) -> str:
    """Return a text, a number or None as a literal.

    Examples
    --------
    >>> literal("it's"), literal(3), literal(None)
    ("'it''s'", '3', 'null')
    """
    if value is None:
        return "null"
    if isinstance(value, int | float):
        return repr(value)
    return "'" + str(value).replace("'", "''") + "'"


def quoted(name: str) -> str:
    """Return the name of a table, a column or a macro in quotes.

    Examples
    --------
    >>> quoted('a "b" c')
    '"a ""b"" c"'
    """
    return '"' + name.replace('"', '""') + '"'
