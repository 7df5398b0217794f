"""Which experts the tokens of a class go to, for each label."""

from dataclasses import dataclass

from moedb.queries.report.pages.asking import Json, Part, answered
from moedb.queries.report.pages.subject import Subject

MOST_VALUES = 40
"""Values of a label whose classes are shown; more would be a figure that nobody reads."""

MOST_ROWS = 60_000
"""Values times experts of all layers of a label that is shown."""

_TABLES = ("example_labels", "token_labels")
_VALUES = """
select key, count(distinct value) as n_values
from {table}
where run_id = cast($run as varchar)
group by key
order by key
""".strip()
_NOT_CLASSES = frozenset({"twin", "twin_of", "document", "window"})


@dataclass(frozen=True)
class Keys:
    """The keys of labels.

    Attributes
    ----------
    shown
        Those whose values are classes.
    left_out
        For each other one why it is not.
    """

    shown: tuple[str, ...]
    left_out: tuple[str, ...]


def keys_of(subject: Subject) -> Keys:
    """Say which labels of examples and tokens have classes to show."""
    shown, left_out = [], []
    n_experts = sum(subject.contents.experts.values())
    for name in reversed(_TABLES):
        found = subject.database.sql(
            _VALUES.format(table=name), {"run": subject.run.run_id}
        ).fetchall()
        for key, n_values in sorted(found, key=lambda pair: (pair[1], pair[0])):
            if key in _NOT_CLASSES or key in shown:
                continue
            if 2 <= n_values <= MOST_VALUES and n_values * n_experts <= MOST_ROWS:
                shown.append(key)
            else:
                said = "one value" if n_values == 1 else f"{n_values:,} values"
                left_out.append(f"{key} has {said}")
    return Keys(tuple(shown), tuple(left_out))


def classes(subject: Subject) -> Json:
    """The section on classes."""
    keys = keys_of(subject)
    parts = [answered(subject, _part(number, key)) for number, key in enumerate(keys.shown)]
    notes = []
    if keys.left_out:
        notes.append(
            f"Left out are labels of one value, of more than {MOST_VALUES}, and of more than "
            f"{MOST_ROWS:,} rows: {', '.join(keys.left_out)}."
        )
    if not keys.shown:
        notes.append(
            "The run has no labels to show. moedb label-tokens labels the tokens of a run by rules."
        )
    return {
        "id": "classes",
        "title": "Experts and classes",
        "text": "Lift is the rate of an expert within a class over its rate among all tokens: 1 is "
        "no difference. Colours of lifts meet at 1 and end at 8.",
        "notes": notes,
        "parts": parts,
    }


def _part(number: int, key: str) -> Part:
    return Part(
        f"classes-{number}",
        "routing-by-class",
        f"Experts chosen by the tokens of each value of {key}",
        {"key": key},
        (
            {
                "kind": "heatmap",
                "x": "expert",
                "y": "value",
                "panel": "layer",
                "values": ["lift", "rate", "share", "weight_share"],
                "told": ["n_decisions", "n_tokens", "frequency"],
                "link": "expert",
            },
        ),
        sure=True,
        columns=(
            *("layer", "value", "expert", "n_decisions", "n_tokens", "rate", "share"),
            *("weight_share", "frequency", "lift"),
        ),
        ends=("rate", "lift"),
    )
