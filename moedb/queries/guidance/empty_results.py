"""Why a question has no rows for an answer, where what it names is there."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from moedb.queries.analyses.predictions.intervention_runs import (
    captured_run,
    incomplete_interventions,
)
from moedb.queries.questions.question import Question
from moedb.queries.reading.reader import SnapshotReader
from moedb.queries.reading.run_contents import (
    SELECTED,
    RunContents,
    as_ranges,
    intervention_runs,
)
from moedb.schemas.interventions import FORCE

if TYPE_CHECKING:
    from moedb.store.reading.snapshot import RunSnapshot

_NAMELESS = ("run", "seed")
_TOKENS = f"""
select count(*), count(tokens.token_id)
from tokens
join examples using (run_id, example_id)
where tokens.run_id = $run and {SELECTED}
""".strip()  # noqa: S608
_MOST_FREQUENT = f"""
select coalesce(max(n), 0)
from (
    select count(*) as n
    from tokens
    join examples using (run_id, example_id)
    where tokens.run_id = $run and tokens.token_id is not null and {SELECTED}
    group by tokens.token_id
)
""".strip()  # noqa: S608
_KEPT = f"""
select count(*)
from tokens
join examples using (run_id, example_id)
where tokens.run_id = $run and tokens.array_row is not null and {SELECTED}
""".strip()  # noqa: S608
_PROMPTS = f"""
select count(*)
from predictions
join examples using (run_id, example_id)
where predictions.run_id = $run
    and predictions.condition_id = $condition
    and predictions.logit_diff is not null
    and {SELECTED}
""".strip()  # noqa: S608
_READINGS = """
select logit_lens.condition_id, logit_lens.position
from logit_lens
where logit_lens.run_id = $run
group by all
order by all
""".strip()


def why_empty(reader: SnapshotReader, question: Question, bound: Mapping[str, object]) -> str:
    """Say why a question that was answered with no rows has none.

    Parameters
    ----------
    reader
        What was read.
    question
        The named query or the analysis; its values have passed
        :func:`~.parameter_values.check_values`.
    bound
        The values of its parameters.
    """
    reason = _REASONS.get(question.name)
    found = reason(_Asked(reader, bound)) if reason is not None else None
    return found or _nothing_fits(reader, question, bound)


class _Asked:
    """A question's parameters, and the run that it is asked of."""

    def __init__(self, reader: SnapshotReader, bound: Mapping[str, object]) -> None:
        self.reader = reader
        self.bound = bound

    @property
    def run_id(self) -> str:
        return str(self.bound["run"])

    @property
    def run(self) -> "RunSnapshot":
        return self.reader.snapshot.run(self.run_id)

    @property
    def layers(self) -> dict[int, int]:
        """For each MoE layer that is asked for its top k."""
        wanted = self.bound.get("layer")
        return {
            int(row["layer"]): int(row["top_k"])
            for row in self.run.manifest.layers
            if wanted in (None, row["layer"])
        }

    def number(self, name: str) -> int:
        return int(str(self.bound.get(name) or 0))

    def count(self, statement: str, **more: object) -> int:
        asked = {"run": self.run_id, "split": self.bound["split"], **more}
        return int(self.reader.sql(statement, asked).fetchall()[0][0])

    @property
    def read(self) -> str:
        split = self.bound.get("split")
        return "its examples" if split is None else f"the examples of split {split!r}"


def _nothing_fits(reader: SnapshotReader, question: Question, bound: Mapping[str, object]) -> str:
    asked = [
        f"{name} {value!r}"
        for name, value in bound.items()
        if value is not None and name not in _NAMELESS
    ]
    run = bound.get("run")
    where = "the store" if run is None else f"run {run}"
    what = f" with {', '.join(asked)}" if asked else ""
    return f"nothing in {where} fits {question.name}{what}"


def _token_ids(asked: _Asked) -> str | None:
    n_tokens, n_with_id = asked.reader.sql(
        _TOKENS, {"run": asked.run_id, "split": asked.bound["split"]}
    ).fetchall()[0]
    if n_tokens and not n_with_id:
        return (
            f"the tokens of run {asked.run_id} are of no vocabulary, as those of images: none has "
            "a token_id"
        )
    most = asked.count(_MOST_FREQUENT)
    if most < asked.number("min_count"):
        return (
            f"min_count is {asked.number('min_count')}, and the most frequent token of run "
            f"{asked.run_id} is there {most} times in {asked.read}"
        )
    if asked.bound.get("expert") is not None:
        return (
            f"no token of run {asked.run_id} in {asked.read} that occurs "
            f"{asked.number('min_count')} times or more chose expert {asked.bound['expert']}"
        )
    return None


