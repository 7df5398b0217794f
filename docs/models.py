"""Write docs/models.md: the model families that moedb was tried with. Run it from anywhere."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from moedb.capture.structure.blocks import find_blocks  # noqa: E402
from moedb.capture.tracing.rehearsal import traced  # noqa: E402
from moedb.errors import ModelError  # noqa: E402
from tests.support.models.tiny_models import FAMILIES, REFUSED, described, tiny_model  # noqa: E402

HEAD = """\
# Models

Made by `python docs/models.py` from the tiny random models of
`tests/support/models/tiny_models.py`; do not edit.

moedb knows no model by its name. It finds MoE blocks by their structure, runs a few tokens, and
learns which values are the router's logits, the weights, the experts' outputs and the shared
expert's. Before anything is stored the parts must add up to the block's output, the weights
must follow from the logits, and the logits must be those of a plain forward pass; else the
model is refused. So a family that is not listed here is captured too if it is built like one
that is.

- **scoring**: `softmax` or `sigmoid` of the logits; `other` where the weights follow from
  neither, and are stored as the router gives them. **normalized**: whether the chosen weights
  are divided by their sum (a softmax over the chosen experts alone is the same thing).
  **scale**: a constant factor on every weight, in the router or after the experts; stored
  weights include it. All three depend on the configuration.
- **shared**: whether a shared expert runs for every token, and whether a gate scales it. Where
  it is beside the block, what is called the block's output includes it.
- **experts**: `stacked` run through transformers' experts interface, bit for bit as its
  `grouped_mm` does; `own` have a forward of their own and give values that agree to rounding; a
  `list` of expert modules, as GPTQ's checkpoints come up on a GPU, is captured as well.
- **MoE layers**: of the tiny model.

Checkpoints that GPTQ quantized to 2, 4 or 8 bits (`gptq` and `gptq_v2`, with or without act-order)
run on a CPU, or with `--max-memory`, with their weights dequantized layer by layer as they are
read: exactly in float32, rounded once in bfloat16 and float16. The experts are then stacked, and
nothing more is to be installed. On a GPU gptqmodel keeps the weights as they are (`pip install -e
'.[gptq]'`).

A dense model is captured with `--dense`: of each decoder block the module that has a down
projection, one or two linear layers before it and nothing else that multiplies, and is called
with hidden states alone. What it writes must be what the down projection writes. Llama, Qwen2 and
GPT-2 are held against plain hooks bit for bit by the tests. Refused are models whose feed-forward
layer is no module of its own, such as OPT, and models with experts: the layers without experts
that some of these have (DeepSeek's first) are never captured. The tables call such a layer's
scoring `none`: no router runs, the one expert's weight is 1, the router's entropy and log-sum-exp
0, margin and mass 1, and there are no `router_logits`.

`shared_neurons` are there where a layer has one shared expert that is such a feed-forward layer.

Where attention and the MoE block read the same normalized stream, `residual_mid` is the stream
before both.

## Captured

| family | class | scoring | normalized | scale | shared | experts | MoE layers |
|---|---|---|---|---|---|---|---|
"""

REFUSALS = """
## Refused

Nothing is stored of these; the message says what was expected. Settings are those that make the
family unfit, where another setting is captured.

| family | settings | message |
|---|---|---|
"""


def refusal(name: str) -> str:
    """What moedb says of a model that it does not fit."""
    model = tiny_model(name, REFUSED[name][0])
    try:
        with traced(model, find_blocks(model)):
            raise SystemExit(f"{name} is captured; it should be refused")
    except ModelError as error:
        return str(error).splitlines()[0]


def page() -> str:
    """The whole page."""
    text = HEAD
    for name, family in FAMILIES.items():
        model = tiny_model(name, family.settings)
        with traced(model, find_blocks(model)) as wrapped:
            text += described(name, model, wrapped.wiring) + "\n"
    text += REFUSALS
    for name, (settings, _) in REFUSED.items():
        shown = ", ".join(f"{key}={value}" for key, value in settings.items())
        text += f"| `{name}` | {shown if name in FAMILIES else ''} | {refusal(name)} |\n"
    return text


if __name__ == "__main__":
    (ROOT / "docs" / "models.md").write_text(page())
