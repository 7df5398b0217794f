import csv
import hashlib
import json
import os

import pyarrow.parquet as pq
import pytest

from moedb.errors import UsageError
from moedb.queries.results.export import export, sidecar_path
from moedb.queries.results.sheets import TableOptions
from tests.support.stores.result_samples import (
    FOOTER,
    HOSTILE,
    RUN,
    the_sample,
)

ENDINGS = ("tex", "csv", "md", "html", "json", "jsonl", "parquet")


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

    @pytest.mark.parametrize(
        ("ending", "options", "message"),
        [
            ("md", TableOptions(environment="longtable"), "of LaTeX, not of markdown"),
            ("csv", TableOptions(font_size="tiny"), "of LaTeX, not of csv"),
            ("csv", TableOptions(header_names={"n": "N"}), "csv keeps the names"),
            ("parquet", TableOptions(header_names={"n": "N"}), "parquet keeps the names"),
        ],
    )
    def test_refuses_what_a_format_would_leave_out(self, tmp_path, ending, options, message):
        with pytest.raises(UsageError, match=message):
            export(the_sample(), tmp_path / f"x.{ending}", options)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("ending", "shown"),
        [
            ("tex", r"Rate \textless{}\&\textbar{} 50\%"),
            ("md", r"Rate \<\&\| 50%"),
            ("html", "<th>Rate &lt;&amp;| 50%</th>"),
        ],
    )
    def test_new_names_are_escaped_and_the_sidecar_keeps_the_old(self, tmp_path, ending, shown):
        name = "token & text_1"
        options = TableOptions(header_names={name: "Rate <&| 50%"})
        path, sidecar = export(the_sample(), tmp_path / f"x.{ending}", options)
        text = path.read_text(encoding="utf-8")
        assert shown in text
        assert "text_1" not in text.replace(r"\_", "_")
        named = json.loads(sidecar.read_text(encoding="utf-8"))
        assert named["columns"][2]["name"] == name

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
