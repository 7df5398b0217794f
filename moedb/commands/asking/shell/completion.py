"""What may come next in a statement that is being typed."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from moedb.commands.asking.shell.names import Names
from moedb.commands.asking.shell.statements import is_dot_command, split_statements
from moedb.queries.questions.parameters import RUN_PARAMETERS

KEYWORDS = (
    *("select", "from", "where", "join", "left join", "using", "on", "group by", "order by"),
    *("having", "limit", "with", "as", "and", "or", "not", "in", "like", "is null", "between"),
    *("distinct", "case", "when", "then", "else", "end", "desc", "asc", "nulls last", "all"),
    *("count(*)", "sum(", "avg(", "min(", "max(", "round(", "coalesce(", "cast("),
    *("list_cosine_similarity(", "describe", "summarize", "explain", "union all"),
)

MODES = ("table", "csv", "markdown", "latex", "json", "line")
"""How rows are printed."""

DOT_COMMANDS = {
    ".help": "what there is to type",
    ".mode": "how rows are printed: " + ", ".join(MODES),
    ".run": "the run that tables and views hold: .run RUN, or .run all",
    ".tables": "the tables and views",
    ".schema": "what a table, view, macro, function or array is: .schema NAME",
    ".queries": "the named queries and analyses",
    ".query": "a named query or analysis: .query NAME [KEY=VALUE ...]",
    ".export": "write the last rows: .export FILE.tex, .csv, .md, .parquet, ...",
    ".plot": "draw a figure: .plot NAME FILE.pdf [KEY=VALUE ...]",
    ".timing": "say how long statements take: on, off",
    ".quit": "end; so does Ctrl-D",
}
"""The commands of the shell, with what they do."""

_WORD = re.compile(r"[\w.]*\Z")
_NAME = r"[A-Za-z_]\w*"
_SOURCE = re.compile(
    rf"\b(?:from|join)\s+({_NAME})(?:\s*\([^()]*\))?(?:\s+(?:as\s+)?({_NAME}))?", re.I
)
_CTE = re.compile(rf"(?:\bwith|,)\s+({_NAME})\s+as\s*\(", re.IGNORECASE)
_BEFORE_RELATION = re.compile(
    r"(?:\b(?:from|join|describe|summarize)|\bfrom\s+[^;()]*,)\s+\Z", re.IGNORECASE
)
_IN_CLAUSE = re.compile(r"\b(select|from|where|on|by|having|limit|using|set)\b", re.IGNORECASE)
_ASSIGNED = re.compile(
    rf'"?({_NAME})"?\s*(?::=|=|<>|!=|\bin\s*\((?:\s*\'[^\']*\'\s*,)*)\s*\Z', re.I
)
_KEY = re.compile(r"\bkey\"?\s*(?::=|=)\s*'((?:[^']|'')*)'", re.IGNORECASE)
_TEXT = re.compile(r"'(?:[^']|'')*('|\Z)|--[^\n]*")
_CALL = re.compile(rf"({_NAME})\s*\Z")


@dataclass(frozen=True, order=True)
class Suggestion:
    """Something that may come next.

    Attributes
    ----------
    text
        What stands in the place of the word that is being typed.
    start
        Where that word begins, counted back from the cursor: 0 or less.
    kind
        What it is: ``column``, ``macro`` and so on.
    """

    text: str
    start: int
    kind: str


def complete(names: Names, text: str) -> list[Suggestion]:
    """Return what may come next.

    Parameters
    ----------
    names
        What there is.
    text
        What stands before the cursor, with all lines of it.

    Examples
    --------
    >>> names = Names(relations={"routing": ("layer", "expert")})
    >>> complete(names, "select * from rou")
    [Suggestion(text='routing', start=-3, kind='table or view')]
    """
    if is_dot_command(text) or text.strip() == ".":
        return _of_dot_command(names, text.lstrip())
    _, rest = split_statements(text)
    opened = _open_text(rest)
    if opened is not None:
        return _of_text(names, rest[:opened], rest[opened + 1 :])
    return _of_sql(names, rest)


def _offer(begun: str, *groups: tuple[str, Iterable[str]]) -> list[Suggestion]:
    """What begins as is typed, each text once, in the order of the groups."""
    found: dict[str, Suggestion] = {}
    for kind, texts in groups:
        for each in texts:
            if each.lower().startswith(begun.lower()) and each not in found:
                found[each] = Suggestion(each, -len(begun), kind)
    return list(found.values())


def _of_dot_command(names: Names, text: str) -> list[Suggestion]:
    command, blank, given = text.partition(" ")
    if not blank:
        return _offer(command, ("command", DOT_COMMANDS))
    words = given.split(" ")
    begun, n_before = words[-1], len(words) - 1
    first: dict[str, Iterable[str]] = {
        ".mode": MODES,
        ".run": (*names.runs, "all"),
        ".schema": (*names.relations, *names.macros, *names.functions),
        ".query": names.questions,
        ".plot": names.figures,
        ".timing": ("on", "off"),
    }
    if n_before == 0:
        return _offer(begun, (command[1:], first.get(command, ())))
    macro = names.macros.get(words[0].replace("-", "_"))
    if command in (".query", ".plot") and macro is not None and "=" not in begun:
        return _offer(begun, ("parameter", (f"{name}=" for name in macro.parameters)))
    return []


def _of_text(names: Names, before: str, begun: str) -> list[Suggestion]:
    """What may stand within quotes, by what they are compared with, or given for."""
    found = [
        Suggestion(each.replace("'", "''") + "'", -len(begun), kind)
        for kind, values in [_values(names, before)]
        for each in values
        if each.lower().startswith(begun.replace("''", "'").lower())
    ]
    return found


def _values(names: Names, before: str) -> tuple[str, Sequence[str]]:
    call, n_before = _open_call(before)
    macro = names.macros.get(call)
    assigned = _ASSIGNED.search(before)
    name = assigned[1].lower() if assigned else ""
    if not assigned and macro is not None:
        name = next(iter([*macro.parameters][n_before : n_before + 1]), "")
    if not assigned and call in names.functions and n_before == 0:
        name = "run_id"
    if macro is not None and macro.parameters.get(name):
        return "value", macro.parameters[name]
    if name in ("run_id", *RUN_PARAMETERS):
        return "run", names.runs
    if name == "key":
        return "label key", names.keys()
    if name == "split":
        return "split", names.splits()
    if name in ("value", "value_a", "value_b", "top_value"):
        keys = _KEY.findall(before)
        return "label value", names.values(keys[-1].replace("''", "'")) if keys else ()
    return "", ()


def _of_sql(names: Names, text: str) -> list[Suggestion]:
    word = _WORD.search(text)
    begun = word[0] if word else ""
    before = text[: len(text) - len(begun)]
    plain = _without_texts(text)
    sources = _sources(names, plain)
    if "." in begun:
        table, _, column = begun.rpartition(".")
        return _offer(column, ("column", sources.get(table.lower(), ())))
    ctes: list[str] = _CTE.findall(plain)
    relations = (
        ("part of the statement", ctes),
        ("table or view", names.relations),
        ("macro", (f"{name}(" for name in names.macros)),
    )
    if _BEFORE_RELATION.search(_without_texts(before)):
        return _offer(begun, *relations)
    macro = names.macros.get(_open_call(before)[0])
    if macro is not None:
        given = set(re.findall(rf'"?({_NAME})"?\s*:=', before[before.rindex("(") :]))
        left = (f"{name} := " for name in macro.parameters if name not in given)
        return _offer(begun, ("parameter", left))
    # a name after one letter, the keywords where nothing is typed would be everything
    columns = dict.fromkeys(column for each in sources.values() for column in each)
    if not columns and _IN_CLAUSE.search(plain):
        columns = dict.fromkeys(column for each in names.relations.values() for column in each)
    functions = (f"{name}(" for name in names.functions)
    if not begun:
        return _offer("", ("column", columns)) if sources else _offer("", ("keyword", KEYWORDS[:1]))
    return _offer(
        begun,
        ("column", columns),
        ("function", functions),
        ("alias", (name for name in sources if name not in names.relations)),
        ("keyword", KEYWORDS),
        *relations,
    )


def _sources(names: Names, text: str) -> dict[str, Sequence[str]]:
    """The columns of what a statement reads, by the names and aliases that it has there."""
    found: dict[str, Sequence[str]] = {}
    words = {word for keyword in KEYWORDS for word in keyword.split()} | {"natural", "inner"}
    for name, alias in _SOURCE.findall(text):
        macro = names.macros.get(name.lower())
        columns = names.relations.get(name.lower(), ()) if macro is None else macro.columns
        found[name.lower()] = columns
        if alias and alias.lower() not in words:
            found[alias.lower()] = columns
    return found


def _quoted(text: str) -> Iterator[tuple[int, int | None]]:
    """Where texts in single quotes begin and end; the end of one that is open is None."""
    for found in _TEXT.finditer(text):
        if found[0].startswith("'"):
            yield found.start(), found.end() - 1 if found[1] else None


def _open_text(text: str) -> int | None:
    """Where a text begins whose end is not typed yet."""
    return next((start for start, end in _quoted(text) if end is None), None)


def _without_texts(text: str) -> str:
    """The same with nothing within its quotes, so that no word there counts."""
    for start, end in reversed([*_quoted(text)]):
        text = text[: start + 1] + (text[end:] if end is not None else "")
    return text


def _open_call(before: str) -> tuple[str, int]:
    """The function, or macro, within whose parentheses a place is, and how many commas before."""
    plain = _without_texts(before)
    depth = n_commas = 0
    for place in range(len(plain) - 1, -1, -1):
        character = plain[place]
        if character == ")":
            depth += 1
        elif character == "(" and depth:
            depth -= 1
        elif character == "(":
            name = _CALL.search(plain[:place])
            return (name[1].lower() if name else "", n_commas)
        elif character == "," and not depth:
            n_commas += 1
    return "", 0
