"""How much, how evenly and how surely experts are used."""

from moedb.queries.report.pages.asking import Json, Part, answered
from moedb.queries.report.pages.subject import Subject

_PARTS = (
    Part(
        "frequency",
        "expert-frequency",
        "Share of the tokens that choose each expert",
        figures=(
            {
                "kind": "heatmap",
                "x": "expert",
                "y": "layer",
                "values": ["frequency", "share", "n_decisions"],
                "told": ["n_decisions", "n_tokens", "uniform"],
                "link": "expert",
            },
        ),
        sure=True,
    ),
    Part(
        "balance",
        "load-balance",
        "How evenly the decisions of each layer are spread",
        figures=(
            {
                "kind": "dots",
                "x": "layer",
                "values": ["normalized_entropy", "gini", "cv", "effective_experts", "switch_loss"],
            },
        ),
        sure=True,
    ),
    Part(
        "concentration",
        "concentration",
        "Share of a layer's decisions that its most used experts take",
        figures=({"kind": "dots", "x": "layer", "values": ["share"], "series": ["n_top"]},),
        sure=True,
    ),
    Part(
        "confidence",
        "router-confidence",
        "How sure the router is, by layer",
        figures=(
            {
                "kind": "dots",
                "x": "layer",
                "values": ["mean_entropy", "mean_margin", "mean_topk_mass"],
            },
        ),
        sure=True,
    ),
)


def load(subject: Subject) -> Json:
    """The section on load."""
    return {
        "id": "load",
        "title": "How experts are used",
        "text": "Corrupted twins of prompts are left out unless a line says otherwise.",
        "parts": [answered(subject, part) for part in _PARTS],
    }
