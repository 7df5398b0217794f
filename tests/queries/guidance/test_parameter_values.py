"""Questions about what a run does not hold: on the command line, in Python and in macros."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import moedb
from moedb.cli import run_cli
from moedb.errors import ParameterError, RunNotFoundError, UsageError
from moedb.queries.analyses.registry import ANALYSES, find_question
from moedb.queries.database import Database
from moedb.queries.figures.drawing import draw
from moedb.queries.guidance.parameter_values import check_values, offer
from moedb.queries.questions.binding import bind
from moedb.queries.questions.catalog import catalog
from moedb.queries.questions.parameters import RUN_PARAMETERS
from moedb.queries.questions.query_file import parse_query
from moedb.queries.reading.run_contents import RunContents
from moedb.queries.results.export import export, sidecar_path

pytestmark = pytest.mark.model

Run = Callable[..., tuple[int, str, str]]
DOMAINS = {"python": "x = f(y)\n", "novel": "She went home.", "poem": "The woods are lovely."}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of IOI prompts, one of texts, and two of interventions on the first."""
    folder = tmp_path_factory.mktemp("values")
    made = folder / "store"
    texts = folder / "texts.jsonl"
    rows = [{"text": f"{text} {n}", "domain": d} for n in range(3) for d, text in DOMAINS.items()]
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    commands = [
        ["capture", "text", "--dataset", str(texts), "--label", "domain"],
        ["capture", "qwen-ioi", "--n", "6"],
    ]
    for command in commands:
        assert run_cli([*command, "--store", str(made)]) == 0
    for options in (
        ["--kind", "knock-out-shared", "--lens", "--layers", "2,3"],
        ["--kind", "ablate-experts", "--experts", "3", "--layers", "2"],
    ):
        command = ["intervene", "--run", "qwen-ioi", *options, "--store", str(made)]
        assert run_cli(command) == 0
    return made


@pytest.fixture(scope="module")
def db(store: Path) -> Iterator[Database]:
    with moedb.open(store) as database:
        yield database


@pytest.fixture(scope="module")
def intervened(db: Database) -> dict[str, str]:
    """The run with interventions of each kind."""
    rows = db.sql("select distinct kind, run_id from conditions where kind <> 'none'").fetchall()
    return dict(rows)


@pytest.fixture
def cli(
    store: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Run]:
    monkeypatch.setenv("MOEDB_STORE", str(store))

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run_cli(list(arguments))
        out, err = capfd.readouterr()
        return code, out, err

    return run