def _specialization(asked: _Asked) -> str | None:
    least = asked.number("min_decisions")
    return f"no expert has {least} labelled decisions or more; lower -p min_decisions"


def _specialized_pairs(asked: _Asked) -> str | None:
    least = asked.number("min_decisions")
    return _pairs(asked) or (
        f"no two experts were chosen together by {least} labelled tokens or more; lower "
        "-p min_decisions"
    )


def _pairs(asked: _Asked) -> str | None:
    if all(top_k == 1 for top_k in asked.layers.values()):
        return (
            f"run {asked.run_id} chooses one expert for each token, so that no two are chosen "
            "together"
        )
    return None


def _next_layers(asked: _Asked) -> str | None:
    if len(asked.run.manifest.layers) < 2:
        return f"run {asked.run_id} has a single MoE layer, and none comes after it"
    return None


def _prompts(asked: _Asked) -> str | None:
    condition = asked.number("condition")
    if not asked.count(_PROMPTS, condition=condition):
        return (
            f"no prompt of run {asked.run_id} in {asked.read} has a logit difference under "
            f"condition {condition}"
        )
    return None


def _lens(asked: _Asked) -> str | None:
    readings = asked.reader.sql(_READINGS, {"run": asked.run_id}).fetchall()
    conditions = sorted({condition for condition, _ in readings})
    if asked.bound["condition"] not in conditions:
        return (
            f"condition {asked.bound['condition']} of run {asked.run_id} was not read through the "
            f"lens; read were: {as_ranges(conditions)}"
        )
    position = asked.bound["position"]
    positions = sorted({found for _, found in readings})
    if position is not None and position not in positions:
        return (
            f"run {asked.run_id} was read through the lens at other positions: "
            f"{as_ranges(positions)}"
        )
    return (
        f"run {asked.run_id} has no reading of {asked.read} at "
        + ("the last position" if position is None else f"position {position}")
        + f" that condition {asked.bound['condition']} changes"
    )


def _interventions(asked: _Asked) -> str | None:
    found = intervention_runs(asked.reader, asked.run_id)
    kinds = asked.bound.get("kind")
    of = "" if kinds is None else f" under {kinds}"
    return f"no answer{of} of {found.named} has a logit difference in {asked.read}" + _unfinished(
        asked
    )


def _ablations(asked: _Asked) -> str | None:
    run = asked.bound.get("interventions") or asked.run_id
    found = intervention_runs(asked.reader, str(run))
    return (
        f"no single expert was ablated in {found.named}, where the interventions are: "
        f"{', '.join(found.kinds()) or 'none'}; moedb intervene --kind ablate-experts --each "
        "ablates them one by one" + _unfinished(asked)
    )


def _unfinished(asked: _Asked) -> str:
    captured = captured_run(asked.reader, asked.run_id)
    return incomplete_interventions(asked.reader, captured.run_id)


def _rows_of_arrays(asked: _Asked) -> str | None:
    if not asked.count(_KEPT):
        return f"the arrays of run {asked.run_id} keep no token of {asked.read}"
    if "min_tokens" in asked.bound:
        return (
            f"no two experts have the outputs of {asked.number('min_tokens')} tokens in common "
            f"among those that were read; lower -p min_tokens"
        )
    return None


def _written(asked: _Asked) -> str | None:
    return f"no prompt of run {asked.run_id} in {asked.read} has a logit difference"


def _forced(asked: _Asked) -> str | None:
    trials = asked.reader.sql("select run_id from trials").fetchall()
    runs = tuple(
        asked.reader.snapshot.run(run_id)
        for (run_id,) in trials
        if asked.bound["run"] in (None, run_id)
    )
    if FORCE not in RunContents(asked.reader, runs).kinds():
        return "no trial has the condition force-experts, which captures of cifar-moe have"
    return None


_REASONS: Mapping[str, Callable[[_Asked], str | None]] = {
    "top-tokens": _token_ids,
    "vocabulary-specialization": _token_ids,
    "expert-specialization": _specialization,
    "pair-specialization": _specialized_pairs,
    "co-activation": _pairs,
    "co-activation-adjacent": _pairs,
    "cross-layer": _next_layers,
    "ioi-logit-diff": _prompts,
    "logit-lens": _lens,
    "intervention-effect": _interventions,
    "expert-effect": _ablations,
    "output-overlap": _rows_of_arrays,
    "kmeans-baseline": _rows_of_arrays,
    "state-and-function": _rows_of_arrays,
    "expert-attribution": _written,
    "expert-accuracy": _forced,
}
