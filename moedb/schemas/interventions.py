"""The words for interventions: their kinds, the forms of an ablation, the sites of a patch."""

ABLATE = "ablate-experts"
RANDOM = "random-routing"
UNIFORM = "uniform-weights"
FORCE = "force-experts"
SWAP = "swap-routing"
PATCH = "patch"
KNOCK_OUT = "knock-out-shared"

RANDOM_REWEIGHTED, REINITIALIZE = "random-routing-reweighted", "reinitialize-experts"
"""Conditions that captures of ``cifar-moe`` have besides."""

KINDS = (ABLATE, RANDOM, UNIFORM, FORCE, SWAP, PATCH, KNOCK_OUT)
"""What ``moedb intervene`` can change."""

REMOVE, ZERO = "remove", "zero"
FORMS = (REMOVE, ZERO)
"""Of an ablation: the next best experts take over, or nothing does."""

BLOCK, EXPERT, SHARED, ATTENTION, RESIDUAL = (
    "block-output",
    "expert-output",
    "shared-output",
    "attention-output",
    "residual",
)
SITES = (BLOCK, EXPERT, SHARED, ATTENTION, RESIDUAL)
"""What a patch replaces."""