TEXT, IOI = {"run": "text"}, {"run": "qwen-ioi"}
WRONG: list[tuple[str, dict[str, Any], str]] = [
    # what a parameter names is not there
    (
        "overlap",
        {**TEXT, "key": "domain", "value_a": "python", "value_b": "pyton"},
        "no value 'pyton' of the label domain in run text-*; did you mean python? valid: novel, ",
    ),
    (
        "overlap",
        {**TEXT, "key": "domian", "value_a": "python"},
        "no label key 'domian' in run text-*; did you mean domain? valid: document, domain, window",
    ),
    ("overlap", {**TEXT, "value_a": "python"}, "the value of which label is not said"),
    ("overlap", {**TEXT, "key": "domain"}, "the key 'domain' is given, but none of its values"),
    ("overlap", TEXT, "both groups are the same tokens"),
    (
        "overlap",
        {**TEXT, "key": "domain", "value_a": "poem", "value_b": "poem"},
        "both groups are the same tokens",
    ),
    ("overlap", {**TEXT, "run_b": "text"}, "both groups are the same tokens"),
    ("overlap", {**TEXT, "run_b": "qwen-ioi", "m": -1}, "m is -1, not 1 or more"),
    ("overlap", {**TEXT, "run_b": "qwen-ioi", "m": 61}, "no layer has more than 60 experts"),
    (
        "overlap",
        {**IOI, "run_b": "text", "key": "role", "value_a": "io", "value_b": "io"},
        "no label key 'role' in run text-*; valid: document, domain, window",
    ),
    ("saturation", {**IOI, "run_b": "text"}, "they are runs over other examples"),
    ("routing-by-class", {**TEXT, "key": "domian"}, "no label key 'domian'"),
    ("routing-by-class", {**TEXT, "key": "domain", "layer": 99}, "no MoE layer 99 in run text-*"),
    ("routing-by-class", {**TEXT, "key": "domain", "split": "train"}, "no split 'train' in run"),
    ("routing-by-class", {**IOI, "key": "role", "split": "Clean"}, "did you mean clean?"),
    (
        "routing-by-class",
        {**IOI, "key": "twin_of"},
        "the label twin_of is on no token of run qwen-ioi-* in the examples that are read (all but "
        "corrupted); it is in: corrupted",
    ),
    ("expert-specialization", {**TEXT, "key": "Domain"}, "did you mean domain?"),
    ("pair-specialization", {**TEXT, "key": "Domain"}, "did you mean domain?"),
    ("router-confidence", {**TEXT, "key": "nokey"}, "no label key 'nokey'"),
    ("label-information", {**TEXT, "key": "nokey"}, "no label key 'nokey'"),
    ("kmeans-baseline", {**TEXT, "key": "nokey"}, "no label key 'nokey'"),
    ("kmeans-baseline", {**TEXT, "layer": 99}, "no MoE layer 99"),
    ("output-overlap", {**TEXT, "layer": 99}, "no MoE layer 99 in run text-*; valid: 0 to 5"),
    ("cross-layer", {**TEXT, "layer": 5}, "no MoE layer comes after layer 5"),
    ("co-activation", {**TEXT, "layer": -1}, "no MoE layer -1"),
    ("top-tokens", {**TEXT, "expert": 77}, "no expert 77 in run text-*; valid: 0 to 59"),
    ("top-tokens", {**TEXT, "expert": -1, "layer": 3}, "no expert -1 in layer 3 of run text-*"),
    ("top-tokens", {**TEXT, "n": 0}, "n is 0, not 1 or more"),
    ("top-tokens", {**TEXT, "min_count": -1}, "min_count is -1, not 0 or more"),
    ("active-experts", {**TEXT, "position": 999}, "has a token at position 999; valid: 0 to "),
    ("active-experts", {**TEXT, "position": -1}, "position is -1, not 0 or more"),
    (
        "routing-by-example",
        {**IOI, "key": "role"},
        "no label key 'role' of examples in run qwen-ioi-* (it is one of tokens); valid: io, ",
    ),
    ("ioi-logit-diff", {**IOI, "key": "templat"}, "did you mean template?"),
    ("ioi-logit-diff", {**IOI, "condition": 3}, "no condition 3 in run qwen-ioi-*; valid: 0"),
    ("logit-lens", {**IOI, "condition": 3}, "no condition 3 in run qwen-ioi-*; valid: 0"),
    ("logit-lens", {**IOI, "position": 999}, "has a token at position 999"),
    ("logit-lens", {**IOI, "samples": -1}, "samples is -1, not 0 to 100000"),
    ("label-information", {**TEXT, "key": "domain", "permutations": -1}, "not 0 to 1000000"),
    ("intervention-effect", {**IOI, "kind": "patch"}, "no interventions of kind 'patch' in runs "),
    (
        "intervention-effect",
        {**IOI, "kind": "ablate-experts,knockout-shared"},
        "did you mean knock",
    ),
    ("intervention-effect", {**IOI, "split": "train"}, "no split 'train'"),
    ("expert-effect", {**IOI, "split": "train"}, "no split 'train' in run qwen-ioi-*"),
    ("expert-attribution", {**IOI, "split": "train"}, "no split 'train' in run qwen-ioi-*"),
    # what the run does not hold
    ("ioi-logit-diff", TEXT, "run text-* of the job text has no predictions"),
    ("logit-lens", TEXT, "run text-* of the job text has no readings of the logit lens"),
    ("intervention-effect", TEXT, "run text-* of the job text has no predictions"),
    ("lens-effect", TEXT, "run text-* of the job text has no predictions"),
    ("expert-attribution", TEXT, "run text-* of the job text has no predictions"),
    ("expert-effect", TEXT, "run text-* of the job text has no predictions"),
    # what the store does not hold
    *(
        (name, {}, f"{name} reads complete runs with the labels experts and trial")
        for name in (
            "class-consistency",
            "class-correlation",
            "class-covariance",
            "expert-accuracy",
            "load-balance-by-trial",
            "router-ablation",
            "routing-by-class-over-trials",
        )
    ),
]


