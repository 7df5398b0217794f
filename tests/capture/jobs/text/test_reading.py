"""Readers of text data: what each format gives, and what is said of bad input."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moedb.capture.jobs.text.documents import DocumentReader, TextColumns
from moedb.capture.jobs.text.sources.hub import HubSource
from moedb.capture.jobs.text.sources.opening import open_source
from moedb.errors import DatasetError, DatasetUnreachableError, MoedbError, UsageError
from tests.support.stores.text_files import write_jsonl, write_parquet

ROWS = [{"text": "Eins, zwei.", "n": "1"}, {"text": 'Größe "L"\nneu', "n": "2"}]


def values(path: Path, *columns: str, **options: Any) -> list[dict[str, Any]]:
    rows = list(open_source(str(path), **options).rows(columns or ("text", "n")))
    assert [row.number for row in rows] == list(range(len(rows)))
    assert len({row.place for row in rows}) == len(rows)
    return [dict(row.values) for row in rows]


def read(path: Path, columns: TextColumns | None = None, **options: Any) -> DocumentReader:
    """Read everything, so that whatever is wrong is found."""
    reader = DocumentReader(open_source(str(path), **options), columns or TextColumns())
    for _ in reader:
        pass
    reader.check_seen()
    return reader


def test_formats_give_the_same_rows(tmp_path: Path) -> None:
    quoted = '"Größe ""L""\nneu"'
    (tmp_path / "a.csv").write_text(
        f'text,n\n"Eins, zwei.",1\n\n{quoted},2\n', encoding="utf-8-sig"
    )
    (tmp_path / "a.TSV").write_text(f"n\ttext\r\n1\tEins, zwei.\r\n2\t{quoted}\r\n")
    write_parquet(tmp_path / "a.parquet", ROWS)
    lines = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
    (tmp_path / "a.json").write_text(f"\ufeff{lines}")
    for path in tmp_path.iterdir():
        assert values(path) == ROWS, path.name
        assert re.fullmatch(r"[0-9a-f]{64}", open_source(str(path)).config["files"][0]["sha256"])


def test_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "novel.txt"
    path.write_text("One.\n\nTwo,\nthree.\n")
    assert values(path) == [{"text": "One.\n\nTwo,\nthree.\n"}]
    assert values(path, lines=True) == [{"text": t} for t in ("One.", "Two,", "three.")]


def test_a_folder_is_read_in_order(tmp_path: Path) -> None:
    for name in "bca":
        (tmp_path / f"{name}.txt").write_text(name)
    (tmp_path / "README.md").write_text("not data")
    (tmp_path / ".hidden.csv").write_text("not data")
    source = open_source(str(tmp_path))
    assert [row.values["text"] for row in source.rows(("text",))] == ["a", "b", "c"]
    assert source.notes == ("not read, for their endings: README.md",)
    assert [file["name"] for file in source.config["files"]] == ["a.txt", "b.txt", "c.txt"]
    (tmp_path / "d.jsonl").write_text("{}")
    with pytest.raises(DatasetError, match=r"several kinds .*plain text \(c.txt\), JSON lines"):
        open_source(str(tmp_path))


CONLLU = """\
# sent_id = fr-1
# text = Il va au marché, vite.
1\tIl\til\tPRON\tPRO\t_\t2\tnsubj\t_\t_
2\tva\taller\tVERB\t_\t_\t0\troot\t_\t_
3-4\tau\t_\t_\t_\t_\t_\t_\t_\t_
3\tà\tà\tADP\t_\t_\t5\tcase\t_\t_
4\tle\tle\tDET\t_\t_\t5\tdet\t_\t_
5\tmarché\tmarché\tNOUN\t_\t_\t2\tobl\t_\tSpaceAfter=No
6\t,\t,\tPUNCT\t_\t_\t2\tpunct\t_\t_
6.1\tva\taller\tVERB\t_\t_\t_\t_\t_\t_
7\tvite\tvite\tADV\t_\t_\t2\tadvmod\t_\tGloss=x|SpaceAfter=No
8\t.\t.\tPUNCT\t_\t_\t2\tpunct\t_\t_

