"""One named query: what it answers, its parameters and its columns, read from its SQL file.

A file of ``moedb/sql/queries`` is a header comment and one SELECT. The same text is a command, a
Python call and a DuckDB table macro::

    -- title: Expert frequency
    -- answers: How often is each expert of each layer chosen?
    -- subject: experts
    -- param run varchar = null: the run; the newest complete one when null
    -- param by varchar = 'count' in (count, lift): what the tokens are ordered by
    -- param key varchar: the label's key; required, as it has no default
    -- param top integer = 5 from 1 to 100: the most used; never fewer or more than these
    -- param by_key varchar naming example-label: what of the run it names, see ``Named``
    -- column layer: the MoE layer
    -- rows: layer, expert
    -- shares: frequency
    -- estimates: lift
    -- source: OLMoE
    --   a line indented so goes on with the item above it

``rows`` names the columns that tell rows apart, ``shares`` and ``estimates`` those that intervals
can be asked for, the first from 0 to 1; a query without them has none. ``size`` is the column that
says of how many tokens or examples a row is, where not all rows are of the same ones. Of estimates
``signed`` may be negative, ``negative`` are never above 0, ``steps`` change only in steps, as sets
of experts do, ``kinks`` bend where two shares are alike, as the smaller of them does, and
``absent`` are 0 where their row is left out, as nothing was counted for it. Of those that
``shuffled`` names one can ask what shuffled labels give, and of those that ``even`` names what
experts give that are chosen alike.

Two rules keep the macro the same as the query. A parameter is written ``cast($name as type)``,
since a macro's parameters have no types. A column that is named as one of the query's parameters
is written with its table, since a bare name would be the parameter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast, get_args

from moedb.errors import MoedbError, did_you_mean
from moedb.queries.questions.header import malformed, read_columns, read_header
from moedb.queries.questions.parameters import Named, Parameter, ParameterType, Value
from moedb.queries.questions.question import SUBJECTS, OutputColumn, Question, Subject
from moedb.schemas.tables import TABLES
from moedb.store.engine.quoting import literal

PARAMETER_MARK = re.compile(r"\$(\w+)")
"""Where a query's SQL has a parameter, and its name."""

LATEST_RUN = "(select latest_run.run_id from latest_run)"
"""The run that a query of one run reads where none is named, in SQL."""

_SINGLE = ("title", "answers", "subject", "source")
_LISTS = (
    "rows",
    "size",
    "shares",
    "estimates",
    "signed",
    "negative",
    "steps",
    "kinks",
    "absent",
    "shuffled",
    "even",
)
_KINDS = ("title", "answers", "subject", "param", "column", *_LISTS, "source")
_PARAMETER = re.compile(
    r"(?P<name>[a-z]\w*) (?P<type>varchar|integer|double)"
    r"(?: = (?P<default>'(?:[^']|'')*'|[^\s:]+))?"
    r"(?: in \((?P<choices>[^)]*)\))?"
    r"(?: from (?P<least>\d+)(?: to (?P<most>\d+))?)?"
    r"(?: naming (?P<named>[a-z-]+))?"
    r": (?P<doc>.+)"
)
PARAMETER_CAST = re.compile(r"cast\(\$(\w+) as (\w+)\)")
"""A parameter as it is written, its name and its type."""

_ORDER = re.compile(r"^order by\b.*\Z", re.MULTILINE | re.DOTALL)
_READ = re.compile(r"^\s*(?:from|join) (\w+)\b", re.MULTILINE)
_PART = re.compile(r"^(?:with )?(\w+) as \($", re.MULTILINE)
_ESSENTIAL = (
    "tokens",
    "routing",
    "router_stats",
    "router_mass",
    "predictions",
    "logit_lens",
    "probe_scores",
    "expert_labels",
    "label_verdicts",
    "label_effects",
    "expert_cosines",
)
_OF_ROUTING = (
    "adjacent_pairs",
    "class_pairs",
    "class_routing",
    "example_routing",
    "expert_pairs",
    "expert_usage",
    "layer_pairs",
    "rank_usage",
    "shared_decisions",
    "vocabulary_routing",
    "vocabulary_usage",
)
_OF_ROUTER_STATS = ("class_router_stats", "selection_router_stats")
_BEHIND = {
    **dict.fromkeys(_OF_ROUTING, "routing"),
    **dict.fromkeys(_OF_ROUTER_STATS, "router_stats"),
    "expert_mass": "router_mass",
    "probe_choices": "probe_scores",
}
"""What the rows of a view come from."""
_TRIALS = re.compile(r"^\s*(?:from|join) (?:trials|trial_routing)\b", re.MULTILINE)