def of_runs(message: str, db: Database) -> list[str]:
    """The message with the names of the runs put in for ``text-*`` and ``qwen-ioi-*``."""
    for run_id in db.snapshot.runs:
        for job in ("text", "qwen-ioi"):
            if run_id.startswith(job):
                message = message.replace(f"{job}-*", run_id)
    return message.split("*")


@pytest.mark.parametrize(("name", "given", "message"), WRONG)
def test_a_wrong_question_is_refused_alike_everywhere(
    name: str, given: dict[str, Any], message: str, db: Database, cli: Run
) -> None:
    expected = of_runs(message, db)
    with pytest.raises((ParameterError, RunNotFoundError, UsageError)) as caught:
        db.query(name, **given)
    assert all(part in caught.value.message for part in expected), caught.value.message
    assert caught.value.exit_code == 2

    parameters = [["-p", key, str(value)] for key, value in given.items() if key != "run"]
    run = ["--run", given["run"]] if "run" in given else []
    code, out, err = cli("query", name, *run, *(each for pair in parameters for each in pair))
    assert (code, out) == (2, "")
    assert f"Error: {caught.value.message}" in err

    if name in catalog():
        # in quotes, as position is a keyword in DuckDB 1
        arguments = ", ".join(f'"{key}" := {value!r}' for key, value in given.items())
        macro = f"from {name.replace('-', '_')}({arguments})"
        with pytest.raises(UsageError) as in_macro:
            db.sql(macro)
        assert in_macro.value.message == caught.value.message


RIGHT: list[tuple[str, dict[str, Any]]] = [
    ("overlap", {**TEXT, "key": "domain", "value_a": "python", "value_b": "poem", "m": 60}),
    ("overlap", {**TEXT, "key": "domain", "value_b": "poem"}),
    ("overlap", {**IOI, "run_b": "text", "key": "domain", "value_b": "poem"}),
    ("overlap", {**IOI, "key": "role", "value_a": "io", "value_b": "s2", "split": "corrupted"}),
    ("routing-by-class", {**IOI, "key": "twin_of", "split": "all", "layer": 5}),
    ("routing-by-example", TEXT),
    ("routing-by-example", {**TEXT, "scope": "example", "position": 10_000}),
    ("top-tokens", {**TEXT, "min_count": 0, "expert": 59}),
    ("cross-layer", {**TEXT, "layer": 4}),
    ("ioi-logit-diff", {"run": "intervene", "condition": 1}),
    ("intervention-effect", {**IOI, "kind": "ablate-experts, knock-out-shared"}),
    ("expert-attribution", {**IOI, "split": "corrupted", "top": 1}),
    ("logit-lens", {**IOI, "samples": 0}),
]


@pytest.mark.parametrize(("name", "given"), RIGHT)
def test_a_right_question_is_answered(
    name: str, given: dict[str, Any], db: Database, intervened: dict[str, str]
) -> None:
    if given.get("run") == "intervene":
        given = {**given, "run": intervened["ablate-experts"]}
    assert db.query(name, **given).fetchmany(1)