1-2\tDu\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No
1\tDe\tde\tADP\tP\t_\t3\tcase\t_\t_
2\tle\tle\tDET\tD\t_\t3\tdet\t_\t_
3\tpain\tpain\tNOUN\tN\t_\t0\troot\t_\t_"""


def test_conllu(tmp_path: Path) -> None:
    path = tmp_path / "x.conllu"
    path.write_text(CONLLU)
    first, second = values(path)
    assert first["text"] == "Il va au marché, vite." and first["sent_id"] == "fr-1"
    assert first["words"] == ["Il", "va", "au", "marché", ",", "vite", "."]
    assert first["upos"] == ["PRON", "VERB", "ADP+DET", "NOUN", "PUNCT", "ADV", "PUNCT"]
    assert first["xpos"] == ["PRO", None, None, None, None, None, None]
    assert first["deprel"][2] == "case+det"
    assert second["text"] == "Dupain" and second["xpos"] == ["P+D", "N"]
    # Without the comment the text is made of the words.
    path.write_text("\n".join(CONLLU.splitlines()[2:]))
    assert values(path)[0]["text"] == first["text"]


def documents(path: Path, **columns: Any) -> list[dict[str, str]]:
    reader = DocumentReader(open_source(str(path)), TextColumns(**columns))
    return [dict(document.labels) for document in reader]


def test_labels_are_texts(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "s": "x", "i": 1, "f": 0.5, "b": True, "o": None},
        {"text": "b", "s": "", "i": 2.0, "f": float("nan"), "b": False},
        {"text": "c", "s": None, "i": None, "f": -3, "b": None, "o": "late"},
    ]
    expected = [
        {"s": "x", "i": "1", "f": "0.5", "b": "true"},
        {"s": "", "i": "2", "b": "false"},
        {"f": "-3", "o": "late"},
    ]
    labels = ("s", "i", "f", "b", "o")
    assert documents(write_jsonl(tmp_path / "a.jsonl", rows), labels=labels) == expected
    whole = [{key: row.get(key) for key in ("text", *labels)} for row in rows]
    assert documents(write_parquet(tmp_path / "a.parquet", whole), labels=labels) == expected
    (tmp_path / "a.csv").write_text("text,s,i\na,x,1\nb,,2\n")
    assert documents(tmp_path / "a.csv", labels=("s", "i")) == [{"s": "x", "i": "1"}, {"i": "2"}]


def test_blank_texts_are_counted(tmp_path: Path) -> None:
    rows = [{"text": text} for text in ("a", "", " \n\u00a0", None, "b")]
    reader = read(write_jsonl(tmp_path / "a.jsonl", rows))
    assert (reader.n_rows, reader.n_blank) == (5, 3)


def jsonl_cases() -> list[tuple[str, TextColumns, str]]:
    ok = '{"text": "a", "topic": "t", "words": ["a"], "upos": ["X"]}\n'
    words = TextColumns(token_labels=("upos",))
    return [
        (f'{ok}{{"text": \n', TextColumns(), r"x.jsonl, line 2 is not JSON .*expected|Expecting"),
        (f"{ok}[1]\n", TextColumns(), r"line 2 is \[1\]; expected a JSON object"),
        ('[\n{"text": "a"}\n]', TextColumns(), r"begins a JSON array(.|\n)*jq -c"),
        (
            ok,
            TextColumns(text="txet"),
            r"--text-column txet: x.jsonl, line 1 .*did you mean text\?",
        ),
        (f'{ok}{{"t": "a"}}', TextColumns(), r"line 2 has no column 'text'; .*valid: t"),
        (ok, TextColumns(labels=("topci",)), r"--label topci: .*did you mean topic\?"),
        ('{"text": 3}', TextColumns(), r"line 1 has 3, which is number; expected text"),
        ('{"text": "\\ud800"}', TextColumns(), r"line 1 has a lone surrogate"),
        (
            '{"text": "a", "n": 1}\n{"text": "a", "n": "1"}',
            TextColumns(labels=("n",)),
            r"--label n: x.jsonl, line 2 has '1', which is text, while .*line 1 has 1, .*number",
        ),
        ('{"text": "a", "n": {"b": 1}}', TextColumns(labels=("n",)), r"has \{'b': 1\}.*nested"),
        (
            '{"text": "a", "n": [1]}',
            TextColumns(labels=("n",)),
            r"nested value; expected text, a num",
        ),
        (ok.replace('["a"]', '"a"'), words, r"--words-column words: .*'a'; expected a list"),
        (ok.replace('["a"]', "[1]"), words, r"line 1 has 1, which is number"),
        (ok.replace('["a"]', '[" "]'), words, r"a blank for word 0"),
        (ok.replace('["X"]', "[]"), words, r"--token-label upos: .*0 values for 1 words"),
        (ok.replace('["X"]', "3"), words, r"--token-label upos: .*3; expected a list"),
        (ok, TextColumns(token_labels=("xpos",)), r"--token-label xpos: .*did you mean upos\?"),
        (
            ok,
            TextColumns(words="word", token_labels=("upos",)),
            r"--words-column word: .*did you mean words\?",
        ),
    ]


@pytest.mark.parametrize(("content", "columns", "message"), jsonl_cases())
def test_bad_json_lines(content: str, columns: TextColumns, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(content)
    with pytest.raises(DatasetError, match=message):
        read(tmp_path / "x.jsonl", columns)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "x.csv",
            b"text,n\na,1\nb\n",
            r"x.csv, line 3 has 1 fields, the first line has 2: \['b'\]",
        ),
        ("x.csv", b'text,n\n"a\nb",1\nc,d,e\n', r"line 4 has 3 fields"),
        ("x.csv", b'text\n"a\n', r"x.csv, after line 1: unexpected end of data"),
        ("x.csv", b"text\n\xff\n", r"after line .*utf-8"),
        ("x.csv", b"", r"x.csv is empty"),
        ("x.csv", b"text,text\n", r"names the column 'text' twice"),
        ("x.csv", b"txt,n\na,1\n", r"has no column 'text'; did you mean txt\?"),
        ("x.tsv", b"text,n\na,1\n", r"has no column 'text'; did you mean text,n\?"),
        ("x.txt", b"\xff", r"x.txt is not text in UTF-8"),
        ("x.parquet", b"PAR1 and no more", r"x.parquet is damaged, or not Parquet"),
        ("x.parquet", b"", r"x.parquet is damaged, or not Parquet"),
        ("x.conllu", b"1\tword\tUPOS\n", r"x.conllu, line 1: .* has 3 fields; expected the 10"),
        ("x.conllu", b"one" + b"\t_" * 9, r"ID such as 8, 8-9 or 8.1"),
        ("x.conllu", b"1-2" + b"\t_" * 9 + b"\n1" + b"\t_" * 9, r"lacks words of a multiword"),
        ("x.conllu", b"\xff", r"not text in UTF-8"),
        ("x.doc", b"", r"x.doc ends in .doc; files of text data end in .parquet, .jsonl"),
        ("x", b"", r"x has no ending; files of text data end in"),
    ],
)
def test_bad_files(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read(path)


def test_a_parquet_file_that_is_cut_or_overwritten(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", [{"text": f"text {i}" * 50} for i in range(500)])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match="damaged"):
        read(path)
    path.write_bytes(whole[:4] + b"\xff" * 400 + whole[404:])
    with pytest.raises(DatasetError, match="damaged"):
        read(path)
    pq.write_table(pa.table({"text": [1, 2]}), path)
    with pytest.raises(DatasetError, match=r"x.parquet, row 0 has 1, which is number"):
        read(path)


def test_data_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reviews.jsonl").write_text("{}")
    with pytest.raises(DatasetError, match=r"no such file .*did you mean reviews.jsonl\?"):
        open_source(str(tmp_path / "review.jsonl"))
    with pytest.raises(DatasetError, match=r"did you mean reviews.jsonl\?"):
        open_source(str(tmp_path / "Reviews.csv"))
    # of names that are alike in their endings alone none was meant, nor of a kind that is not read
    (tmp_path / "bad.json").write_text("{}")
    (tmp_path / "nofiles.docx").write_text("")
    (tmp_path / "nofile.csv").mkdir()
    with pytest.raises(DatasetError, match=r"no such file") as caught:
        open_source(str(tmp_path / "nofile.jsonl"))
    assert "did you mean" not in caught.value.message and "bad.json" not in str(caught.value)
    for name in ("no/such/file", "./nothing", "a b", "data.xyz"):
        with pytest.raises(DatasetError, match=f"--dataset {name}: no such file or folder"):
            open_source(name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"holds no text data; files end in .parquet"):
        open_source(str(tmp_path / "empty"))
    for option, value in (("split", "test"), ("subset", "en")):
        with pytest.raises(UsageError, match=f"--{option} {value} is for datasets of the hub"):
            open_source(str(tmp_path), **{option: value})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="--lines is for plain text"):
        open_source(str(tmp_path / "reviews.jsonl"), lines=True)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DatasetError, match=r"needs the library datasets(.|\n)*moedb\[hub\]"):
        open_source("stanfordnlp/imdb")


def test_columns_that_clash() -> None:
    for columns, message in (
        ({"labels": ("window",)}, "--label window: every example gets a label"),
        ({"labels": ("a", "a")}, "--label a is given twice"),
        ({"token_labels": ("a", "a")}, "--token-label a is given twice"),
    ):
        with pytest.raises(MoedbError, match=message):
            TextColumns(**columns)


class Stream:
    """What ``datasets`` gives for a stream, as far as it is used."""

    column_names = ("text", "label", "tags", "image")

    def __init__(self, fails: bool = False) -> None:
        names = SimpleNamespace(names=["neg", "pos"])
        self.features = {"label": names, "tags": SimpleNamespace(feature=names)}
        self.fails = fails

    def select_columns(self, names: list[str]) -> "Stream":
        assert names == ["text", "label", "tags"]
        return self

    def __iter__(self) -> Any:
        yield {"text": "a", "label": 1, "tags": [0, 1, -1]}
        if self.fails:
            raise ConnectionError("the line is dead")
        yield {"text": "b", "label": None, "tags": None}


def test_hub_data_are_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(*arguments: Any, **keywords: Any) -> Stream:
        asked.append((arguments, keywords))
        if keywords["split"] == "tset":
            raise ValueError('Bad split: tset. Available splits: ["train", "test"]\nmore')
        return Stream(fails=keywords["split"] == "dead")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setattr("moedb.capture.jobs.text.sources.hub._revision", lambda name: "abc")
    source = open_source("owner/set.v1", split="test", subset="en")
    assert isinstance(source, HubSource)
    assert asked == [
        (("owner/set.v1", "en"), {"split": "test", "streaming": True, "revision": "abc"})
    ]
    assert [row.values for row in source.rows(("text", "label", "tags"))] == [
        {"text": "a", "label": "pos", "tags": ["neg", "pos", None]},
        {"text": "b", "label": None, "tags": None},
    ]
    assert (source.name, source.split) == ("owner/set.v1 en", "test")
    assert source.config["revision"] == "abc"
    with pytest.raises(DatasetError, match=r"--label labl: .*did you mean label"):
        source.check_columns(TextColumns(labels=("labl",)).options)
    with pytest.raises(DatasetError, match=r"split tset .*Available splits(.|\n)*--split"):
        open_source("owner/name", split="tset")
    dead = open_source("imdb", split="dead")
    with pytest.raises(
        DatasetUnreachableError, match=r"imdb, split dead, row 1: .*cannot be reached \(C"
    ):
        list(dead.rows(("text", "label", "tags")))
