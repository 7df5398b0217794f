"""What experts are said to do, and what taking them out says of that."""

from moedb.queries.report.pages.asking import Json, Part, answered
from moedb.queries.report.pages.subject import Subject

_PARTS = (
    Part("labelled", "labelled-experts", "Labels of experts, and what they are worth"),
    Part(
        "effects",
        "label-effects",
        "What taking a labelled expert out does where its label fits, and elsewhere",
    ),
    Part(
        "promoted",
        "promoted-tokens",
        "Tokens that each expert promotes and suppresses",
    ),
)


def labels(subject: Subject) -> Json:
    """The section on what single experts do."""
    return {
        "id": "labels",
        "title": "What experts do",
        "text": "Each expert has a page with its contexts; cells of experts above lead there.",
        "parts": [answered(subject, part) for part in _PARTS],
    }
