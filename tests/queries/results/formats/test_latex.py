import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moedb.queries.results.export import export
from moedb.queries.results.formats.latex import latex_packages
from moedb.queries.results.formats.latex_text import _SYMBOLS, escape_latex
from moedb.queries.results.sheets import TableOptions
from moedb.queries.results.visible import visible
from tests.support.stores.result_samples import (
    FOOTER,
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
\usepackage{booktabs,longtable}
\begin{document}
%s
\end{document}
"""


def _compile(folder: Path, body: str) -> str:
    """Compile a document that loads booktabs and longtable alone, and return its text."""
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

    def test_a_table_across_both_columns_in_small_letters(self):
        result = rows_result([("layer", "INTEGER"), ("token", "VARCHAR")], [(3, "50%")])
        options = TableOptions(
            caption="A",
            label="tab:a",
            environment="table*",
            font_size="scriptsize",
            header_names={"layer": "Layer & \\input{x}"},
        )
        assert render(result, "latex", options) == "\n".join(
            [
                r"\begin{table*}[tp]",
                r"\centering",
                r"\caption{A}",
                r"\label{tab:a}",
                r"\scriptsize",
                r"\begin{tabular}{rl}",
                r"\toprule",
                r"Layer \& \textbackslash{}input\{x\} & token \\",
                r"\midrule",
                r"3 & 50\% \\",
                r"\bottomrule",
                r"\end{tabular}",
                "",
                r"\smallskip",
                rf"{{\scriptsize {FOOTER}\par}}",
                r"\end{table*}",
                "",
            ]
        )

    def test_the_footer_is_no_larger_than_the_table_and_no_larger_than_footnotes(self):
        for size, footer in (("tiny", "tiny"), ("small", "footnotesize"), (None, "footnotesize")):
            latex = render(a_result("select 1 as a"), "latex", TableOptions(font_size=size))
            assert rf"{{\{footer} {FOOTER}" in latex

    def test_a_long_table_repeats_its_head(self):
        options = TableOptions(
            caption="50%",
            label="tab:a",
            environment="longtable",
            font_size="footnotesize",
            pivot=("layer", "expert", "rate"),
            precision=1,
            header_names={"expert": "Expert"},
        )
        head = [
            r"\toprule",
            r" & \multicolumn{3}{c}{Expert} \\",
            r"\cmidrule(lr){2-4}",
            r"layer & 0 & 1 & 2 \\",
            r"\midrule",
        ]
        assert render(the_pivot_sample(), "latex", options) == "\n".join(
            [
                r"{\footnotesize",
                r"\begin{longtable}{rrrr}",
                r"\caption{50\%}\label{tab:a} \\",
                *head,
                r"\endfirsthead",
                r"\multicolumn{4}{l}{\tablename~\thetable{} (continued)} \\",
                *head,
                r"\endhead",
                r"\midrule",
                r"\multicolumn{4}{r}{continued on the next page} \\",
                r"\endfoot",
                r"\bottomrule",
                r"\endlastfoot",
                r"0 & 0.0 & 0.5 & 1.0 \\",
                r"1 & 0.2 & -- & 0.0 \\",
                r"\end{longtable}",
                r"\nopagebreak\noindent",
                rf"{{\footnotesize {FOOTER}\par}}",
                "}",
                "",
            ]
        )

    def test_a_long_table_without_caption_takes_no_number(self):
        options = TableOptions(label="tab:a", environment="longtable", footer=False)
        lines = render(a_result("select 1 as a"), "latex", options).splitlines()
        assert lines[:5] == [
            r"\label{tab:a}",
            r"\begin{longtable}{r}",
            r"\toprule",
            r"a \\",
            r"\midrule",
        ]
        assert r"\multicolumn{1}{l}{(continued)} \\" in lines
        assert lines[-2:] == [r"\end{longtable}", r"\addtocounter{table}{-1}"]

    @pytest.mark.parametrize(
        ("environment", "packages"),
        [("table", ["booktabs"]), ("longtable", ["booktabs", "longtable"])],
    )
    def test_packages(self, environment, packages):
        assert latex_packages(TableOptions(environment=environment)) == packages

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
        long, _ = export(
            a_result("select i as a from range(200) t(i)"),
            tmp_path / "long.tex",
            TableOptions(environment="longtable", font_size="small", caption="Long"),
        )
        body = "\n".join(f"\\input{{{file.name}}}" for file in (first, second, empty, long))
        text = _compile(tmp_path, body)
        if text:
            assert re.search(r"50% & \$x.?1\$ #2 \{a\} .b .c \\d <e> \|f\|", text)
            assert "[optional]" in text
            assert "*star" in text
            assert "U+65E5 U+672C U+8A9E" in text
            assert "\\n" in text
            assert "\\x1b[31mred" in text
            assert text.count("moedb 0.1.0") == 4
            assert "(continued)" in text
            assert "continued on the next page" in text

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
