"""The effects of ablations by group of tokens, and documents drawn again for their differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from moedb.queries.questions.parameters import Parameter

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from moedb.queries.analyses.uncertainty.bootstrap import Bootstrap
    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader

EFFECTS = """
select
    label_effects.effect_set,
    label_effects.label_set,
    label_effects.kind,
    label_effects.layer,
    label_effects.expert,
    label_effects.role,
    label_effects.cluster,
    label_effects.routed,
    label_effects.fits,
    label_effects.attribution_rank,
    case
        when cast($measure as varchar) = 'following' then label_effects.following_change
        else label_effects.next_change
    end as change
from label_effects
where label_effects.run_id = cast($run as varchar)
    and label_effects.effect_set = coalesce(cast($effects as varchar), label_effects.effect_set)
    and label_effects.layer = coalesce(cast($layer as integer), label_effects.layer)
order by
    label_effects.effect_set,
    label_effects.layer,
    label_effects.expert,
    label_effects.role,
    label_effects.ablated,
    label_effects.token_idx
""".strip()

GROUPS: Mapping[str, str] = {
    "fits": "tokens that chose the expert and that its label fits",
    "other": "tokens that chose the expert and that its label does not fit",
    "unrouted_fits": "tokens that did not choose the expert and that its label fits",
    "unrouted_other": "all other tokens",
    "control": "the tokens of fits, a control ablated in the expert's place",
    "control_own": "tokens that chose a control, that one ablated",
}
"""The groups of tokens, and what they are."""

COMPARISONS: Mapping[str, tuple[str, str]] = {
    "fits_less_other": ("fits", "other"),
    "fits_less_control": ("fits", "control"),
    "fits_less_control_own": ("fits", "control_own"),
}
"""Differences of two groups' means."""

LEAST_DOCUMENTS = 5
"""A difference has an interval where the tokens of both groups are of so many documents or more."""

RUN_EFFECTS = (
    Parameter(
        "effects",
        "varchar",
        None,
        False,
        "what the effects are called together; all when null",
        names="effects",
    ),
    Parameter("layer", "integer", None, False, "the MoE layer; all when null"),
    Parameter(
        "measure",
        "varchar",
        "next",
        False,
        "the change of the next token's log-probability, or the mean over the tokens following",
        ("next", "following"),
    ),
)
"""What both analyses are asked, beside the run and what an interval takes."""


def read_effects(
    reader: "SnapshotReader", run_id: str, parameters: "Mapping[str, Value]"
) -> "pd.DataFrame":
    """Read the effects, each with the group that it is in; those in none are left out.

    Parameters
    ----------
    reader
        Reads the store.
    run_id
        The whole name of the run.
    parameters
        effects, layer and measure.
    """
    import numpy as np

    asked = {name: parameters[name] for name in ("effects", "layer", "measure")}
    found = reader.sql(EFFECTS, {"run": run_id, **asked}).df()
    routed = found["routed"].to_numpy() == 1
    fits, misses = (found["fits"].to_numpy(np.float64) == value for value in (1, 0))
    own = found["role"].to_numpy() == "own"
    found["group"] = np.select(
        [
            own & routed & fits,
            own & routed & misses,
            own & ~routed & fits,
            own & ~routed & misses,
            (found["role"].to_numpy() == "control") & routed & fits,
            found["role"].to_numpy() == "control-own",
        ],
        list(GROUPS),
        default="",
    )
    kept: pd.DataFrame = found[(found["group"] != "") & found["change"].notna()]
    return kept


@dataclass(frozen=True)
class Sums:
    """The changes of a set of experts, added up by document and group.

    Attributes
    ----------
    totals, counts
        (document, expert, group): the sum of the changes, and how many they are.
    """

    totals: "NDArray[np.float64]"
    counts: "NDArray[np.float64]"

    @classmethod
    def of(cls, effects: "pd.DataFrame") -> "Sums":
        """Add up the effects of some experts."""
        import numpy as np

        names = list(GROUPS)
        _, documents = np.unique(effects["cluster"].to_numpy(), return_inverse=True)
        places = effects["layer"].to_numpy(np.int64) << 32 | effects["expert"].to_numpy(np.int64)
        _, experts = np.unique(places, return_inverse=True)
        groups = np.array([names.index(group) for group in effects["group"]], dtype=np.int64)
        shape = (
            int(documents.max(initial=-1)) + 1,
            int(experts.max(initial=-1)) + 1,
            len(names),
        )
        totals, counts = np.zeros(shape), np.zeros(shape)
        np.add.at(totals, (documents, experts, groups), effects["change"].to_numpy(np.float64))
        np.add.at(counts, (documents, experts, groups), 1)
        return cls(totals, counts)

    def size(self, group: str) -> int:
        """Tokens of a group, over all experts."""
        return int(self.counts[:, :, list(GROUPS).index(group)].sum())

    def n_documents(self, group: str) -> int:
        """Documents that the tokens of a group are of."""
        return int((self.counts[:, :, list(GROUPS).index(group)].sum(axis=1) > 0).sum())

    def drawn(self, groups: Sequence[str], samples: int, seed: int) -> "Bootstrap":
        """Draw documents again: the mean of a group, or of one less that of another.

        Each expert counts alike, and those that lack one of the groups are left out, in a draw too.
        Documents without a token of these groups are none that could be drawn.

        Returns
        -------
        Bootstrap
            One column.
        """
        import numpy as np

        from moedb.queries.analyses.uncertainty.bootstrap import Bootstrap, bootstrap

        places = [list(GROUPS).index(group) for group in groups]
        totals, counts = self.totals[:, :, places], self.counts[:, :, places]
        held = counts.sum(axis=(1, 2)) > 0
        has_all = (counts.sum(axis=0) > 0).all(axis=-1)
        totals, counts = totals[held][:, has_all], counts[held][:, has_all]
        n_documents, n_experts, n_groups = totals.shape
        flat = np.stack([totals, counts], axis=-1).reshape(n_documents, 2 * n_experts * n_groups)

        def difference(sums: "NDArray[np.float64]") -> "NDArray[np.float64]":
            by_group = sums.reshape(len(sums), n_experts, n_groups, 2)
            whole = by_group[..., 1]
            mean = np.divide(
                by_group[..., 0], whole, out=np.full(whole.shape, np.nan), where=whole > 0
            )
            of_expert = mean[..., 0] - (mean[..., 1] if n_groups > 1 else 0)
            known = np.isfinite(of_expert)
            n_known = known.sum(axis=-1)
            total = np.where(known, of_expert, 0.0).sum(axis=-1)
            found: NDArray[np.float64] = np.divide(
                total, n_known, out=np.full(len(sums), np.nan), where=n_known > 0
            )
            return found

        found = bootstrap(flat, samples, seed).combined(difference)
        known = np.isfinite(found.drawn[:, 0])
        return Bootstrap(found.estimates, found.drawn[known], found.left_out)


class Difference(NamedTuple):
    """The difference of two groups' means for one expert; None where there is none.

    Attributes
    ----------
    estimate, low, high
        The difference, and its interval where there are documents enough for one.
    """

    estimate: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, sums: Sums, groups: Sequence[str], samples: int, seed: int) -> "Difference":
        """Draw the difference of one expert."""
        from moedb.queries.analyses.uncertainty.bootstrap import number_or_none

        enough = min(map(sums.n_documents, groups)) >= LEAST_DOCUMENTS
        drawn = sums.drawn(groups, samples if enough else 0, seed)
        return cls(number_or_none(drawn.estimates[0]), *drawn.interval())