def test_a_run_of_interventions_is_asked_of_the_run_that_it_is_on(
    db: Database, intervened: dict[str, str]
) -> None:
    captured = db.snapshot.run("qwen-ioi").run_id
    for name in ("expert-frequency", "load-balance", "expert-attribution", "top-tokens"):
        with pytest.raises(UsageError, match="of its own: it holds interventions on") as caught:
            db.query(name, run=intervened["ablate-experts"])
        assert caught.value.hint == f"--run {captured}"
    with pytest.raises(UsageError, match="no readings of the logit lens") as caught:
        db.query("logit-lens", run=intervened["ablate-experts"])
    assert caught.value.hint == "intervene again, with --lens"


def test_a_run_whose_experts_were_not_compared_says_how_they_are(db: Database) -> None:
    with pytest.raises(UsageError, match="has no cosines of experts' weights") as caught:
        db.query("expert-similarity", run="text")
    assert str(caught.value).endswith("the command that captured the run, with --expert-similarity")


EMPTY: list[tuple[str, dict[str, Any], str]] = [
    ("expert-specialization", {**TEXT, "key": "domain", "min_decisions": 10**6}, "no expert has"),
    ("pair-specialization", {**TEXT, "key": "domain", "min_decisions": 10**6}, "no two experts"),
    ("top-tokens", {**TEXT, "min_count": 1000}, "the most frequent token of run text-* is there"),
    ("vocabulary-specialization", {**TEXT, "min_count": 1000}, "min_count is 1000, and the most"),
    ("logit-lens", {**IOI, "position": 0}, "was read through the lens at other positions: "),
    ("output-overlap", {**TEXT, "layer": 0, "min_tokens": 10**6}, "lower -p min_tokens"),
    ("expert-effect", {"run": "knock-out-shared"}, "where the interventions are: knock-out-shared"),
]


@pytest.mark.parametrize(("name", "given", "reason"), EMPTY)
def test_an_answer_without_rows_says_why_and_is_not_written(
    name: str,
    given: dict[str, Any],
    reason: str,
    db: Database,
    intervened: dict[str, str],
    cli: Run,
    tmp_path: Path,
) -> None:
    asked = {**given, "run": intervened.get(given["run"], given["run"])}
    result = db.query(name, **asked)
    assert result.fetchall() == []
    assert all(part in result.why_empty() for part in of_runs(reason, db)), result.why_empty()
    assert f"no rows: {result.why_empty()}" in repr(result)

    words = [name, "--run", asked.pop("run")]
    words += [each for key, value in asked.items() for each in ("-p", key, str(value))]
    code, out, err = cli("query", *words, "--format", "csv")
    assert (code, len(out.splitlines())) == (0, 1)
    assert f"no rows: {result.why_empty()}" in err

    kept = tmp_path / "table.csv"
    kept.write_text("as it was")
    for command in ("export", "query"):
        code, out, err = cli(command, *words, "-o", str(kept))
        assert (code, out, kept.read_text()) == (2, "", "as it was")
        assert result.why_empty() in err and "--allow-empty" in err
    with pytest.raises(UsageError, match="is not written, as there are no rows for it"):
        export(result, kept)
    assert kept.read_text() == "as it was" and not sidecar_path(kept).exists()

    code, _, err = cli("export", *words, "-o", str(kept), "--allow-empty")
    assert code == 0 and len(kept.read_text().splitlines()) == 1
    assert json.loads(sidecar_path(kept).read_text())["n_rows"] == 0
    export(result, tmp_path / "other.md", allow_empty=True)
    assert (tmp_path / "other.md").exists()


