"""What the model answers, where the answer arises, and what interventions change in it."""

from moedb.queries.report.pages.asking import Json, Part, answered
from moedb.queries.report.pages.subject import Subject

_EFFECTS = ["change_logit_diff", "change_probability", "change_accuracy", "normalized"]
_IOI = (
    Part("task", "ioi-logit-diff", "Logit difference and accuracy by template"),
    Part(
        "lens",
        "logit-lens",
        "What the model would answer if the residual stream ended at a layer",
        figures=(
            {
                "kind": "dots",
                "x": "layer",
                "values": ["mean_logit_diff", "mean_logprob", "share_ahead", "median_rank"],
                "series": ["place"],
            },
        ),
    ),
    Part(
        "interventions",
        "intervention-effect",
        "What interventions change in the answers",
        figures=(
            {
                "kind": "dots",
                "x": "layer",
                "values": _EFFECTS,
                "series": ["kind", "params", "split"],
            },
        ),
        where="expert is null",
    ),
    Part(
        "lens-effect",
        "lens-effect",
        "At which layer the change of an intervention shows",
        figures=(
            {
                "kind": "dots",
                "x": "read_layer",
                "values": ["change_logit_diff"],
                "series": ["kind", "layer", "params", "split", "place"],
            },
        ),
        where="expert is null",
    ),
    Part(
        "ablations",
        "expert-effect",
        "What taking an expert out changes, beside what it writes",
        figures=(
            {
                "kind": "heatmap",
                "x": "expert",
                "y": "layer",
                "values": ["change_logit_diff", "attribution"],
                "panel": "params",
                "told": ["frequency", "n_decisions", "n_prompts"],
                "link": "expert",
            },
        ),
    ),
    Part(
        "attribution",
        "expert-attribution",
        "Logit difference written by each expert",
        figures=(
            {
                "kind": "heatmap",
                "x": "expert",
                "y": "layer",
                "values": ["attribution", "attribution_per_use"],
                "told": ["attribution_low", "attribution_high", "n_decisions", "share"],
                "link": "expert",
            },
        ),
    ),
)
_IMAGES = (
    Part(
        "accuracy",
        "expert-accuracy",
        "Which classes each expert knows, when every image goes to it",
        figures=(
            {
                "kind": "heatmap",
                "x": "expert",
                "y": "value",
                "values": ["accuracy", "routed"],
                "told": ["learned", "n_images", "n_correct"],
                "link": "expert",
            },
        ),
    ),
)
_JOBS = {"qwen-ioi": _IOI, "cifar-moe": _IMAGES}


def answers(subject: Subject) -> Json:
    """The section on the model's answers; of texts there is none."""
    job = str(subject.run.row["job"])
    told: Json = {"id": "answers", "title": "The model's answers", "text": "", "parts": []}
    if job not in _JOBS:
        told["notes"] = [f"A run of the job {job} has no answers with a right one to compare with."]
        return told
    if job == "qwen-ioi":
        told["text"] = (
            "The logit difference is the logit of the indirect object less that of the subject, "
            "after the prompt's last token. Intervals are of 95 %, over prompts with their twins."
        )
    told["parts"] = [answered(subject, part) for part in _JOBS[job]]
    return told
