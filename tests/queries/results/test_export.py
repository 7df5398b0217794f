import csv
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moedb.errors import MoedbError, UsageError
from moedb.queries.results.export import export, sidecar_path
from moedb.queries.results.files import write_together
from moedb.queries.results.formats.latex_text import _SYMBOLS, escape_latex
from moedb.queries.results.sheets import TableOptions
from moedb.queries.results.visible import visible
from tests.support.stores.result_samples import (
    FOOTER,
    HOSTILE,
    RUN,
    a_result,
    render,
    rows_result,
    the_pivot_sample,
    the_sample,
)

needs_latex = pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="pdflatex is not installed"
)
DOCUMENT = r"""\documentclass{article}
\usepackage{booktabs}
\begin{document}
%s
\end{document}
"""
ENDINGS = ("tex", "csv", "md", "html", "json", "jsonl", "parquet")


def _compile(folder: Path, body: str) -> str:
    """Compile a document that loads booktabs alone, and return its text."""
    (folder / "paper.tex").write_text(DOCUMENT % body, encoding="utf-8")
    run = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
    )
    assert run.returncode == 0, run.stdout[-2000:]
    if shutil.which("pdftotext") is None:
        return ""
    text = ["pdftotext", "-layout", "paper.pdf", "-"]
    return subprocess.run(text, cwd=folder, capture_output=True, text=True, check=True).stdout