def test_a_figure_without_rows_is_not_drawn_unless_it_may_be_empty(
    db: Database, cli: Run, tmp_path: Path
) -> None:
    figure = tmp_path / "lens.pdf"
    figure.write_text("as it was")
    words = ["plot", "logit-lens", "--run", "qwen-ioi", "-p", "position", "0", "-o", str(figure)]
    code, _, err = cli(*words)
    assert (code, figure.read_text()) == (2, "as it was")
    assert "is not written" in err and "at other positions" in err
    result = db.query("logit-lens", run="qwen-ioi", position=0)
    with pytest.raises(UsageError, match="at other positions"):
        draw("logit-lens", result, figure)
    assert list(tmp_path.iterdir()) == [figure]

    assert cli(*words, "--allow-empty")[0] == 0
    assert figure.read_bytes().startswith(b"%PDF") and sidecar_path(figure).exists()
    svg, _ = draw("logit-lens", result, tmp_path / "lens.svg", allow_empty=True)
    assert json.loads(sidecar_path(svg).read_text())["n_rows"] == 0


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("routing-by-class", ("--run", "text", "-p", "key", "domian"), "did you mean domain?"),
        ("expert-frequency", ("--run", "text", "-p", "split", "train"), "no split 'train'"),
        ("co-activation", ("--run", "text", "-p", "layer", "99"), "no MoE layer 99"),
        ("router-ablation", (), "no trials in"),
    ],
)
def test_figures_and_tables_of_a_wrong_question(
    name: str, words: tuple[str, ...], message: str, cli: Run, tmp_path: Path
) -> None:
    for command, file in (("plot", "x.pdf"), ("export", "x.tex")):
        code, out, err = cli(command, name, *words, "-o", str(tmp_path / file))
        assert (code, out) == (2, "") and message in err
    assert list(tmp_path.iterdir()) == []


def test_sql_without_rows(cli: Run, tmp_path: Path) -> None:
    nothing = "select layer from routing where layer < 0"
    code, out, err = cli("sql", nothing, "--format", "csv")
    assert (code, out.splitlines()) == (0, ["layer"]) and "no rows: the SQL selects nothing" in err
    for command in (["sql", nothing], ["export", "--sql", nothing]):
        code, out, err = cli(*command, "-o", str(tmp_path / "x.csv"))
        assert (code, out) == (2, "") and "the SQL selects nothing" in err
    assert list(tmp_path.iterdir()) == []
    assert cli("sql", nothing, "-o", str(tmp_path / "x.csv"), "--allow-empty")[0] == 0
    assert (tmp_path / "x.csv").read_text() == "layer\n"


def test_a_limit_of_no_rows_is_not_written_either(cli: Run, tmp_path: Path) -> None:
    asked = ("expert-frequency", "--run", "text", "--limit", "0")
    code, out, err = cli("query", *asked, "--format", "csv")
    assert (code, len(out.splitlines())) == (0, 1)
    assert "only the first 0 rows" in err and "no rows:" not in err
    code, _, err = cli("export", *asked, "-o", str(tmp_path / "x.csv"))
    assert code == 2 and "the limit of 0 rows leaves none" in err
    assert list(tmp_path.iterdir()) == []


def test_the_runs_of_an_empty_store(cli: Run, store: Path, tmp_path: Path) -> None:
    shutil.copy(store / "moedb.json", tmp_path)
    code, _, err = cli("runs", "--store", str(tmp_path))
    assert code == 0 and "holds no runs; moedb capture qwen-ioi makes one" in err


def test_a_parameter_given_twice_is_refused(cli: Run) -> None:
    asked = ("query", "routing-by-class", "--run", "text", "-p", "key", "domain")
    code, _, err = cli(*asked, "-p", "key", "window")
    assert code == 2 and "the parameter 'key' is given twice: 'domain' and 'window'" in err
    code, _, err = cli(*asked, "-p", "run", "qwen-ioi")
    assert code == 2 and "the parameter 'run' is given twice" in err
    assert cli(*asked, "-p", "run", "text", "--limit", "1")[0] == 0


def test_permutations_of_none_give_no_p_value(db: Database) -> None:
    found = db.query("label-information", run="text", key="domain", permutations=0).df()
    assert len(found) == 6 and found["p_value"].isna().all()
    assert (found["information"] > 0).all()


def test_what_is_not_known_is_not_checked(db: Database) -> None:
    question = find_question("routing-by-class")
    run = db.snapshot.run("text").run_id
    bound = bind(question, {"run": run, "key": "domian", "layer": 99})
    for left_out in (("key", "layer"), ("run",)):
        check_values(db, question, {k: v for k, v in bound.items() if k not in left_out})
    known = {k: v for k, v in bound.items() if k != "key"}
    with pytest.raises(ParameterError, match="no MoE layer 99"):
        check_values(db, question, known)


