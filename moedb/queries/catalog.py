"""The named queries: what each answers, its parameters and its columns, read from its SQL file.

A file of ``moedb/sql/queries`` is a header comment and one SELECT. The same text is a command, a
Python call and a DuckDB table macro::

    -- title: Expert frequency
    -- answers: How often is each expert of each layer chosen?
    -- param run varchar = null: the run; the newest complete one when null
    -- param by varchar = 'count' in (count, lift): what the tokens are ordered by
    -- param key varchar: the label's key; required, as it has no default
    -- column layer: the MoE layer
    -- source: OLMoE
    --   a line indented so goes on with the item above it

Two rules keep the macro the same as the query. A parameter is written ``cast($name as type)``,
since a macro's parameters have no types. A column that is named as one of the query's parameters
is written with its table, since a bare name would be the parameter.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol, cast

from moedb.errors import MoedbError, ParameterError, QueryNotFoundError, did_you_mean, nearest_names

if TYPE_CHECKING:
    import duckdb

ParameterType = Literal["varchar", "integer", "double"]
Value = str | int | float | None

_INTEGER_LIMIT = 2**31
_ARTICLES = {"varchar": "a text", "integer": "an integer", "double": "a number"}

_ITEM = re.compile(r"-- (title|answers|param|column|source)\b ?(.*)")
_PARAMETER = re.compile(
    r"(?P<name>[a-z]\w*) (?P<type>varchar|integer|double)"
    r"(?: = (?P<default>'(?:[^']|'')*'|[^\s:]+))?"
    r"(?: in \((?P<choices>[^)]*)\))?"
    r": (?P<doc>.+)"
)
_COLUMN = re.compile(r"(?P<name>[a-z]\w*): (?P<doc>.+)")
_CAST = re.compile(r"cast\(\$(\w+) as (\w+)\)")
_MARK = re.compile(r"\$(\w+)")
_TRIALS = re.compile(r"^\s*(?:from|join) (?:trials|trial_routing)\b", re.MULTILINE)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a named query.

    Attributes
    ----------
    name
        What stands after the ``$`` in the SQL and after ``-p`` on the command line.
    type
        Its SQL type.
    default
        Its value where none is given, or where null is.
    required
        Whether a value must be given.
    doc
        What it is.
    choices
        The values it may have; empty where any will do.
    """

    name: str
    type: ParameterType
    default: Value
    required: bool
    doc: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class OutputColumn:
    """One column of a named query's result."""

    name: str
    doc: str


class Question(Protocol):
    """What can be asked by a name: a named query, or an analysis in Python."""

    @property
    def name(self) -> str:
        """Its name, words joined by hyphens."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Its parameters, in order."""


@dataclass(frozen=True)
class NamedQuery:
    """One named query.

    Attributes
    ----------
    name
        Its name, words joined by hyphens.
    title
        Its title, fit for the caption of a table.
    question
        The question that it answers.
    parameters
        Its parameters, in the order of the macro's.
    columns
        The columns of its result, in order.
    source
        Where its definitions come from.
    sql
        The whole text, header included, without a semicolon at its end.
    """

    name: str
    title: str
    question: str
    parameters: tuple[Parameter, ...]
    columns: tuple[OutputColumn, ...]
    source: str
    sql: str

    @property
    def macro_name(self) -> str:
        """The name of its table macro: underscores for hyphens."""
        return self.name.replace("-", "_")

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns of its result, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def reads_trials(self) -> bool:
        """Whether it is about all trials of the store, where no run is named."""
        return _TRIALS.search(self.sql) is not None


def parse_query(name: str, text: str) -> NamedQuery:
    """Read one query file.

    Parameters
    ----------
    name
        The file's name without its ending.
    text
        What is in it.

    Raises
    ------
    MoedbError
        If the header is malformed, or the SQL and the header disagree on the parameters.
    """
    sql = text.strip().removesuffix(";").rstrip()
    header: list[tuple[str, str]] = []
    for line in sql.splitlines():
        if not line.startswith("--"):
            break
        item = _ITEM.fullmatch(line.rstrip())
        if item:
            header.append((item[1], item[2].removeprefix(":").strip()))
        elif line.startswith("--   ") and header:
            kind, so_far = header[-1]
            header[-1] = (kind, f"{so_far} {line[2:].strip()}")
        else:
            raise _malformed(name, f"line {line!r} is no title, answers, param, column or source")

    single: dict[str, str] = {}
    parameters: list[Parameter] = []
    columns: list[OutputColumn] = []
    for kind, item_text in header:
        if kind == "param":
            parameters.append(_parse_parameter(name, item_text))
        elif kind == "column":
            column = _COLUMN.fullmatch(item_text)
            if column is None:
                raise _malformed(name, f"column {item_text!r} is not NAME: WHAT IT IS")
            columns.append(OutputColumn(column["name"], column["doc"]))
        elif kind in single or not item_text:
            raise _malformed(name, f"{kind} is empty, or there twice")
        else:
            single[kind] = item_text
    missing = [kind for kind in ("title", "answers", "source") if kind not in single]
    if missing or not columns:
        raise _malformed(name, f"no {', '.join(missing) or 'column'}")
    for what, names in (
        ("param", [parameter.name for parameter in parameters]),
        ("column", [column.name for column in columns]),
    ):
        twice = sorted({one for one in names if names.count(one) > 1})
        if twice:
            raise _malformed(name, f"{what} {', '.join(twice)} is declared twice")
    _check_marks(name, sql, parameters)
    return NamedQuery(
        name=name,
        title=single["title"],
        question=single["answers"],
        parameters=tuple(parameters),
        columns=tuple(columns),
        source=single["source"],
        sql=sql,
    )


