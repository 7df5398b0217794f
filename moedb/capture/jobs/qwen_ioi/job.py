"""The job ``qwen-ioi``: indirect object identification prompts through a language model."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from moedb.capture.examples import Dataset, Example
from moedb.capture.jobs.language import plan_language_capture
from moedb.capture.jobs.model_outline import ModelOutline
from moedb.capture.jobs.qwen_ioi import IOIPrompt, generate_prompts, load_ioi_templates, token_roles
from moedb.capture.pipeline.plan import CaptureOptions, CapturePlan
from moedb.capture.tracing.logit_lens import Positions
from moedb.store.files import sha256_of_file

JOB = "qwen-ioi"
CLEAN, CORRUPTED = "clean", "corrupted"


def plan_qwen_ioi(
    options: CaptureOptions,
    *,
    n: int,
    seed: int,
    templates: Path | None = None,
    twins: bool = True,
    lens: Positions = "last",
    outline: ModelOutline | None = None,
    dense: bool = False,
) -> CapturePlan:
    """Plan the capture of a language model over IOI prompts.

    Parameters
    ----------
    options
        What the user chose.
    n, seed, templates, twins
        As :func:`ioi_dataset` takes them.
    lens
        The tokens whose residual stream is read through the logit lens.
    outline
        The model, where it is not to be found by its name.
    dense
        Whether it is a dense model.

    Raises
    ------
    DatasetError, ModelError, UsageError
        As `ioi_dataset` and `plan_language_capture` do.
    """
    make = partial(ioi_dataset, n=n, seed=seed, templates=templates, twins=twins)
    return plan_language_capture(replace(options, seed=seed), make, lens, outline, dense=dense)


def ioi_dataset(
    tokenizer: Any, *, n: int, seed: int, templates: Path | None = None, twins: bool = True
) -> Dataset:
    """Draw prompts and label them.

    Parameters
    ----------
    tokenizer
        The model's tokenizer.
    n
        Number of prompts, twins not counted.
    seed
        Seed of the draw.
    templates
        A file of templates and words; None for those that moedb carries.
    twins
        Follow each prompt by its corrupted twin.

    Raises
    ------
    DatasetError, UsageError
        If the file is malformed, too few names are one token, or n is below 1.
    """
    material = load_ioi_templates(templates)
    drawn = generate_prompts(material, tokenizer, n, seed=seed, twins=twins)
    twin_ids = {prompt.example_id: twin.example_id for prompt, twin in drawn.pairs}
    name = "moedb's IOI templates" if templates is None else f"IOI templates of {templates.name}"
    config = {
        "n": n,
        "seed": seed,
        "twins": twins,
        "templates_sha256": None if templates is None else sha256_of_file(templates),
    }
    examples = tuple(
        _example(prompt, tokenizer, twin_ids.get(prompt.example_id)) for prompt in drawn.prompts
    )
    return Dataset(JOB, name, config, examples)


def _example(prompt: IOIPrompt, tokenizer: Any, twin_id: int | None) -> Example:
    encoded = tokenizer(prompt.text, add_special_tokens=False, return_offsets_mapping=True)
    token_ids = tuple(encoded["input_ids"])
    labels = {
        "template": str(prompt.template),
        "order": prompt.order,
        "io": prompt.io,
        "s": prompt.s,
    }
    optional = {
        "place": prompt.place,
        "object": prompt.object,
        "third_name": prompt.third_name,
        "twin_of": prompt.twin_of,
        "twin": twin_id,
    }
    labels |= {key: str(value) for key, value in optional.items() if value is not None}
    return Example(
        split=CLEAN if prompt.twin_of is None else CORRUPTED,
        text=prompt.text,
        token_ids=token_ids,
        tokens=tuple(tokenizer.decode([token]) for token in token_ids),
        labels=labels,
        token_labels={"role": tuple(token_roles(prompt, encoded["offset_mapping"]))},
        target_id=prompt.io_token_id,
        foil_id=prompt.s_token_id,
    )