@dataclass(frozen=True)
class NamedQuery(Question):
    """One named query.

    Attributes
    ----------
    sql
        The whole text, header included, without a semicolon at its end.
    row_columns
        The columns that tell its rows apart, where it has estimates.
    size
        The column that says of how much a row is; None where all are of the same examples.
    estimates
        The columns that intervals can be asked for.
    shares
        Those of them that are from 0 to 1.
    signed
        Those of them that may be negative.
    negative
        Those of them that are never above 0.
    steps
        Those of them that change only in steps.
    kinks
        Those of them that bend where two shares are alike.
    absent
        Those of them that are 0 where a row is left out.
    shuffled, even
        Those of them whose values by chance are known: where labels are shuffled, and where experts
        are chosen alike.
    """

    sql: str
    row_columns: tuple[str, ...] = ()
    size: str | None = None
    estimates: tuple[str, ...] = ()
    shares: frozenset[str] = frozenset()
    signed: frozenset[str] = frozenset()
    negative: frozenset[str] = frozenset()
    steps: frozenset[str] = frozenset()
    kinks: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    shuffled: tuple[str, ...] = ()
    even: tuple[str, ...] = ()

    @property
    def macro_name(self) -> str:
        """The name of its table macro: underscores for hyphens."""
        return self.name.replace("-", "_")

    @cached_property
    def relations(self) -> frozenset[str]:
        """The tables and views that it names."""
        return frozenset(_READ.findall(self.sql)) - frozenset(_PART.findall(self.sql))

    @property
    def reads(self) -> tuple[str, ...]:
        """What a run must hold for it: tables, and columns that are null in some runs."""
        read = {table for name in self.relations for table in (name, _BEHIND.get(name, name))}
        needed = [table for table in _ESSENTIAL if table in read]
        if "predictions.logit_diff" in self.sql:
            needed.append("predictions.logit_diff")
        return tuple(needed)

    def written_out(self, values: Mapping[str, Value]) -> str:
        """Return the SQL with values in place of its parameters, to be pasted elsewhere.

        Parameters
        ----------
        values
            By name; a parameter that is not there stays as it is. Where a query of one run is given
            none, the text looks up ``latest_run``.
        """

        def replacement(mark: re.Match[str]) -> str:
            name = mark[1]
            if name not in values:
                return mark[0]
            if name == "run" and values[name] is None and not self.reads_trials:
                return LATEST_RUN
            return literal(values[name])

        return PARAMETER_MARK.sub(replacement, self.sql)

    @property
    def unordered(self) -> str:
        """Its SQL without the order of the rows."""
        return _ORDER.sub("", self.sql)

    @property
    def positional(self) -> tuple[str, ...]:
        """The names of its macro's parameters in their order: those without a default first."""
        ordered = sorted(self.parameters, key=lambda parameter: not parameter.required)
        return tuple(parameter.name for parameter in ordered)

    @property
    def reads_additions(self) -> bool:
        """Whether it reads what no capture writes: rows that were added to complete runs."""
        added = {table.name for table in TABLES if not table.is_captured}
        return not added.isdisjoint(_BEHIND.get(name, name) for name in self.relations)

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
    header = read_header(_path(name), sql, _KINDS)
    single: dict[str, str] = {}
    parameters: list[Parameter] = []
    for kind, item_text in header:
        if kind == "param":
            parameters.append(_parse_parameter(name, item_text))
        elif kind in single or not item_text:
            raise _malformed(name, f"{kind} is empty, or there twice")
        elif kind != "column":
            single[kind] = item_text
    missing = [kind for kind in _SINGLE if kind not in single]
    if missing:
        raise _malformed(name, f"no {', '.join(missing)}")
    if single["subject"] not in SUBJECTS:
        subjects = did_you_mean(single["subject"], SUBJECTS)
        raise _malformed(name, f"subject {single['subject']!r} is none; {subjects}")
    columns = read_columns(_path(name), header)
    for what, names in (
        ("param", [parameter.name for parameter in parameters]),
        ("column", [column.name for column in columns]),
    ):
        twice = sorted({one for one in names if names.count(one) > 1})
        if twice:
            raise _malformed(name, f"{what} {', '.join(twice)} is declared twice")
    _check_marks(name, sql, parameters)
    listed = {kind: _listed(name, kind, single.get(kind), columns) for kind in _LISTS}
    if bool(listed["rows"]) != bool(listed["shares"] or listed["estimates"]):
        raise _malformed(name, "rows are told apart for shares or estimates, and for these alone")
    estimates = {*listed["shares"], *listed["estimates"]}
    return NamedQuery(
        name=name,
        title=single["title"],
        answers=single["answers"],
        subject=cast("Subject", single["subject"]),
        parameters=tuple(parameters),
        columns=columns,
        source=single["source"],
        sql=sql,
        row_columns=listed["rows"],
        size=next(iter(listed["size"]), None),
        estimates=tuple(column.name for column in columns if column.name in estimates),
        shares=frozenset(listed["shares"]),
        signed=frozenset(listed["signed"]),
        negative=frozenset(listed["negative"]),
        steps=frozenset(listed["steps"]),
        kinks=frozenset(listed["kinks"]),
        absent=frozenset(listed["absent"]),
        shuffled=listed["shuffled"],
        even=listed["even"],
    )