def catalog() -> Mapping[str, NamedQuery]:
    """Return the named queries by name, in alphabetical order."""
    return _catalog()


def named_query(name: str) -> NamedQuery:
    """Return the query called ``name``; underscores do for hyphens.

    Raises
    ------
    QueryNotFoundError
        If there is no such query.
    """
    queries = catalog()
    found = queries.get(name.replace("_", "-"))
    if found is None:
        raise no_such_query(name, queries)
    return found


def no_such_query(name: str, known: Iterable[str]) -> QueryNotFoundError:
    """The error that says which of the ``known`` names are nearest to ``name``."""
    near = nearest_names(name.replace("_", "-"), known)
    return QueryNotFoundError(
        f"no query named {name!r}" + (f"; {near}" if near else ""),
        "all names are listed by: moedb query",
    )


def bind(query: Question, given: Mapping[str, object]) -> dict[str, Value]:
    """Return a value for each parameter of ``query``, as DuckDB wants them.

    Parameters
    ----------
    query
        The query, or the analysis.
    given
        Values by name; strings from a command line are converted. None asks for the default.

    Raises
    ------
    ParameterError
        If a parameter is unknown, missing, or of the wrong type.

    Examples
    --------
    >>> bind(named_query("co-activation"), {"layer": "3"})
    {'run': None, 'split': None, 'layer': 3}
    """
    by_name = {parameter.name: parameter for parameter in query.parameters}
    for name in given:
        if name not in by_name:
            raise ParameterError(
                f"{query.name} has no parameter {name!r}; {did_you_mean(name, by_name)}",
                f"moedb query {query.name} -p NAME VALUE",
            )
    values: dict[str, Value] = {}
    for name, parameter in by_name.items():
        value = given.get(name)
        if value is not None:
            values[name] = _convert(query, parameter, value)
        elif parameter.required:
            raise ParameterError(
                f"{query.name} needs the parameter {name!r}: {parameter.doc}",
                f"moedb query {query.name} -p {name} VALUE",
            )
        else:
            values[name] = parameter.default
    return values


def create_macros(connection: duckdb.DuckDBPyConnection, used_in: str | None = None) -> None:
    """Define every named query as a table macro: ``from routing_by_class(key := 'template')``.

    A macro has its query's parameters, by name or in their order, and their defaults; null stands
    for the default there too. The tables and views that the queries read must exist, and may be
    replaced later.

    Parameters
    ----------
    connection
        Where the macros are made: in its current schema.
    used_in
        Some SQL: define no more than the macros that it names, at some 10 ms each.
    """
    wanted = [
        query
        for query in catalog().values()
        if used_in is None or query.macro_name in used_in.lower()
    ]
    if not wanted:
        return
    (catalog_name, schema_name), *_ = connection.execute(
        "select current_database(), current_schema()"
    ).fetchall()
    # DuckDB refuses a macro while a column anywhere below it, in the body of a view too, bears a
    # parameter's name unqualified. It looks at creation only: empty tables stand in for the views.
    relations: dict[str, list[str]] = {}
    for relation, column, column_type in connection.execute(
        """
        select table_name, column_name, data_type
        from duckdb_columns()
        where database_name = current_database()
            and schema_name = current_schema()
            and not internal
        order by table_name, column_index
        """
    ).fetchall():
        relations.setdefault(relation, []).append(f"{_quoted(column)} {column_type}")
    stand_ins: list[str] = []
    try:
        for relation, columns in relations.items():
            connection.execute(f"create temp table {_quoted(relation)} ({', '.join(columns)})")
            stand_ins.append(relation)
        for query in wanted:
            connection.execute(_macro_sql(query, catalog_name, schema_name))
    finally:
        for relation in stand_ins:
            connection.execute(f"drop table temp.{_quoted(relation)}")


