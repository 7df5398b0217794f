"""The command line: exit codes, messages, what goes to stdout and what to stderr."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from moedb.cli import run_cli

pytestmark = pytest.mark.model


def fingerprint(store: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(store.rglob("*")):
        digest.update(f"{path.relative_to(store)}\n".encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


@pytest.fixture
def moedb(
    mini_store: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setenv("MOEDB_STORE", str(mini_store))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = run_cli(list(arguments))
        out, err = capfd.readouterr()
        return code, out, err

    return run


Run = Callable[..., tuple[int, str, str]]


def dense_model(folder: Path) -> Path:
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    from moedb.capture.models.checkpoints import find_checkpoint

    config = Qwen2Config(
        vocab_size=4096,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(find_checkpoint("qwen-moe-mini").folder).save_pretrained(folder)
    return folder


def test_bad_input_gets_one_clear_line_and_leaves_the_store_alone(
    moedb: Run, mini_store: Path, tmp_path: Path, random_model: Path
) -> None:
    few = tmp_path / "few.json"
    few.write_text(
        json.dumps(
            {
                "templates_baba": ["Then [B] and [A] met. [B] spoke to [A]"],
                "names": ["Mary", "Xqzwv"],
                "places": ["shop"],
                "objects": ["ring"],
            }
        )
    )
    no_weights = tmp_path / "no-weights"
    no_weights.mkdir()
    (no_weights / "config.json").write_text((random_model / "config.json").read_text())
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text((random_model / "config.json").read_text())
    (pickled / "pytorch_model.bin").write_bytes(b"")
    dense = dense_model(tmp_path / "dense")
    nowhere = str(tmp_path / "nowhere")
    no_tokenizer = tmp_path / "no-tokenizer"
    wide = tmp_path / "wide"
    for folder in (no_tokenizer, wide):
        shutil.copytree(random_model, folder)
    for path in no_tokenizer.glob("tokenizer*"):
        path.unlink()
    config = json.loads((wide / "config.json").read_text())
    (wide / "config.json").write_text(json.dumps({**config, "hidden_size": "wide"}))
    ioi = ("capture", "qwen-ioi")
    cases: list[tuple[tuple[str, ...], int, str]] = [
        (("--store", nowhere, "runs"), 3, "does not exist"),
        (("runs", "--store", str(tmp_path)), 3, "is not a moedb store"),
        (("show", "qwen-ioi-zzz"), 2, "no run named 'qwen-ioi-zzz'"),
        (("query", "expert-frequency", "--run", "nope"), 2, "no run named 'nope'"),
        (("query", "expert-frequncy"), 2, "did you mean expert-frequency"),
        (("query", "nonsense"), 2, "all names are listed by: moedb query"),
        (("query", "routing-by-class"), 2, "key"),
        (("query", "routing-by-class", "-p", "kye", "role"), 2, "did you mean key?"),
        (("query", "concentration", "--limit", "-1"), 2, "--limit"),
        (("query", "co-activation", "-p", "layer", "three"), 2, "integer"),
        (("schema", "routin"), 2, "did you mean routing"),
        (("sql", "select * from rooting"), 2, 'Did you mean "routing"'),
        (("sql", "from expert_frequncy()"), 2, "expert_frequency"),
        (("sql", "drop view routing"), 2, "is DROP, which is refused"),
        (("sql", "select 1; select 2"), 2, "expected one SQL statement, got 2"),
        (("sql", "copy routing to '/tmp/x.csv'"), 2, "is COPY, which is refused"),
        (("sql", "select * from read_text('/etc/passwd')"), 2, "reaches outside the store"),
        (("sql", "attach '/tmp/x.db'"), 2, "is ATTACH, which is refused"),
        (("sql", ""), 2, "the SQL is empty"),
        (("sql",), 2, "give the SQL"),
        (("sql", "-f", nowhere), 2, "cannot read"),
        (("export", "concentration", "-o", str(tmp_path / "x.doc")), 2, ".tex"),
        (("export", "concentration", "-o", f"{nowhere}/x.tex"), 2, nowhere),
        (("export", "-o", str(tmp_path / "x.tex")), 2, "name of a query or --sql"),
        (("plot", "top-tokens", "-o", str(tmp_path / "x.pdf")), 2, "no figure of"),
        ((*ioi, "--n", "0"), 2, "0 is not in the range 1<=x<=1000000"),
        ((*ioi, "--templates", str(few)), 2, "name"),
        ((*ioi, "--templates", nowhere), 2, "nowhere"),
        ((*ioi, "--model", str(dense)), 1, "no MoE block"),
        ((*ioi, "--model", str(no_weights)), 1, "no *.safetensors"),
        ((*ioi, "--model", str(pickled)), 1, "is pickle and is not read"),
        ((*ioi, "--model", nowhere), 1, "does not exist"),
        ((*ioi, "--model", str(no_tokenizer)), 1, "has no tokenizer"),
        ((*ioi, "--model", str(wide)), 1, "cannot be read"),
        ((*ioi, "--model", "a b c"), 1, "neither a folder nor a hub id"),
        ((*ioi, "--device", "abacus"), 2, "no device 'abacus' here"),
        ((*ioi, "--layers", "99"), 2, "MoE layers are 0 to 5"),
        ((*ioi, "--arrays", "expert_output"), 2, "did you mean expert_outputs?"),
        ((*ioi, "--arrays", "router_logits@9"), 2, "no MoE block at [9]"),
        ((*ioi, "--tokens", "first"), 2, "valid are all, last, label:KEY and label:KEY=VALUE"),
        ((*ioi, "--tokens", "label:rolle=io"), 2, "did you mean role?"),
        ((*ioi, "--tokens", "label:role=i0"), 2, "did you mean io?"),
        ((*ioi, "--batch-size", "0"), 2, "0 is not in the range x>=1"),
        (("rm", "qwen-ioi-zzz", "--yes"), 2, "no run named 'qwen-ioi-zzz'"),
        (("fly",), 2, "No such command"),
    ]
    before = fingerprint(mini_store)
    for arguments, code, message in cases:
        got, out, err = moedb(*arguments)
        assert got == code, (arguments, got, err)
        assert message in err, (arguments, err)
        assert out == "", arguments
        assert "Traceback" not in err, arguments
    assert fingerprint(mini_store) == before
    assert not Path(nowhere).exists()


def test_without_a_network_the_error_says_what_to_do(
    moedb: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    code, _, err = moedb("capture", "qwen-ioi", "--model", "Qwen/Qwen1.5-MoE-A2.7B-Chat")
    assert code == 1
    assert "cannot fetch the model 'Qwen/Qwen1.5-MoE-A2.7B-Chat'" in err
    assert "--model FOLDER" in err


def test_weights_that_cannot_be_read_leave_no_store_behind(
    moedb: Run, tmp_path: Path, random_model: Path
) -> None:
    shutil.copytree(random_model, tmp_path / "short")
    weights = tmp_path / "short" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    arguments = ("capture", "qwen-ioi", "--n", "1", "--model", str(tmp_path / "short"))
    code, _, err = moedb(*arguments, "--store", str(tmp_path / "new"))
    assert code == 1 and "the weights of short cannot be loaded" in err
    assert not (tmp_path / "new").exists()


def test_a_damaged_store_exits_with_3(moedb: Run, tmp_path: Path) -> None:
    (tmp_path / "moedb.json").write_text('{"format": "moedb", "major": 9, "minor": 0}')
    code, _, err = moedb("--store", str(tmp_path), "sql", "select 1")
    assert code == 3 and "format 9.0" in err
    (tmp_path / "moedb.json").write_text("scribble")
    code, _, err = moedb("--store", str(tmp_path), "sql", "select 1")
    assert code == 3 and "not valid JSON" in err


def test_a_repeated_capture_does_nothing(moedb: Run, mini_store: Path) -> None:
    before = fingerprint(mini_store)
    code, out, err = moedb("capture", "qwen-ioi", "--n", "40")
    assert code == 0
    assert "is complete already: nothing to do" in err
    assert out.strip().startswith("qwen-ioi-")
    assert fingerprint(mini_store) == before


def test_a_dry_run_writes_nothing_and_estimates_what_would_be(moedb: Run, tmp_path: Path) -> None:
    code, out, err = moedb(
        "capture", "qwen-ioi", "--n", "3", "--dry-run", "--format", "json", "--store",
        str(tmp_path / "new"),
    )  # fmt: skip
    assert code == 0, err
    rows = {(row["kind"], row["name"]): row for row in json.loads(out)}
    tokens = rows["table", "tokens"]["rows"]
    assert rows["table", "examples"]["rows"] == 6
    assert rows["table", "routing"]["rows"] == tokens * 6 * 4
    assert rows["array", "expert_outputs"]["bytes"] == tokens * 6 * 4 * 128 * 4
    assert "GB free" in err and "6 examples" in err
    assert not (tmp_path / "new").exists()


def test_rows_come_in_every_format_and_the_cut_is_announced(moedb: Run, tmp_path: Path) -> None:
    for format_ in ("table", "csv", "json", "jsonl", "markdown", "latex", "html"):
        code, out, err = moedb("query", "expert-frequency", "--limit", "3", "--format", format_)
        assert code == 0 and "frequency" in out
        assert "only the first 3 rows" in err
        assert "model qwen-moe-mini" in err
    code, out, err = moedb("runs", "-o", str(tmp_path / "runs.csv"))
    assert code == 0 and out == ""
    assert (tmp_path / "runs.csv").read_text().startswith("run_id,name,job,status")


def test_sql_comes_from_a_file_or_stdin(
    moedb: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    (tmp_path / "q.sql").write_text("select count(*) as n from runs")
    assert moedb("sql", "-f", str(tmp_path / "q.sql"), "--format", "csv")[1] == "n\r\n2\r\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO("select 6 * 7 as n"))
    assert moedb("sql", "-", "--format", "csv")[1] == "n\r\n42\r\n"
    _, out, _ = moedb(
        "sql", "select $a || $b as ab", "-p", "a", "x", "-p", "b", "y", "--format", "csv"
    )
    assert out == "ab\r\nxy\r\n"


def test_exports_of_sql_name_the_runs_and_splits_that_they_read(moedb: Run, tmp_path: Path) -> None:
    other, newest = [row["run_id"] for row in json.loads(moedb("runs", "--format", "json")[1])]
    table = tmp_path / "end.md"

    def exported(sql: str, *options: str) -> tuple[list[str], str]:
        code, _, err = moedb("export", "--sql", sql, "-o", str(table), *options)
        assert code == 0, err
        sidecar = json.loads((tmp_path / "end.md.provenance.json").read_text())
        assert sidecar["sql"] == sql
        line = table.read_text().splitlines()[-1]
        assert all(run["run_id"] in line for run in sidecar["runs"])
        return [run["run_id"] for run in sidecar["runs"]], line

    by_role = "from routing_by_class(key := 'role', layer := 3)"
    runs, line = exported(by_role)
    assert runs == [newest] and "40 examples without their 40 corrupted twins" in line
    assert exported(by_role, "--run", other[:-2])[0] == [other]
    assert exported(f"select model from runs where run_id = '{other}'")[0] == [other]
    assert exported("select 1 as one") == ([], "from no run; moedb 0.1.0")
    runs, line = exported("select count(*) as n from examples")
    assert set(runs) == {newest, other} and "any of these 2 runs" in line
    runs, _ = exported("select count(*) as n from examples", "--run", other)
    assert runs == [other] and "| 80 |" in " ".join(table.read_text().split())


def test_sql_says_where_it_reads_several_runs_together(moedb: Run) -> None:
    code, out, err = moedb("sql", "select count(*) as n from examples", "--format", "csv")
    assert (code, out) == (0, "n\r\n160\r\n")
    assert "the SQL reads the tables of 2 runs together; for one of them: --run RUN" in err
    other = json.loads(moedb("runs", "--format", "json")[1])[1]["run_id"]
    for arguments in (
        ("select count(*) as n from examples", "--run", other[:-1]),
        (f"select count(*) as n from examples where run_id = '{other}'",),
    ):
        code, out, err = moedb("sql", *arguments, "--format", "csv")
        assert (code, out) == (0, "n\r\n80\r\n")
        assert "together" not in err and f"run {other}, 40 examples" in err
    assert "together" not in moedb("sql", "from runs")[2]
    assert "together" not in moedb("sql", "from expert_frequency()")[2]
    code, _, err = moedb("sql", "select 1", "--run", "nope")
    assert code == 2 and "no run named 'nope'" in err


def test_show_says_what_a_run_holds(moedb: Run) -> None:
    run_id = json.loads(moedb("runs", "--format", "json")[1])[0]["run_id"]
    _, out, _ = moedb("show", run_id, "--format", "json")
    rows = {(row["what"], row["name"]): row["value"] for row in json.loads(out)}
    assert rows["run", "model"] == "qwen-moe-mini"
    assert rows["table", "moe_layers"] == "6 rows"
    assert rows["token label", "role"] == "5 values"
    assert rows["example label", "template"] == "15 values"
    assert rows["array", "expert_outputs"].startswith("(T, k, d) at layers 0, 1, 2")


def test_verify_and_rm(moedb: Run, tmp_path: Path, random_model: Path) -> None:
    store = ("--store", str(tmp_path / "store"))
    arguments = ("capture", "qwen-ioi", "--n", "2", "--model", str(random_model))
    code, run_id, err = moedb(*arguments, *store)
    assert code == 0, err
    code, out, _ = moedb("verify", *store)
    assert code == 0 and "sound" in out and "added up at 2 layers" in out
    code, _, err = moedb("rm", run_id.strip(), *store)
    assert code == 2 and "--yes" in err
    assert moedb("rm", run_id.strip(), "--yes", *store)[0] == 0
    assert json.loads(moedb("runs", "--format", "json", *store)[1]) == []
    code, _, err = moedb("query", "concentration", *store)
    assert code == 2 and "holds no runs" in err


def test_help_and_sql_do_not_import_torch(mini_store: Path) -> None:
    # to take a parameter, DuckDB imported these two until 2.0
    program = (
        "import sys, duckdb; from moedb.cli import run_cli; code = run_cli(sys.argv[1:]);"
        "heavy = {'torch', 'transformers', 'nnsight', 'zarr', 'pandas', 'pyarrow', 'matplotlib'};"
        "heavy -= {'pandas', 'pyarrow'} if duckdb.__version__ < '2' else set();"
        "print(sorted(heavy & set(sys.modules)), code, file=sys.stderr)"
    )
    for arguments in (["--help"], ["sql", "select 1"], ["runs"], ["query"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "MOEDB_STORE": str(mini_store)},
            check=True,
        )
        assert done.stderr.strip().endswith("[] 0"), (arguments, done.stderr)


def test_every_command_has_help_and_an_example() -> None:
    import click

    from moedb.cli import cli

    def walk(command: click.Command, name: str) -> None:
        assert command.help, name
        if isinstance(command, click.Group):
            for child, sub in command.commands.items():
                walk(sub, f"{name} {child}")
            return
        assert "Example:" in command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.name}"

    walk(cli, "moedb")
