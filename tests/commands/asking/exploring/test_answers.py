"""What the server answers is what a file holds, and a slow question keeps no other one waiting."""

import json
import re
import shutil
import threading
import time
from pathlib import Path

import httpx
import pytest

import moedb
from moedb.queries.report.pages.columns import read_table
from moedb.queries.report.pages.subject import subject_of
from moedb.queries.report.pages.writing import write_page
from tests.support.drawn.pages import ReadPage
from tests.support.servers.explorer import Explorer, explorer
from tests.support.stores.made.hostile import KEY, RUN, RUN_B, VALUES
from tests.support.stores.made.routed_words import write_routed_words
from tests.support.stores.synthetic_ioi import CAPTURED

SLOW = "select count(*) from range(200000000) as a(x), range(200000000) as b(y) where x * y = 7"


def snapshot_of(store: Path) -> str:
    with moedb.open(store) as database:
        return database.snapshot.sha256


def version_of(client: httpx.Client) -> str:
    """The snapshot that a page names, by its own block of data."""
    found = re.search(r'"snapshot":"([0-9a-f]{64})"', client.get("/").text)
    assert found is not None
    return found[1]


def asked(client: httpx.Client, statement: str, run: str | None = None) -> httpx.Response:
    sent = {"statement": statement, "run": run, "snapshot": version_of(client)}
    return client.post("/sql", json=sent)


def error(found: httpx.Response) -> str:
    told = found.json()["error"]
    return f"{told['message']} {told['hint']}"


@pytest.mark.parametrize(("run", "run_b"), [(RUN, RUN_B), (CAPTURED, None)])
def test_views_are_those_of_a_file(
    client: httpx.Client, store: Path, tmp_path: Path, run: str, run_b: str | None
) -> None:
    path = tmp_path / "report.html"
    with moedb.open(store) as database:
        write_page(subject_of(database, run, run_b), path)
    views = ReadPage(path).views
    # why a part is missing names the store, of which a browser is told the name alone
    views = json.loads(json.dumps(views).replace(str(store), store.name))
    names = [name for name in views if name not in ("index", "places", "latex")]
    assert {"about", "load", "pairs", "examples", "tokens-0"} < {*names}
    given = {"run": run, **({} if run_b is None else {"run_b": run_b})}
    for name in names:
        found = client.get(f"/view/{name}", params=given)
        assert found.status_code == 200 and found.json() == views[name], name
    page = client.get("/", params=given)
    (tmp_path / "served.html").write_text(page.text)
    served = ReadPage(tmp_path / "served.html").views
    assert served["live"]["run"] == run and served["live"]["run_b"] == run_b
    assert served["live"]["snapshot"] == snapshot_of(store)
    assert {each for each, _ in served["live"]["runs"]} == {RUN, RUN_B, CAPTURED}
    assert served["index"] == {
        **views["index"],
        "links": [*views["index"]["links"], ["SQL", "sql"]],
    }


def test_without_a_run_the_one_of_the_command_is_shown(client: httpx.Client) -> None:
    assert f'"run":"{RUN}"' in client.get("/").text


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        (f"/view/absent?run={RUN}", 404, "no view 'absent'"),
        (f"/view/experts-99?run={RUN}", 404, "no view"),
        (f"/view/tokens-99?run={RUN}", 404, "no view"),
        ("/view/about?run=absent", 404, "no run named 'absent'"),
        ("/view/about", 400, "'run' is missing"),
        (f"/view/about?run={RUN}&layer=3", 400, "no parameter 'layer'"),
        (f"/view/about?run={RUN}&run={RUN_B}", 400, "given twice"),
        (f"/view/about?run={RUN}&run_b={RUN}", 400, "compared with itself"),
        (f"/view/about?run={RUN}&snapshot=old", 409, "read again"),
        ("/?run=absent", 404, "no run named"),
        ("/?absent=1", 400, "no parameter"),
        ("/news?run=1", 400, "no parameter"),
        ("/assets/absent.js", 404, "nothing at this address"),
    ],
)
def test_what_is_not_there_is_said(client: httpx.Client, path: str, status: int, told: str) -> None:
    found = client.get(path)
    assert found.status_code == status and told in error(found)