class TestExport:
    @pytest.mark.parametrize("ending", ENDINGS)
    def test_writes_the_table_and_its_sidecar(self, tmp_path, ending):
        path = tmp_path / f"x.{ending}"
        options = TableOptions(caption="c", columns=("expert", "rate"), limit=3)
        assert export(the_sample(), path, options) == [path, sidecar_path(path)]
        assert sorted(file.name for file in tmp_path.iterdir()) == [
            f"x.{ending}",
            f"x.{ending}.provenance.json",
        ]
        text = sidecar_path(path).read_text(encoding="utf-8")
        sidecar = json.loads(text)
        assert sidecar["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert sidecar["columns"] == [
            {"name": "expert", "type": "INTEGER"},
            {"name": "rate", "type": "DOUBLE"},
        ]
        assert sidecar["sql"] == "select layer from routing"
        assert sidecar["parameters"] == {"run": "qwen-ioi-9f8e7d"}
        assert sidecar["runs"][0]["model"] == RUN.model
        assert sidecar["runs"][0]["model_sha256"] == RUN.model_sha256
        assert (sidecar["snapshot"], sidecar["moedb_version"]) == ("c0ffee", "0.1.0")
        assert (sidecar["n_rows"], sidecar["truncated"], sidecar["file"]) == (3, True, path.name)
        assert text == json.dumps(sidecar, indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_same_bytes_for_the_same_result(self, tmp_path, ending):
        written = []
        for _ in range(2):
            files = export(the_sample(), tmp_path / f"x.{ending}")
            written.append([file.read_bytes() for file in files])
        assert written[0] == written[1]

    def test_values_come_back(self, tmp_path):
        result = the_sample()
        names, rows = result.columns, result.fetchall()
        export(result, tmp_path / "x.csv")
        with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
            back = list(csv.DictReader(file))
        assert [row["token & text_1"] for row in back] == list(HOSTILE)
        export(result, tmp_path / "x.parquet")
        table = pq.read_table(tmp_path / "x.parquet")
        assert repr([tuple(row.values()) for row in table.to_pylist()]) == repr(rows)
        assert table.column_names == names
        export(result, tmp_path / "x.json")
        back = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
        assert [row["expert"] for row in back] == list(range(len(HOSTILE)))

    @pytest.mark.parametrize("ending", ["tex", "md", "html"])
    def test_a_table_to_read_names_the_model(self, tmp_path, ending):
        path, _ = export(the_sample(), tmp_path / f"x.{ending}")
        assert FOOTER in path.read_text(encoding="utf-8")

    def test_files_are_as_readable_as_any_other(self, tmp_path):
        (tmp_path / "plain").touch()
        files = export(the_sample(), tmp_path / "x.csv")
        assert {file.stat().st_mode for file in files} == {(tmp_path / "plain").stat().st_mode}


class TestErrors:
    def test_no_folder(self, tmp_path):
        with pytest.raises(UsageError, match="there is no folder") as caught:
            export(the_sample(), tmp_path / "new" / "x.csv")
        assert caught.value.hint == f"mkdir -p {tmp_path / 'new'}"

    def test_the_folder_is_a_file(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(UsageError, match="is a file"):
            export(the_sample(), tmp_path / "file" / "x.csv")

    def test_the_file_is_a_folder(self, tmp_path):
        (tmp_path / "x.csv").mkdir()
        with pytest.raises(UsageError, match="it is a folder"):
            export(the_sample(), tmp_path / "x.csv")

    def test_unwritable_folder(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "access", lambda *_: False)
        with pytest.raises(UsageError, match="no permission to write in"):
            export(the_sample(), tmp_path / "x.csv")

    @pytest.mark.parametrize(
        "options",
        [TableOptions(columns=("no",)), TableOptions(pivot=("layer", "ok", "rate"))],
    )
    def test_a_refused_request_writes_nothing(self, tmp_path, options):
        with pytest.raises(UsageError):
            export(the_sample(), tmp_path / "x.tex", options)
        assert list(tmp_path.iterdir()) == []


class TestAtomicity:
    """Fail the n-th call, for all n: the files are all old or all new."""

    @pytest.mark.parametrize("existing", [False, True])
    @pytest.mark.parametrize("call", ["fsync", "replace", "open"])
    @pytest.mark.parametrize(
        "failure", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()]
    )
    def test_all_or_nothing(self, tmp_path, monkeypatch, existing, call, failure):
        paths = [tmp_path / "a", tmp_path / "b"]
        old = [b"old a", b"old b"] if existing else []
        new = dict(zip(paths, (b"new a", b"new b"), strict=True))
        owner = os if call == "fsync" else Path
        original = getattr(owner, call)
        n_failed = 0
        for n in range(1, 10):
            for path, content in zip(paths, old, strict=False):
                path.write_bytes(content)
            calls = 0

            def failing(*args, n=n, **kwargs):
                nonlocal calls
                calls += 1
                if calls == n:
                    raise failure
                return original(*args, **kwargs)

            raised: BaseException | None = None
            with monkeypatch.context() as patch:
                patch.setattr(owner, call, failing)
                try:
                    write_together(new)
                except (MoedbError, KeyboardInterrupt) as error:
                    raised = error
            content = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
            n_failed += raised is not None
            if content != old:
                # an interrupt may come when all is done but syncing the folder
                assert not isinstance(raised, MoedbError)
                assert content == [b"new a", b"new b"]
            for path in tmp_path.iterdir():
                path.unlink()
        assert n_failed >= 2

    def test_full_disk_is_no_usage_error(self, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(MoedbError, match="No space left on device") as caught:
            export(the_sample(), tmp_path / "x.csv")
        assert not isinstance(caught.value, UsageError)
        assert list(tmp_path.iterdir()) == []

    def test_without_hard_links(self, tmp_path, monkeypatch):
        def refuse(*_):
            raise OSError(errno.EPERM, "no links here")

        (tmp_path / "a").write_bytes(b"old")
        monkeypatch.setattr(Path, "hardlink_to", refuse)
        write_together({tmp_path / "a": b"new"})
        assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"new"]

    def test_a_link_stays_a_link(self, tmp_path):
        (tmp_path / "real").write_bytes(b"old")
        (tmp_path / "link").symlink_to(tmp_path / "real")
        write_together({tmp_path / "link": b"new"})
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real").read_bytes() == b"new"


class TestLatex:
    @given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
    def test_escaped_text_is_ascii_with_balanced_braces(self, text):
        latex = escape_latex(visible(text))
        assert latex.isascii()
        bare = latex.replace(r"\{", "").replace(r"\}", "").replace(r"\"", "")
        depth = 0
        for character in bare:
            depth += {"{": 1, "}": -1}.get(character, 0)
            assert depth >= 0
        assert depth == 0
        assert latex.count("$") % 2 == latex.count(r"\$") % 2

    def test_integers_floats_and_nulls(self):
        latex = render(
            rows_result(
                [("layer", "INTEGER"), ("rate", "FLOAT"), ("n", "BIGINT")],
                [(1, 0.5, None), (-2, None, 10**15), (3, -0.25, 0)],
            ),
            "latex",
            TableOptions(precision=2),
        )
        body = latex.split("\\midrule\n")[1].split("\\bottomrule")[0]
        assert body.splitlines() == [
            r"1 & 0.50 & -- \\",
            r"$-$2 & -- & 1000000000000000 \\",
            r"3 & $-$0.25 & 0 \\",
        ]

    def test_bold_marks_all_that_print_alike(self):
        result = rows_result(
            [("layer", "INTEGER"), ("a", "DOUBLE"), ("b", "DOUBLE")],
            [(90, 0.5001, 0.5002), (91, 0.1, float("nan")), (92, None, None)],
        )
        by_row = render(result, "latex", TableOptions(bold="row-max"))
        assert r"90 & \textbf{0.500} & \textbf{0.500} \\" in by_row
        assert r"91 & \textbf{0.100} & nan \\" in by_row
        assert r"92 & -- & -- \\" in by_row
        by_column = render(result, "latex", TableOptions(bold="column-max", precision=4))
        assert by_column.count("textbf") == 2
        assert r"90 & \textbf{0.5001} & \textbf{0.5002} \\" in by_column

    def test_a_pivot_marks_each_row_and_spans_its_columns(self):
        options = TableOptions(pivot=("layer", "expert", "rate"), bold="row-max", precision=1)
        lines = render(the_pivot_sample(), "latex", options).splitlines()
        at = lines.index(r"\toprule")
        assert lines[at + 1 : at + 7] == [
            r" & \multicolumn{3}{c}{expert} \\",
            r"\cmidrule(lr){2-4}",
            r"layer & 0 & 1 & 2 \\",
            r"\midrule",
            r"0 & 0.0 & 0.5 & \textbf{1.0} \\",
            r"1 & \textbf{0.2} & -- & 0.0 \\",
        ]

    def test_caption_label_and_footer(self):
        options = TableOptions(caption="50% of $x$", label="tab:use_1")
        latex = render(the_sample(), "latex", options)
        assert r"\caption{50\% of \$x\$}" in latex
        assert r"\label{tab:use_1}" in latex
        assert latex.index(r"\end{tabular}") < latex.index(FOOTER) < latex.index(r"\end{table}")
        raw = TableOptions(caption="50\\% of $x$", caption_is_latex=True, footer=False)
        latex = render(the_sample(), "latex", raw)
        assert r"\caption{50\% of $x$}" in latex
        assert "moedb" not in latex

    def test_columns_of_one_name(self):
        latex = render(a_result("select 1 as a, 2 as a"), "latex")
        assert "a & a \\\\\n\\midrule\n1 & 2 \\\\" in latex

    def test_pandas_options_of_the_user_change_nothing(self):
        import pandas as pd

        before = render(the_sample(), "latex")
        with pd.option_context("styler.render.max_elements", 5, "styler.format.escape", "latex"):
            assert render(the_sample(), "latex") == before

    @needs_latex
    def test_compiles_as_it_is(self, tmp_path):
        options = TableOptions(caption="A & b_c: 50% [x] ünï, 日", label="tab:x", bold="column-max")
        pivot = TableOptions(pivot=("layer", "expert", "rate"), bold="row-max")
        first, _ = export(the_sample(), tmp_path / "first.tex", options)
        second, _ = export(the_pivot_sample(), tmp_path / "second.tex", pivot)
        empty, _ = export(
            a_result("select 1 as a where false"), tmp_path / "empty.tex", allow_empty=True
        )
        body = "\n".join(f"\\input{{{file.name}}}" for file in (first, second, empty))
        text = _compile(tmp_path, body)
        if text:
            assert re.search(r"50% & \$x.?1\$ #2 \{a\} .b .c \\d <e> \|f\|", text)
            assert "[optional]" in text
            assert "*star" in text
            assert "U+65E5 U+672C U+8A9E" in text
            assert "\\n" in text
            assert "\\x1b[31mred" in text
            assert text.count("moedb 0.1.0") == 3

    @needs_latex
    def test_every_character_compiles(self, tmp_path):
        characters = [chr(code) for code in [*range(32, 0x250), *range(0x370, 0x400)]]
        characters += [*_SYMBOLS, "🙂", "\u0301"]
        rows = [(c, c * 2, f"x{c}y", f"{{[{c}]}}", f"-{c}`'\"{c}") for c in characters]
        tables = []
        for start in range(0, len(rows), 45):
            names = [(name, "VARCHAR") for name in "abcde"]
            result = rows_result(names, rows[start : start + 45])
            tables.append(render(result, "latex", TableOptions(footer=False)))
        _compile(tmp_path, "\n\\clearpage\n".join(tables))
