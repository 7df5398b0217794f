"""Tables on a terminal of a certain size, and the same in a pipe."""

import csv
import io
import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from moedb.cli import run_cli
from tests.commands.terminal.pseudo_terminal import on_terminal
from tests.support.stores.samples import write_sample

WIDE = "select 'k' || i as key, i as layer, repeat('x', 20) as text, " + ", ".join(
    f"i * {n} as column_{n}" for n in range(12)
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("terminal") / "store"
    write_sample(folder)
    return folder


@pytest.fixture
def piped(
    store: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setenv("MOEDB_STORE", str(store))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = run_cli(list(arguments))
        return code, *capfd.readouterr()

    return run


Piped = Callable[..., tuple[int, str, str]]


def width(text: str) -> int:
    """Cells of a terminal, by Unicode's table; none of the texts here combines characters."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_a_table_is_no_wider_than_the_terminal(store: Path, piped: Piped, columns: int) -> None:
    sql = f"{WIDE} from range(3) t(i)"
    shown = on_terminal(store, "sql", sql, columns=columns)
    assert max(map(width, shown.lines)) <= columns
    headers = shown.lines[0].split()
    every = next(csv.reader(io.StringIO(piped("sql", sql, "--format", "csv")[1])))
    # the first ones are there, the others are named
    assert headers == every[: len(headers)] and headers[0] == "key"
    named = shown.err.split("not shown: ")[1].split(";")[0].split(", ")
    assert headers + named == every
    assert [line.split()[:2] for line in shown.lines[2:5]] == [
        ["k0", "0"],
        ["k1", "1"],
        ["k2", "2"],
    ]


def test_columns_that_are_named_are_all_shown(store: Path) -> None:
    names = [f"column_{n}" for n in range(12)]
    sql = f"{WIDE} from range(3) t(i)"
    shown = on_terminal(store, "sql", sql, "--columns", ",".join(names))
    assert shown.lines[0].split() == names
    assert "not shown" not in shown.err


def test_wide_characters_keep_the_columns_straight(store: Path) -> None:
    sql = (
        "select * from (values ('é', 1), ('中文', 2), ('🙂', 3), (chr(10), 4), ('abcdef', 5))"
        " t(token, n)"
    )
    shown = on_terminal(store, "sql", sql)
    assert {width(line) for line in shown.lines} == {len("abcdef  n")}
    assert [line.split() for line in shown.lines[2:]] == [
        ["é", "1"],
        ["中文", "2"],
        ["🙂", "3"],
        ["\\n", "4"],
        ["abcdef", "5"],
    ]


def test_one_long_text_is_set_over_several_lines_and_cut(store: Path) -> None:
    text = " ".join(f"word{n}" for n in range(30))
    shown = on_terminal(store, "sql", f"select 1 as layer, '{text}' as text", columns=60)
    assert max(map(width, shown.lines)) <= 60
    assert " ".join(" ".join(shown.lines[2:]).split()) == f"1 {text}"
    longer = on_terminal(store, "sql", "select repeat('long text ', 500) as text", columns=60)
    assert len(longer.lines) == 2 + 8 and longer.lines[-1].endswith("…")
    assert "cut short: text; a pipe has the whole of it" in longer.err


def test_numbers_stay_on_one_line(store: Path) -> None:
    number = 123456789012345678901234567890
    shown = on_terminal(store, "sql", f"select {number}::hugeint as n, 'a' as a", columns=40)
    assert shown.lines[2] == f"{number}  a"


def test_rows_on_a_terminal_are_capped_and_counted(store: Path, piped: Piped) -> None:
    sql = "select i from range(1234567) t(i)"
    shown = on_terminal(store, "sql", sql)
    assert [int(line) for line in shown.lines[2:]] == list(range(100))
    assert "100 of 1,234,567 rows; --limit N shows more" in shown.err
    some = on_terminal(store, "sql", sql, "--limit", "250")
    assert [int(line) for line in some.lines[2:]] == list(range(250))
    assert "only the first 250 rows" in some.err
    code, out, err = piped("sql", "select i from range(300) t(i)")
    assert code == 0 and len(out.splitlines()) == 302 and "of 300 rows" not in err


def test_an_empty_answer_says_why(store: Path) -> None:
    shown = on_terminal(store, "sql", "select 1 as a, 2 as b where false")
    assert shown.lines == ["a  b", "-  -"]
    assert "no rows: the SQL selects nothing" in shown.err


def test_rows_go_to_files_in_bounded_memory(store: Path, tmp_path: Path) -> None:
    code = (
        "import resource, sys; from moedb.cli import run_cli; run_cli(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )

    def megabytes(*arguments: str) -> float:
        with (tmp_path / "out").open("w") as out:
            done = subprocess.run(
                [sys.executable, "-c", code, *arguments],
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                check=True,
                env={**os.environ, "MOEDB_STORE": str(store)},
            )
        return int(done.stderr.splitlines()[-1]) / (1 if sys.platform == "darwin" else 1024)

    many = "select i, i * 2 as b, 'text ' || i as t from range(400000) t(i)"
    base = megabytes("sql", "select 1")
    for format in ("table", "csv", "jsonl"):
        # as Python's objects the rows are 80 MB and their text some 40 more
        assert megabytes("sql", many, "--format", format) < base + 50
    assert megabytes("sql", many, "-o", str(tmp_path / "x.csv")) < base + 50


class TestPicking:
    SQL = "select i as layer, i % 3 as kind, 'v' || i as value from range(10) t(i)"

    def rows(self, piped: Piped, *options: str) -> list[dict[str, object]]:
        code, out, err = piped("sql", self.SQL, "--format", "json", *options)
        assert code == 0, err
        return json.loads(out)

    def test_rows_columns_and_order(self, piped: Piped) -> None:
        found = self.rows(
            piped,
            "--where",
            "kind > 0",
            "--order-by",
            "kind desc,layer desc",
            "--columns",
            "value,layer",
        )
        expected = sorted(
            (i for i in range(10) if i % 3 > 0), key=lambda i: (i % 3, i), reverse=True
        )
        assert found == [{"value": f"v{i}", "layer": i} for i in expected]
        assert list(found[0]) == ["value", "layer"]

    def test_alike_rows_stay_in_order(self, piped: Piped) -> None:
        found = [row["layer"] for row in self.rows(piped, "--order-by", "kind")]
        assert found == sorted(range(10), key=lambda i: i % 3)

    def test_the_footer_says_what_was_asked_for(self, piped: Piped) -> None:
        _, _, err = piped("sql", self.SQL, "--where", "layer > 7", "--order-by", "layer desc")
        assert "rows where layer > 7; ordered by layer desc; moedb" in err

    def test_so_does_the_sidecar(self, piped: Piped, tmp_path: Path) -> None:
        options = ("--where", "layer > 7", "--order-by", "layer desc", "--columns", "layer")
        paths = tmp_path / "a.csv", tmp_path / "b.csv"
        assert piped("sql", self.SQL, *options, "-o", str(paths[0]))[0] == 0
        assert piped("export", "--sql", self.SQL, *options, "-o", str(paths[1]))[0] == 0
        for path in paths:
            assert path.read_text().split() == ["layer", "9", "8"]
            sidecar = json.loads(Path(f"{path}.provenance.json").read_text())
            assert (sidecar["where"], sidecar["order_by"]) == ("layer > 7", "layer desc")
            assert sidecar["n_rows"] == 2 and sidecar["sql"] == self.SQL
            assert [column["name"] for column in sidecar["columns"]] == ["layer"]

    def test_no_row_fits(self, piped: Piped) -> None:
        _, _, err = piped("sql", self.SQL, "--where", "layer > 70")
        assert "the condition layer > 70 does not hold for any of the 10 rows" in err

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("--columns", "laier"), "did you mean layer?"),
            (("--order-by", "laier desc"), "did you mean layer?"),
            (("--order-by", "layer descending"), "no column 'layer descending'"),
            (("--where", "laier = 1"), "did you mean layer?"),
            (("--where", 'value = "v1"'), "a text stands in single quotes"),
            (("--where", "1=1; drop table x"), "is not one condition"),
            (("--where", "layer in (select 1)"), "is not one condition"),
            (("--where", "true) or (true"), "syntax error"),
            (("--where", "layer >"), "syntax error"),
        ],
    )
    def test_mistakes_are_refused(self, piped: Piped, options: tuple[str, ...], said: str) -> None:
        code, out, err = piped("sql", self.SQL, *options)
        assert (code, out) == (2, "") and said in err

    def test_every_command_with_rows_takes_them(self, piped: Piped) -> None:
        code, out, _ = piped("schema", "--where", "name = 'routing'", "--columns", "name")
        assert (code, out.split()) == (0, ["name", "-------", "routing"])
        code, out, _ = piped("runs", "--columns", "status", "--format", "csv")
        assert (code, out.split()[0]) == (0, "status")
        code, out, _ = piped(
            "query",
            "expert-frequency",
            "--where",
            "layer = 1",
            "--order-by",
            "expert desc",
            "--columns",
            "layer,expert",
            "--format",
            "json",
        )
        found = json.loads(out)
        assert code == 0 and {row["layer"] for row in found} == {1}
        experts = [row["expert"] for row in found]
        assert experts == sorted(experts, reverse=True) and len(set(experts)) > 1