def _listed(
    query_name: str, kind: str, text: str | None, columns: Sequence[OutputColumn]
) -> tuple[str, ...]:
    names = tuple(part.strip() for part in (text or "").split(",") if part.strip())
    known = [column.name for column in columns]
    for name in names:
        if name not in known:
            raise _malformed(
                query_name, f"{kind} {name!r} is no column; {did_you_mean(name, known)}"
            )
    return names


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
    named = match["named"]
    if named is not None and named not in get_args(Named):
        raise _malformed(query_name, f"{name} names {named}, which is nothing of a run")
    least, most = (None if match[end] is None else int(match[end]) for end in ("least", "most"))
    if least is not None and parameter_type == "varchar":
        raise _malformed(query_name, f"{name} is a text, which has no range")
    parameter = Parameter(
        name,
        parameter_type,
        value,
        default is None,
        match["doc"],
        choices,
        least,
        most,
        cast("Named | None", named),
    )
    if isinstance(value, int | float):
        low, high = parameter.range
        if (low is not None and value < low) or (high is not None and value > high):
            raise _malformed(query_name, f"the default {default} of {name} is out of its range")
    return parameter


def _check_marks(query_name: str, sql: str, parameters: list[Parameter]) -> None:
    body = "\n".join(line for line in sql.splitlines() if not line.lstrip().startswith("--"))
    declared = {parameter.name: parameter.type for parameter in parameters}
    used = set(PARAMETER_MARK.findall(body))
    if used - declared.keys():
        raise _malformed(query_name, f"${', $'.join(sorted(used - declared.keys()))} not declared")
    if declared.keys() - used:
        raise _malformed(query_name, f"${', $'.join(sorted(declared.keys() - used))} not used")
    if len(PARAMETER_CAST.findall(body)) != len(PARAMETER_MARK.findall(body)):
        raise _malformed(query_name, "a parameter is not written cast($name as type)")
    for name, written in PARAMETER_CAST.findall(body):
        if written != declared[name]:
            raise _malformed(query_name, f"${name} is {declared[name]}, and cast to {written}")


def _malformed(query_name: str, what: str) -> MoedbError:
    return malformed(_path(query_name), what)


def _path(query_name: str) -> str:
    return f"sql/queries/{query_name}.sql"