def test_rows_of_a_statement_are_those_of_sql(client: httpx.Client, store: Path) -> None:
    statement = "select layer, count(*) as n, avg(weight) as w from routing group by 1 order by 1"
    for run in (None, RUN):
        with moedb.open(store) as database:
            rows = database.sql(statement, run=run).fetchall()
        found = asked(client, statement, run).json()
        columns = read_table(found["table"])
        assert [*columns] == ["layer", "n", "w"] and found["table"]["n"] == len(rows)
        assert [*zip(*(columns[name] for name in columns), strict=True)] == rows
        assert found["note"] == ""
    assert RUN in found["footer"] and RUN_B not in found["footer"]


def test_values_of_every_kind_come_whole(client: httpx.Client) -> None:
    statement = """select 9007199254740993 as big, 1 as "a.b", 2 as "a.b", [0.123456789, 2] as l,
        true as yes, null as none, 'inf'::double as far, '<b>' as text, date '2026-01-31' as day,
        1.5::decimal(9, 2) as d"""
    columns = read_table(asked(client, statement).json()["table"])
    found = {name: values[0] for name, values in columns.items()}
    assert found["big"] == "9007199254740993" and found["yes"] == "true"
    assert found["a.b"] == 1 and found["a.b (2)"] == 2
    assert found["l"] == "[0.123456789, 2.0]" and found["none"] is None
    assert found["far"] == float("inf") and found["text"] == "<b>"
    assert found["day"] == "2026-01-31" and found["d"] == 1.5
    gaps = read_table(asked(client, "from (values (1), (null)) as t(x)").json()["table"])["x"]
    assert gaps[0] == 1 and gaps[1] != gaps[1]


def test_rows_are_cut_with_a_note(client: httpx.Client) -> None:
    found = asked(client, "from range(2001)").json()
    assert found["table"]["n"] == 2000 and "first 2,000 rows" in found["note"]
    assert asked(client, "from range(2000)").json()["note"] == ""
    assert "selects nothing" in asked(client, "select 1 where false").json()["note"]
    large = asked(client, "select repeat(x::varchar, 20000) as a from range(2000) as t(x)")
    assert large.status_code == 400 and "MB, too many" in error(large)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("drop table runs", "DROP"),
        ("create table t as select 1", "CREATE"),
        ("copy runs to '/tmp/x.csv'", "COPY"),
        ("select 1; select 2", "one SQL statement"),
        ("attach '/tmp/x.db'", "ATTACH"),
        ("set threads = 1", "SET"),
        ("install httpfs", "refused"),
        ("from read_text('/etc/passwd')", "outside the store"),
        ("from '/etc/passwd'", ""),
        ("from read_csv('http://127.0.0.1:1/x.csv')", ""),
        ("explain analyze delete from runs", "DELETE"),
        ("selekt", "syntax error"),
        ("select nix from routing", "nix"),
        ("", "empty"),
        ("from expert_frequency(run := 'absent')", "absent"),
    ],
)
def test_statements_are_guarded_as_those_of_sql(
    client: httpx.Client, statement: str, told: str
) -> None:
    found = asked(client, statement)
    assert found.status_code in (400, 404), found.text
    assert told in error(found) and "Traceback" not in found.text and "root:" not in found.text


