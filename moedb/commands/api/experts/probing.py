"""Probes of neurons from Python, as the command ``probe`` makes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moedb.errors import UsageError
from moedb.experts.probing.settings import PROTOCOLS, SIZES, ProbeSettings, Protocol

if TYPE_CHECKING:
    from moedb.experts.probing.running import Probed
    from moedb.queries.results.result import Result


def probe(
    run: str,
    key: str | Sequence[str],
    store: str | Path | None = None,
    *,
    k: Sequence[int] = SIZES,
    layers: Sequence[int] = (),
    array: str = ProbeSettings.array,
    groups: int = ProbeSettings.groups,
    width: int | None = None,
    tokens_of: str | None = None,
    protocol: Sequence[Protocol] = PROTOCOLS,
    permutations: int = ProbeSettings.permutations,
    min_tokens: int = ProbeSettings.min_tokens,
    max_tokens: int = ProbeSettings.max_tokens,
    resamples: int = ProbeSettings.resamples,
    cluster: str | None = None,
    seed: int = ProbeSettings.seed,
    name: str = ProbeSettings.name,
) -> "Result":
    """Fit k-sparse probes on the neurons of a stored run, and add their scores to it.

    Parameters
    ----------
    run
        The run, or an unambiguous beginning of its name.
    key
        Labels of tokens: ``KEY`` for all its values, or ``KEY=VALUE``; one or several.
    store
        The store's folder; None for ``MOEDB_STORE``, or ``./moedb-store``.
    k
        How many neurons a probe has.
    layers
        The layers; empty for all.
    array
        ``expert_neurons`` or ``shared_neurons``.
    groups, width
        Divide the neurons of a layer of one candidate at random into so many, of so many.
    tokens_of
        A run of the same texts: for each of its experts a group sees the tokens that chose it.
    protocol
        How probes are split, chosen and scored.
    permutations
        How often all is done with shuffled labels.
    min_tokens, max_tokens
        Tokens of a concept that a candidate must have, and those it is fitted on at most.
    resamples, cluster, seed
        Bootstrap samples of documents; the label that tells these; the seed.
    name
        What the probes are called together.

    Returns
    -------
    Result
        The rows of the query ``probe-best`` for these probes.

    Raises
    ------
    MoedbError
        As the command ``moedb probe`` says.

    Examples
    --------
    >>> import moedb
    >>> moedb.probe("text-3f", "upos", k=[1, 4, 16])  # doctest: +SKIP
    >>> moedb.open().query("probe-curves")  # doctest: +SKIP
    """
    from moedb.queries.database import chosen_store

    place = chosen_store(store)
    settings = ProbeSettings(
        run=run,
        concepts=(key,) if isinstance(key, str) else tuple(key),
        sizes=tuple(k),
        layers=tuple(layers),
        array=array,
        groups=groups,
        width=width,
        tokens_of=tokens_of,
        protocols=tuple(protocol),
        permutations=permutations,
        min_tokens=min_tokens,
        max_tokens=max_tokens,
        resamples=resamples,
        cluster=cluster,
        seed=seed,
        name=name,
    )
    return best_of(place, shown_probing(place, settings))


def shown_probing(store: Path, settings: ProbeSettings) -> "Probed":
    """Probe, and show how far that is."""
    from moedb.commands.api.progress import analysis_progress
    from moedb.experts.probing.running import probe as run_probes

    return run_probes(store, settings, analysis_progress)


def best_of(store: Path, found: "Probed") -> "Result":
    """The best candidates of what was probed.

    Raises
    ------
    UsageError
        If no candidate has a probe.
    """
    from moedb.queries.database import open_database

    database = open_database(store)
    named = {"run": found.run_id, "probe": found.name}
    there = "select 1 from probe_scores where run_id = $run and probe = $probe limit 1"
    if not database.sql(there, named).fetchall():
        raise UsageError(
            f"no candidate of run {found.run_id} has a probe named {found.name!r}: none has so "
            "many tokens of a concept",
            f"moedb probe {found.run_id} --remove {found.name}   and again with a lower "
            "--min-tokens",
        )
    return database.query("probe-best", run=found.run_id, probe=found.name)