@cache
def _catalog() -> Mapping[str, NamedQuery]:
    folder = resources.files("moedb") / "sql" / "queries"
    files = {
        file.name.removesuffix(".sql"): file
        for file in folder.iterdir()
        if file.name.endswith(".sql")
    }
    return MappingProxyType(
        {name: parse_query(name, files[name].read_text(encoding="utf-8")) for name in sorted(files)}
    )


def _parse_parameter(query_name: str, text: str) -> Parameter:
    match = _PARAMETER.fullmatch(text)
    if match is None:
        raise _malformed(query_name, f"param {text!r} is not NAME TYPE [= DEFAULT]: WHAT IT IS")
    name, default = match["name"], match["default"]
    parameter_type = cast("ParameterType", match["type"])
    choices = tuple(choice.strip() for choice in (match["choices"] or "").split(",") if choice)
    value: Value = None
    if default is not None and default != "null":
        is_text = default.startswith("'")
        if is_text != (parameter_type == "varchar"):
            raise _malformed(query_name, f"the default {default} of {name} is no {parameter_type}")
        try:
            if is_text:
                value = default[1:-1].replace("''", "'")
            else:
                value = int(default) if parameter_type == "integer" else float(default)
        except ValueError:
            raise _malformed(
                query_name, f"the default {default} of {name} is no {parameter_type}"
            ) from None
    if choices and value is not None and value not in choices:
        raise _malformed(query_name, f"the default {default} of {name} is none of its choices")
    return Parameter(name, parameter_type, value, default is None, match["doc"], choices)


def _check_marks(query_name: str, sql: str, parameters: list[Parameter]) -> None:
    body = "\n".join(line for line in sql.splitlines() if not line.lstrip().startswith("--"))
    declared = {parameter.name: parameter.type for parameter in parameters}
    used = set(_MARK.findall(body))
    if used - declared.keys():
        raise _malformed(query_name, f"${', $'.join(sorted(used - declared.keys()))} not declared")
    if declared.keys() - used:
        raise _malformed(query_name, f"${', $'.join(sorted(declared.keys() - used))} not used")
    if len(_CAST.findall(body)) != len(_MARK.findall(body)):
        raise _malformed(query_name, "a parameter is not written cast($name as type)")
    for name, written in _CAST.findall(body):
        if written != declared[name]:
            raise _malformed(query_name, f"${name} is {declared[name]}, and cast to {written}")


def _malformed(query_name: str, what: str) -> MoedbError:
    return MoedbError(f"sql/queries/{query_name}.sql is malformed: {what}")


def _convert(query: Question, parameter: Parameter, value: object) -> Value:
    def refuse(expected: str) -> ParameterError:
        return ParameterError(
            f"{query.name}: {parameter.name} is {expected}, not {value!r} ({parameter.doc})",
            f"moedb query {query.name} -p {parameter.name} VALUE",
        )

    article = _ARTICLES[parameter.type]
    if isinstance(value, bool):
        raise refuse(article)
    if parameter.type == "varchar":
        text = str(value)
        if parameter.choices and text not in parameter.choices:
            raise refuse(f"one of {', '.join(parameter.choices)}")
        return text
    try:
        if parameter.type == "double":
            return float(value)  # type: ignore[arg-type]
        number = int(value) if isinstance(value, str) else operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise refuse(article) from None
    if not -_INTEGER_LIMIT <= number < _INTEGER_LIMIT:
        raise refuse("an integer of 32 bits")
    return number


def _macro_sql(query: NamedQuery, catalog_name: str, schema_name: str) -> str:
    defaults = {parameter.name: _literal(parameter.default) for parameter in query.parameters}

    def replacement(mark: re.Match[str]) -> str:
        name, default = _quoted(mark[1]), defaults[mark[1]]
        return name if default == "null" else f"coalesce({name}, {default})"

    # parameters without a default come first, as positional ones must
    ordered = sorted(query.parameters, key=lambda parameter: not parameter.required)
    signature = ", ".join(
        _quoted(parameter.name)
        + ("" if parameter.required else f" := {_literal(parameter.default)}")
        for parameter in ordered
    )
    macro = f"{_quoted(catalog_name)}.{_quoted(schema_name)}.{_quoted(query.macro_name)}"
    body = _MARK.sub(replacement, query.sql)
    return f"create or replace macro {macro}({signature}) as table\n{body}"


def _literal(value: Value) -> str:
    if value is None:
        return "null"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'