def test_no_place_outside_the_store_is_told(store: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "private" / "the-store"
    shutil.copytree(store, damaged)
    with explorer(damaged, RUN, "--no-ci") as server, server.client() as client:
        version = snapshot_of(damaged)
        for file in damaged.rglob("*.parquet"):
            file.write_bytes(b"damaged")
        found = [
            client.post("/sql", json={"statement": f"from {name}", "snapshot": version})
            for name in ("routing", "tokens", "examples")
        ]
        found.append(client.get(f"/view/load?run={RUN}"))
        assert any(each.status_code == 500 for each in found)
        for each in found:
            assert str(tmp_path) not in each.text and "Traceback" not in each.text
            assert "the-store/runs" in each.text


def test_why_a_part_is_missing_tells_no_place_either(store: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "private" / "the-store"
    shutil.copytree(store, damaged)
    with explorer(damaged, RUN, "--no-ci") as server, server.client() as client:
        for file in damaged.rglob("router_stats*/*.parquet"):
            file.write_bytes(b"damaged")
        found = client.get(f"/view/load?run={RUN}")
        missing = [part["missing"] for part in found.json()["parts"] if "missing" in part]
        assert "the-store/runs" in missing[0] and str(tmp_path) not in found.text


def test_a_slow_statement_keeps_nothing_waiting_and_is_stopped(client: httpx.Client) -> None:
    found: list[httpx.Response] = []
    slow = threading.Thread(target=lambda: found.append(asked(client, SLOW)))
    begun = time.monotonic()
    slow.start()
    time.sleep(0.5)
    assert asked(client, "select 42 as x").json()["table"]["n"] == 1
    assert client.get(f"/view/load?run={RUN}").status_code == 200
    assert not found
    slow.join(timeout=60)
    assert found[0].status_code == 504 and "longer" in error(found[0])
    assert 4 <= time.monotonic() - begun < 30


def test_who_goes_away_frees_the_place(client: httpx.Client) -> None:
    sent = {"statement": SLOW, "snapshot": version_of(client)}
    begun = time.monotonic()
    for _ in range(4):  # two at a time would hold both places for the whole of the limit
        with pytest.raises(httpx.ReadTimeout):
            client.post("/sql", json=sent, timeout=0.3)
    assert asked(client, "select 42 as x").status_code == 200
    assert time.monotonic() - begun < 4


def test_what_may_come_next_is_offered(client: httpx.Client) -> None:
    def offers(text: str) -> list[str]:
        found = client.post("/complete", json={"text": text}).json()["offers"]
        return [each for each, _, _ in found]

    assert "routing" in offers("select * from rou")
    assert "expert_frequency(" in offers("from expert_fr")
    assert RUN in "".join(offers(f"from routing where run_id = '{RUN[:6]}"))
    assert "weight" in offers("select we from routing where we")
    keys = client.post("/complete", json={"text": "from labels where key = '"}).json()["offers"]
    assert KEY.replace("'", "''") + "'" in [each for each, _, _ in keys]
    assert offers(".") == [] and offers(".mo") == []


def test_a_store_that_has_changed_is_read_again(store: Path, tmp_path: Path) -> None:
    copied = tmp_path / "the-store"
    shutil.copytree(store, copied)
    with explorer(copied, RUN, "--no-ci") as server, server.client() as client:
        old = version_of(client)
        assert old == snapshot_of(copied)
        page = client.get("/").text
        assert client.get("/news").json() == {"changed": False}
        write_routed_words(copied, n_examples=3, n_words=6, with_outputs=True)
        time.sleep(6)  # it is not looked at every time
        assert client.get("/news").json() == {"changed": True}
        given = {"run": RUN, "snapshot": old}
        assert client.get("/view/about", params=given).status_code == 200
        assert client.get("/").text == page
        moved = client.get("/", params={"run": RUN, "fresh": "1"})
        assert moved.status_code == 303 and moved.headers["location"] == f"/?run={RUN}"
        assert client.get("/news").json() == {"changed": False}
        assert client.get("/view/about", params=given).status_code == 409
        assert "text-00000f00d5" in client.get("/").text
        assert asked(client, "select count(*) as n from runs").status_code == 200


def test_names_that_would_act_are_texts(client: httpx.Client) -> None:
    found = client.get("/", params={"run": "<script>alert(1)</script>"})
    assert found.headers["content-type"] == "application/json" and found.status_code == 404
    page = client.get("/", params={"run": RUN}).text
    assert "owned'</script>" not in page
    rows = asked(
        client, f"select distinct value from token_labels where key = $${KEY}$$ order by 1"
    )
    assert {*read_table(rows.json()["table"])["value"]} == {*VALUES}


def test_ctrl_c_ends_it_cleanly(store: Path) -> None:
    with explorer(store, "--no-ci") as server:
        with server.client() as client:
            assert client.get("/news").status_code == 200
        code, err = server.end()
    assert code == 0 and err.endswith("stopped\n") and "Traceback" not in err


def test_ctrl_c_ends_it_while_a_statement_runs(store: Path) -> None:
    with explorer(store, "--no-ci") as server, server.client() as client:
        sent = {"statement": SLOW, "snapshot": version_of(client)}
        with pytest.raises(httpx.HTTPError):
            threading.Timer(1, server.process.send_signal, [2]).start()
            client.post("/sql", json=sent, timeout=30).raise_for_status()
        server.process.wait(timeout=30)
        assert server.process.returncode == 0


def test_two_servers_stand_beside_each_other(server: Explorer, store: Path) -> None:
    with explorer(store, "--no-ci") as other, other.client() as client:
        assert other.port != server.port
        client.get(server.address)  # a cookie of the same host
        assert client.get(f"{other.root}/news").status_code == 200
        assert client.get(f"{server.root}/news").status_code == 200
