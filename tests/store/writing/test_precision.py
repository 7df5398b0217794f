"""How many bits are kept: of what, of which model, and rounded how."""

from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from moedb.store.reading.snapshot import read_run
from moedb.store.writing.run_writer import RunWriter
from moedb.store.writing.tables.precision import round_floats
from tests.support.stores.samples import RUN_ID, sample_manifest, unit_rows


@given(
    arrays(np.float32, st.integers(0, 20), elements=st.floats(width=32)),
    st.sampled_from([8, 11, 12]),
)
def test_a_rounded_value_is_the_nearest_one(values: np.ndarray, bits: int) -> None:
    found = round_floats(values, bits)
    finite = np.isfinite(values)
    np.testing.assert_array_equal(found[~finite], values[~finite])
    normal = finite & (np.abs(values) > 1e-30) & (np.abs(values) < 3e38)
    mantissa, exponent = np.frexp(values[normal].astype(np.float64))
    nearest = np.ldexp(np.round(mantissa * 2.0**bits) / 2.0**bits, exponent)
    np.testing.assert_array_equal(found[normal], nearest)
    np.testing.assert_array_equal(np.sign(found[finite]) * np.sign(values[finite]) >= 0, True)


def test_bfloat16_is_torch_s() -> None:
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    expected = torch.from_numpy(values).bfloat16().float().numpy()
    np.testing.assert_array_equal(round_floats(values, 8), expected)


@pytest.mark.parametrize(
    ("dtype", "bits"), [("float32", None), ("bfloat16", (8, 12)), ("float16", (11, 12))]
)
@pytest.mark.parametrize("cast", [True, False])
def test_a_model_s_own_values_are_never_rounded(
    tmp_path: Path, dtype: str, bits: tuple[int, int] | None, cast: bool
) -> None:
    manifest = sample_manifest(n_units=1)
    manifest.row["dtype"] = dtype
    tables, arrays = unit_rows(manifest, 0)
    routing, stats = (
        {name: np.array(values) for name, values in tables[table].items()}
        for table in ("routing", "router_stats")
    )
    if cast:
        routing["weight"] = round_floats(routing["weight"].astype(np.float32), 8)
    writer = RunWriter(tmp_path, manifest)
    writer.begin({})
    writer.commit_unit(0, {**tables, "routing": routing}, arrays)
    run = read_run(tmp_path, RUN_ID)

    def stored(table: str, order: str) -> dict[str, np.ndarray]:
        files = [str(path) for path in run.files(table)]
        return duckdb.read_parquet(files).order(order).fetchnumpy()

    found = stored("routing", "layer, token_idx, rank")
    found.update(stored("router_stats", "layer, token_idx"))
    norms, statistics = bits or (24, 24)
    for name, kept in (("weight", 24), ("output_norm", norms)):
        np.testing.assert_array_equal(
            found[name], _nearest(routing[name].astype(np.float32), kept), name
        )
    for name in ("entropy", "margin", "logsumexp", "topk_mass"):
        np.testing.assert_array_equal(
            found[name], _nearest(stats[name].astype(np.float32), statistics), name
        )
    said = run.segments["000000"].tables["routing"][0].significant_bits
    expected = {} if bits is None else {"output_norm": norms}
    assert said == ({**expected, "weight": 8} if cast and bits else expected)


def _nearest(values: np.ndarray, bits: int) -> np.ndarray:
    mantissa, exponent = np.frexp(values.astype(np.float64))
    return np.ldexp(np.round(mantissa * 2.0**bits) / 2.0**bits, exponent)
