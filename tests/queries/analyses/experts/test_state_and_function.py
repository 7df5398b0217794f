"""The analysis over a store: what is counted, held out, refused."""

import numpy as np
import pytest

from moedb.errors import ArrayNotFoundError, ParameterError
from moedb.queries.analyses.registry import ANALYSES
from tests.queries.analyses.experts.test_kmeans_baseline import (
    BARE,
    GROUPED,
    db,  # noqa: F401
)


def ask(db, **given):  # noqa: F811
    return db.query("state-and-function", run=GROUPED, permutations=99, samples=50, **given)


def test_a_label_that_only_the_clusters_tell(db):  # noqa: F811
    result = ask(db, keys="parity", layer=1)
    row = result.df().iloc[0]
    # clusters are the four groups, of which parity is a function: they say all of it
    assert row["clusters"] == pytest.approx(row["label_entropy"])
    assert row["experts_beyond"] == pytest.approx(0, abs=1e-9) and row["experts_beyond_p"] == 1
    assert row["clusters_beyond_p"] == 0.01 and row["movable"] == 0
    # one of the two examples is held out; every seventh of its tokens keeps no input
    sizes = {unit: int((np.arange(120) % 7 != 5).sum()) for unit in (0, 1)}
    assert row["n_tokens"] in sizes.values() and row["n_examples"] == 1
    assert result.columns == list(ANALYSES["state-and-function"].column_names)


def test_the_chain_rule_and_the_same_seed(db):  # noqa: F811
    frame = ask(db, keys="chance, parity").df()
    assert set(frame["key"]) == {"chance", "parity"}
    one_way = frame["experts"] + frame["clusters_beyond"]
    np.testing.assert_allclose(one_way, frame["clusters"] + frame["experts_beyond"])
    assert frame.equals(ask(db, keys="chance, parity").df())
    assert frame.equals(ask(db, keys="chance,parity,chance").df())


def test_without_shuffles_and_draws_there_are_estimates_alone(db):  # noqa: F811
    result = db.query(
        "state-and-function", run=GROUPED, keys="chance", permutations=0, samples=0, layer=1
    )
    row = result.df().iloc[0]
    assert row["experts"] > 0 and row["experts_beyond"] > 0
    for number in ("null_mean", "null_95", "less_null", "p", "low", "high", "normalized"):
        assert row[f"experts_beyond_{number}"] is None or np.isnan(row[f"experts_beyond_{number}"])


def test_what_is_refused(db):  # noqa: F811
    with pytest.raises(ParameterError, match="has a label 'nokey'; valid: chance, constant"):
        ask(db, keys="parity,nokey")
    with pytest.raises(ArrayNotFoundError, match="router_input"):
        db.query("state-and-function", run=BARE)
