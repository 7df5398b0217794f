"""What is offered after TAB, of made-up names."""

from pathlib import Path

import pytest

import moedb
from moedb.commands.asking.shell.completion import DOT_COMMANDS, MODES, Suggestion, complete
from moedb.commands.asking.shell.names import MacroNames, Names, names_of
from moedb.queries.questions.catalog import catalog
from moedb.schemas.tables import TABLES
from tests.support.stores.samples import RUN_ID, write_texts

NAMES = Names(
    relations={
        "routing": ("run_id", "token_idx", "layer", "expert", "weight"),
        "router_stats": ("run_id", "token_idx", "layer", "entropy"),
        "tokens": ("run_id", "token_idx", "token"),
        "labels": ("run_id", "key", "value"),
    },
    macros={
        "routing_by_class": MacroNames(
            {"key": (), "run": (), "layer": (), "split": (), "by": ("count", "lift")},
            ("value", "expert", "lift"),
        ),
        "expert_frequency": MacroNames({"run": ()}, ("layer", "expert", "frequency")),
    },
    functions=("expert_output", "router_logits"),
    runs=("text-0123", "it's", "ioi-4"),
    figures=("routing-by-class",),
    questions=("routing-by-class", "logit-lens"),
    keys=lambda: ["role", "template"],
    splits=lambda: ["clean", "corrupted", "all"],
    values=lambda key: {"role": ["io", "s1", "s2"], "it's": ["odd"]}.get(key, []),
)


def offered(text: str) -> list[str]:
    return [found.text for found in complete(NAMES, text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # relations
        ("select * from rout", ["routing", "router_stats", "routing_by_class("]),
        ("select * from tokens join lab", ["labels"]),
        ("FROM tok", ["tokens"]),
        ("from tokens, la", ["labels"]),
        ("with mine as (select 1) select * from mi", ["mine"]),
        ("describe la", ["labels"]),
        # columns of what is read, and of that alone
        ("select ent", ["entropy"]),
        ("from router_stats select ent", ["entropy"]),
        (
            "select lay from routing where exp",
            ["expert", "expert_output(", "explain", "expert_frequency("],
        ),
        ("select * from routing where tok", ["token_idx", "tokens"]),
        ("select * from routing_by_class(key := 'role') where lif", ["lift"]),
        ("select * from tokens as t where t.to", ["token_idx", "token"]),
        ("select * from tokens t join routing r on r.", list(NAMES.relations["routing"])),
        ("select x.", []),
        # a word in a text is none
        ("select 'from routing' from labels where wei", []),
        # calls
        ("from routing_by_class(", [f"{n} := " for n in ("key", "run", "layer", "split", "by")]),
        ("from routing_by_class(key := 'role', l", ["layer := "]),
        ("from routing_by_class(key := 'role', k", []),
        # values
        ("from routing_by_class(key := '", ["role'", "template'"]),
        ("from routing_by_class('ro", ["role'"]),
        ("from routing_by_class('role', run := 't", ["text-0123'"]),
        ("from routing_by_class('role', 'te", ["text-0123'"]),
        ("from routing_by_class(split := 'c", ["clean'", "corrupted'"]),
        ("from routing_by_class(by := '", ["count'", "lift'"]),
        ("from routing_by_class(key := 'role') where value = '", ["io'", "s1'", "s2'"]),
        ("select * from labels where key = 'role' and value in ('io', 's", ["s1'", "s2'"]),
        ("select * from labels where key = 'it''s' and value = '", ["odd'"]),
        ("select * from labels where value = '", []),
        ("select * from runs where run_id = 'it", ["it''s'"]),
        ("select * from runs where run_id = 'it''", ["it''s'"]),
        ("select expert_output('t", ["text-0123'"]),
        ("select * from tokens where token = 't", []),
        # the statement before says nothing
        ("select * from labels; select * from tokens where val", []),
        ("select 1; select * from rou", ["routing", "router_stats", "routing_by_class("]),
        # beginnings
        ("", ["select"]),
        ("sel", ["select"]),
        ("SEL", ["select"]),
        # commands
        (".", [*DOT_COMMANDS]),
        (".sch", [".schema"]),
        (".mode ", [*MODES]),
        (".mode m", ["markdown"]),
        (".run t", ["text-0123"]),
        (".run a", ["all"]),
        (".schema rou", ["routing", "router_stats", "routing_by_class", "router_logits"]),
        (".timing o", ["on", "off"]),
        (".query lo", ["logit-lens"]),
        (".query routing-by-class l", ["layer="]),
        (".plot r", ["routing-by-class"]),
        (".export x", []),
    ],
)
def test_what_is_offered(text: str, expected: list[str]) -> None:
    assert offered(text) == expected


def test_what_is_replaced_is_the_word_that_is_typed() -> None:
    assert complete(NAMES, "select t.to from tokens t where t.tok") == [
        Suggestion("token_idx", -3, "column"),
        Suggestion("token", -3, "column"),
    ]
    assert complete(NAMES, "where run_id = 'te") == [Suggestion("text-0123'", -2, "run")]
    assert complete(NAMES, ".sch") == [Suggestion(".schema", -4, "command")]


@pytest.mark.parametrize(
    "text", ["'", "''", "(((", "))", "a.b.c.", "-- it's\n", "\x1b[", "é'", "$$"]
)
def test_nothing_that_is_typed_fails(text: str) -> None:
    for whole in (text, f"select {text}", f"from routing_by_class({text}", f".run {text}"):
        complete(NAMES, whole)


def test_the_names_of_a_store(tmp_path: Path) -> None:
    write_texts(tmp_path / "store", ["one two", "three"], example_labels={"k'1": "v\x1b[0m"})
    with moedb.open(tmp_path / "store") as db:
        names = names_of(db)
        assert names.runs == (RUN_ID,)
        assert list(names.keys()) == ["k'1"]
        assert list(names.values("k'1")) == ["v\x1b[0m"] and not names.values("none")
        assert "all" in names.splits()
        for table in TABLES:
            assert tuple(names.relations[table.name]) == table.column_names
        assert names.relations["labels"] and set(names.macros) == {
            query.macro_name for query in catalog().values()
        }
        for query in catalog().values():
            found = names.macros[query.macro_name]
            assert tuple(found.parameters) == query.positional
            assert tuple(found.columns) == query.column_names
        for name, columns in names.relations.items():
            assert db.sql(f"select * from {name}").columns == list(columns)
