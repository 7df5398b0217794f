"""Where the statements in a text end, by DuckDB's own reading of it."""

import duckdb


def split_statements(text: str) -> tuple[list[str], str]:
    """Return the statements of a text that a semicolon ends, without it, and what comes after them.

    A semicolon in a text, a name or a comment ends nothing. Statements of blanks and comments alone
    are left out.

    Examples
    --------
    >>> split_statements("select ';'; -- one; two")
    (["select ';'"], ' -- one; two')
    """
    encoded = text.encode()
    found, start = [], 0
    for place, kind in duckdb.tokenize(text):
        if encoded[place : place + 1] == b";" and kind == duckdb.token_type.operator:
            statement = encoded[start:place].decode()
            if has_sql(statement):
                found.append(statement.strip())
            start = place + 1
    return found, encoded[start:].decode()


def has_sql(text: str) -> bool:
    """Whether there is anything in a text but blanks and comments."""
    return any(kind != duckdb.token_type.comment for _, kind in duckdb.tokenize(text))


def is_finished(text: str) -> bool:
    """Whether a text that is typed can be run: nothing, a dot command, or all ended by semicolons.

    Examples
    --------
    >>> is_finished("select 1"), is_finished("select 1;"), is_finished(".tables")
    (False, True, True)
    """
    if not text.strip() or is_dot_command(text):
        return True
    statements, rest = split_statements(text)
    return bool(statements or ";" in text) and not has_sql(rest)


def is_dot_command(text: str) -> bool:
    """Whether a text is no SQL but a command of the shell, such as ``.tables``.

    Examples
    --------
    >>> is_dot_command(".tables"), is_dot_command("select 1"), is_dot_command(".5;")
    (True, False, False)
    """
    stripped = text.lstrip()
    return stripped.startswith(".") and stripped[1:2].isalpha()
