"""How a language model answers: an example's row of the table ``predictions``."""

from typing import Any

import torch

from moedb.capture.examples import Example


def answer(
    logits: torch.Tensor, example: Example, tokenizer: Any, condition_id: int = 0
) -> dict[str, Any]:
    """Hold a model's answer against the right one.

    Parameters
    ----------
    logits
        (vocabulary,): at the example's last token.
    example
        The example, which has a target.
    tokenizer
        The model's tokenizer.
    condition_id
        The condition that the model ran under.
    """
    target, foil = example.target_id, example.foil_id
    if target is None:
        raise ValueError("expected an example with a target")
    last = logits.float()
    predicted = int(last.argmax())
    return {
        "condition_id": condition_id,
        "target": tokenizer.decode([target]),
        "predicted": tokenizer.decode([predicted]),
        "correct": int(predicted == target),
        "target_logprob": float(last.log_softmax(dim=-1)[target]),
        "logit_diff": None if foil is None else float(last[target] - last[foil]),
    }
