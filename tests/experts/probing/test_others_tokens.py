"""Groups of a dense run's neurons that see the tokens which chose the experts of a mixture."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

import moedb
from moedb.cli import cli
from moedb.errors import UsageError
from moedb.experts.probing.concepts import concepts_of, tokens_of
from moedb.experts.probing.splitting import TEST, TRAIN, sample
from moedb.queries.database import Database
from tests.experts.probing.planted import (
    DENSE_PLANTED,
    DENSE_RUN,
    LABELLED,
    N_DOCUMENTS,
    N_TOKENS,
    RUN,
    WIDTH,
    dense_neurons_of,
    values_of,
    write,
)
from tests.support.stores.samples import N_EXPERTS, sample_manifest, unit_rows, write_texts

SETTINGS = {"k": [1, 3], "permutations": 1, "min_tokens": 30, "resamples": 0}
SAMPLE = ["layer", "candidate", "value", "protocol", "permutation", "k"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair") / "store"
    write(folder)
    write(folder, dense=True)
    moedb.probe(RUN, "sign", folder, **SETTINGS)
    for n_groups, name in ((4, "four"), (2, "two")):
        moedb.probe(
            DENSE_RUN,
            "sign",
            folder,
            groups=n_groups,
            width=3,
            tokens_of=RUN,
            name=name,
            **SETTINGS,
        )
    return folder


@pytest.fixture(scope="module")
def database(store: Path) -> Iterator[Database]:
    with moedb.open(store) as opened:
        yield opened


def scores(database: Database, run: str, name: str = "probe") -> pd.DataFrame:
    named = {"run": run, "name": name}
    found = database.sql("from probe_scores where run_id = $run and probe = $name", named).df()
    return found.sort_values(SAMPLE, ignore_index=True)


def group(number: int, layer: int) -> list[int]:
    """The neurons of a group of three, as the seed 0 divides them."""
    order = np.random.default_rng([0, layer]).permutation(2 * WIDTH)
    return sorted(order[3 * number : 3 * number + 3].tolist())


def chosen(layer: int, expert: int) -> list[tuple[int, int]]:
    """Document and place of each token with a row that chose an expert, from the rows written."""
    manifest = sample_manifest(N_DOCUMENTS, N_TOKENS, RUN, arrays=())
    found = []
    for document in range(N_DOCUMENTS):
        routing = unit_rows(manifest, document)[0]["routing"]
        rows = zip(routing["token_idx"], routing["layer"], routing["expert"], strict=True)
        places = sorted(int(t) % N_TOKENS for t, at, of in rows if (at, of) == (layer, expert))
        found += [(document, place) for place in places if place % 11 != 7]
    return found


@pytest.mark.parametrize("name", ["four", "two"])
def test_a_group_is_asked_about_the_tokens_of_the_expert(database: Database, name: str) -> None:
    columns = [*SAMPLE, "n_train", "n_selection", "n_test", "n_yes", "n_documents", "f1_always_yes"]
    experts, groups = scores(database, RUN), scores(database, DENSE_RUN, name)
    pd.testing.assert_frame_equal(experts[columns], groups[columns])
    assert groups["expert"].isna().all() and (groups["width"] == 3).all()
    assert set(groups["candidate"]) == set(range(N_EXPERTS))
    n_groups = {"four": 4, "two": 2}[name]
    for row in groups.itertuples():
        assert row.neuron in group(int(row.candidate) % n_groups, int(row.layer))


@pytest.mark.parametrize("protocol", ["documents", "herbst2026"])
@pytest.mark.parametrize(("layer", "expert"), [(1, 2), (3, 0)])
def test_what_it_sees_of_them_are_its_own_neurons(
    database: Database, protocol: str, layer: int, expert: int
) -> None:
    seen = chosen(layer, expert)
    right = np.array([d < LABELLED and values_of(d)[t] == "planted" for d, t in seen])
    neurons = np.stack([dense_neurons_of(d, layer)[t, 0] for d, t in seen]).astype(np.float64)
    neurons = neurons[:, group(expert, layer)]
    of_run = tokens_of(database.of_run(DENSE_RUN), DENSE_RUN, None)
    (concept,) = concepts_of(database.of_run(DENSE_RUN), DENSE_RUN, ("sign=planted",), of_run)
    given = sample(of_run, concept, protocol, 0, 0)  # type: ignore[arg-type]
    part = given.part[np.searchsorted(of_run.rows, [1024 * d + t for d, t in seen])]
    train, test = part == TRAIN, part == TEST
    rows = scores(database, DENSE_RUN, "four").set_index(SAMPLE)
    for k in SETTINGS["k"]:  # type: ignore[attr-defined]
        apart = np.abs(neurons[train & right].mean(0) - neurons[train & ~right].mean(0))
        best = np.argsort(-apart, kind="stable")[:k]
        model = LogisticRegression(C=1.0, class_weight="balanced", tol=1e-10, max_iter=10_000)
        model.fit(neurons[train][:, best], right[train])
        row = rows.loc[(layer, expert, "planted", protocol, 0, k)]
        assert row["neuron"] == group(expert, layer)[best[0]]
        assert (row["n_test"], row["n_yes"]) == (test.sum(), (test & right).sum())
        expected = f1_score(right[test], model.predict(neurons[test][:, best]))
        assert row["f1"] == pytest.approx(expected)


def test_of_few_groups_each_is_read_for_several_experts(database: Database) -> None:
    layer, planted = DENSE_PLANTED
    (number,) = [each for each in range(2) if planted in group(each, layer)]
    rows = scores(database, DENSE_RUN, "two")
    rows = rows[(rows["layer"] == layer) & (rows["value"] == "planted") & (rows["k"] == 1)]
    rows = rows[(rows["permutation"] == 0) & (rows["protocol"] == "documents")]
    found = rows.set_index("candidate")["neuron"] == planted
    assert found.to_dict() == {expert: expert % 2 == number for expert in range(N_EXPERTS)}


def test_what_the_tokens_were_is_among_the_settings(store: Path) -> None:
    with pytest.raises(UsageError, match=f"tokens_of '{RUN}', not None"):
        moedb.probe(DENSE_RUN, "sign", store, groups=4, width=3, name="four", **SETTINGS)
    arguments = ["probe", "text-f", "--key", "sign", "--groups", "4", "--width", "3"]
    arguments += ["--tokens-of", "text-0", "--k", "1,3", "--min-tokens", "30", "--resamples", "0"]
    said = CliRunner().invoke(cli, [*arguments, "--name", "four", "--store", str(store)])
    assert said.exit_code == 0, said.output
    assert "4 layers times concepts were there already" in said.stderr


def test_what_cannot_be_matched_is_said(tmp_path: Path, store: Path) -> None:
    with pytest.raises(UsageError, match="without groups"):
        moedb.probe(DENSE_RUN, "sign", store, tokens_of=RUN)
    with pytest.raises(UsageError, match="4 experts, each a candidate"):
        moedb.probe(RUN, "sign", store, groups=2, tokens_of=RUN, name="other")
    write_texts(tmp_path / "layer", ["of one layer"])
    write(tmp_path / "layer", dense=True)
    with pytest.raises(UsageError, match="no experts at layer 3; it has at layers 1"):
        moedb.probe(DENSE_RUN, "sign", tmp_path / "layer", groups=4, tokens_of=RUN)
    write(tmp_path / "store", n_documents=2)
    write(tmp_path / "store", dense=True)
    with pytest.raises(UsageError, match="not of the same tokens: 2,100 and 300"):
        moedb.probe(DENSE_RUN, "sign", tmp_path / "store", groups=4, tokens_of=RUN)
