"""Why some questions have no intervals, and what tells how sure their answers are."""

from collections.abc import Mapping
from types import MappingProxyType

from moedb.errors import UsageError
from moedb.queries.analyses.uncertainty.over_trials import OVER_TRIALS
from moedb.queries.questions.question import Question

_OWN = ("samples", "permutations")
"""Parameters of a question that tells by itself how sure it is."""
_PROBES = "probes are scored on a split of their own, and the interval is in f1_low and f1_high"

WITHOUT: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "expert-similarity": (
            "weights are no sample: the same checkpoint always has the same cosines, and the "
            "columns chance_sd and matched_chance say what random weights have",
            "moedb query expert-similarity",
        ),
        "jsd-specialization": (
            "it has those of jsd_less_null: jsd_less_null_low and jsd_less_null_high",
            "moedb query jsd-specialization",
        ),
        "kmeans-baseline": (
            "it has those of its agreements with a label: ami_experts_low, ami_clusters_low, "
            "lead_low and their upper ends",
            "moedb query kmeans-baseline -p cluster KEY",
        ),
        "labelled-experts": (
            "it has those of its scores: detection_low and detection_high, fuzzing_low and "
            "fuzzing_high",
            "moedb query labelled-experts",
        ),
        "load-balance-by-trial": (
            "each row is one trial, and what tells how sure they are together is how they differ",
            "moedb query load-balance --run RUN --ci, for the examples of one of them",
        ),
        "output-overlap": (
            "it has those of its cosine: cosine_low and cosine_high",
            "moedb query output-overlap -p cluster KEY",
        ),
        "polysemanticity": (
            f"it counts concepts above a threshold; {_PROBES}",
            "moedb query probe-best",
        ),
        "probe-best": (_PROBES, "moedb query probe-best"),
        "probe-curves": (
            "it averages over concepts that were chosen, which are no sample; the rows of "
            "shuffled labels say what chance gives",
            "moedb query probe-best, for each concept with its interval",
        ),
        "promoted-tokens": (
            "it follows from the weights and the outputs that were kept, token by token",
            "moedb query top-tokens --ci, for the tokens that choose an expert",
        ),
        "routing-by-example": (
            "each row is of one example, and there is nothing to draw again",
            "moedb query routing-by-class --ci, for examples together",
        ),
        "top-contexts": (
            "it shows places in the text, and estimates nothing",
            "moedb query top-tokens --ci, for rates of tokens",
        ),
    }
)
"""By the question's name why it has none, and what to ask instead."""

_EXPECTED = "it is in the column expected, beside each pair"

CHANCE: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "active-experts": (
            "what experts that are chosen alike give is in the column uniform",
            "moedb query active-experts",
        ),
        "co-activation": (_EXPECTED, "moedb query co-activation"),
        "co-activation-adjacent": (_EXPECTED, "moedb query co-activation-adjacent"),
        "cross-layer": (_EXPECTED, "moedb query cross-layer"),
        "expert-similarity": (
            "what random weights give is in chance_sd and matched_chance",
            "moedb query expert-similarity",
        ),
        "jsd-specialization": (
            "the columns jsd_null and jsd_less_null",
            "moedb query jsd-specialization -p draws 100",
        ),
        "pair-specialization": (
            "what two experts that choose independently of each other give is in the column "
            "independent",
            "moedb query expert-specialization --null -p key KEY, for experts one by one",
        ),
        "saturation": (
            "what two routers that choose at random give is in the column uniform",
            "moedb query saturation -p run_b RUN",
        ),
        "vocabulary-specialization": (
            "what a router that ignores the token gives is in the column baseline",
            "moedb query vocabulary-specialization",
        ),
    }
)
"""By the name of a question without ``--null`` which of its columns say what chance gives."""


def no_intervals(question: Question) -> UsageError:
    """The error that intervals cannot be asked for, and what can."""
    own = [parameter.name for parameter in question.parameters if parameter.name in _OWN]
    if own:
        return UsageError(
            f"{question.name} says by itself how sure it is, without --ci",
            f"moedb query {question.name} -p {own[0]} N",
        )
    if question.name in OVER_TRIALS:
        return UsageError(
            f"{question.name} is told over trials: it has intervals, and no differences of two "
            "sides",
            f"moedb query {question.name} --ci",
        )
    if question.name in WITHOUT:
        why, hint = WITHOUT[question.name]
        return UsageError(f"{question.name} has no intervals: {why}", hint)
    return UsageError(
        f"{question.name} has no estimates that examples could be drawn again for",
        "moedb query NAME --help says which columns --ci gives intervals of",
    )


def no_chance(question: Question) -> UsageError:
    """The error that it is not known what chance gives, and what is known of it."""
    own = [parameter.name for parameter in question.parameters if parameter.name in _OWN]
    if "permutations" in own:
        return UsageError(
            f"{question.name} says by itself what chance gives, without --null",
            f"moedb query {question.name} -p permutations N",
        )
    if question.name in CHANCE:
        why, hint = CHANCE[question.name]
        return UsageError(f"{question.name} has what chance gives by itself: {why}", hint)
    return UsageError(
        f"what chance gives is not known of any column of {question.name}",
        "moedb query NAME --help says of which columns --null tells it",
    )