def test_only_small_tables_are_read(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    statements: list[str] = []
    sql = Database.sql

    def noted(self: Database, statement: str, *given: Any, **more: Any) -> Any:
        statements.append(statement)
        return sql(self, statement, *given, **more)

    monkeypatch.setattr(Database, "sql", noted)
    run, other = (db.snapshot.run(name).run_id for name in ("text", "qwen-ioi"))
    for name, given in (
        ("routing-by-class", {"run": run, "key": "domain", "layer": 1, "split": "text"}),
        ("overlap", {"run": other, "key": "role", "value_a": "io", "value_b": "s1"}),
        ("top-tokens", {"run": run, "expert": 3}),
        ("intervention-effect", {"run": other, "kind": "ablate-experts"}),
    ):
        question = find_question(name)
        check_values(db, question, bind(question, given))
    assert statements
    for table in ("routing", "router_stats", "router_mass", " labels"):
        assert not any(table in statement for statement in statements)


def test_many_values_are_not_all_listed(db: Database) -> None:
    names = [f"value-{number}" for number in range(100)]
    offered = offer("valeu-42", names)
    assert offered.startswith("did you mean") and "value-42" in offered
    assert "there are 100, such as value-0, value-1" in offered and len(offered) < 200
    assert offer("x", ["red\x1b[31m", ""]) == "valid: '', red\\x1b[31m"
    contents = RunContents(db, (db.snapshot.run("qwen-ioi"),))
    near, n_values = contents.values_near("io", "Mray")
    assert n_values == len(contents.values_near("io", "")[0]) and near


def test_every_number_has_a_range_or_names_something() -> None:
    for question in (*catalog().values(), *ANALYSES.values()):
        for parameter in question.parameters:
            if parameter.type == "varchar":
                known = parameter.named or parameter.choices or parameter.name in RUN_PARAMETERS
                assert known, (question.name, parameter.name)
            else:
                has_range = parameter.range != (None, None)
                assert parameter.named or has_range, (question.name, parameter.name)


HEADER = """-- title: T
-- answers: Q?
-- subject: tokens
-- param {}: it
-- column a: first
-- source: S
select cast({} as {}) as a"""


@pytest.mark.parametrize(
    ("declared", "value", "message"),
    [
        ("n integer = 3 from 1", 0, "n is 0, not 1 or more"),
        ("n integer = 3 from 1 to 9", 10, "n is 10, not 1 to 9"),
        ("x double = 0.5 from 0 to 1", "1.5", "x is 1.5, not 0 to 1"),
        ("x double = 0.5", "nan", "x is a number, not 'nan'"),
        ("x double = 0.5", "inf", "x is a number, not 'inf'"),
    ],
)
def test_ranges_of_a_header(declared: str, value: object, message: str) -> None:
    name, kind = declared.split()[:2]
    query = parse_query("q", HEADER.format(declared, f"${name}", kind))
    with pytest.raises(ParameterError, match=message):
        bind(query, {name: value})
    assert bind(query, {})[name] is not None


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("n integer = 0 from 1", "the default 0 of n is out of its range"),
        ("n integer = 10 from 1 to 9", "is out of its range"),
        ("n integer = 3 naming lable", "n names lable, which is nothing of a run"),
        ("n varchar = 'x' from 1", "n is a text, which has no range"),
    ],
)
def test_malformed_headers(declared: str, message: str) -> None:
    name, kind = declared.split()[:2]
    with pytest.raises(moedb.errors.MoedbError, match=message):
        parse_query("q", HEADER.format(declared, f"${name}", kind))
    good = parse_query("q", HEADER.format("k varchar = 'x' naming example-label", "$k", "varchar"))
    assert good.parameters[0].named == "example-label"
