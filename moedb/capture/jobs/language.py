"""Capturing a transformers causal language model over tokenized texts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from moedb.capture.examples import Dataset, Example
from moedb.capture.jobs.model_outline import ModelOutline
from moedb.capture.jobs.similarity.layers import expert_similarity
from moedb.capture.jobs.unembedding import KeptUnembedding, kept_unembedding
from moedb.capture.models.checkpoints import Checkpoint, find_checkpoint
from moedb.capture.models.device import chosen_device, use_large_pages
from moedb.capture.models.loading.pretrained import default_dtype
from moedb.capture.models.opening import opened_model
from moedb.capture.models.placement import Placement
from moedb.capture.pipeline.plan import Batch, CaptureOptions, CapturePlan, complete_plan
from moedb.capture.pipeline.sizes import ModelShape
from moedb.capture.pipeline.survey.tokens import TokenSelection
from moedb.capture.structure.blocks import MoEBlock
from moedb.capture.structure.dense_blocks import find_layers
from moedb.capture.structure.wiring import BlockWiring
from moedb.capture.tracing.batch_records import BatchReader, BatchRecords, to_numpy
from moedb.capture.tracing.logit_lens import LensReading, LogitLens, Positions, n_lens_tokens
from moedb.capture.tracing.model_end import BatchLogits
from moedb.capture.tracing.rehearsal import traced
from moedb.capture.tracing.traced_model import TracedModel
from moedb.errors import ModelError, UsageError
from moedb.schemas.arrays import ARRAY_NAMES, FINAL_NORM, IMAGES, UNEMBEDDING
from moedb.store.writing.tables.parquet import Columns

MakeDataset = Callable[[Any], Dataset]
"""Makes a job's dataset with the model's tokenizer."""


def plan_language_capture(
    options: CaptureOptions,
    make_dataset: MakeDataset,
    lens: Positions = "none",
    outline: ModelOutline | None = None,
    *,
    dense: bool = False,
) -> CapturePlan:
    """Resolve every choice of a capture, without loading weights.

    Parameters
    ----------
    options
        What the user chose.
    make_dataset
        Makes the examples.
    lens
        The tokens whose residual stream is read through the logit lens, of examples that have a
        target and a foil.
    outline
        The model, where it is not to be found by its name in ``options``.
    dense
        Whether it is a dense model, each feed-forward layer of which is a layer with one expert.

    Raises
    ------
    ModelError, UsageError
        If the model is none that can be captured, or an option does not fit it.
    """
    use_large_pages()
    TokenSelection.parse(options.tokens, options.per_value)
    if outline is not None and outline.is_live:
        model = outline
        _check_unplaced(options)
        dtype, device = model.placed
    else:
        device = chosen_device(options.device)
        model = outline or ModelOutline.of(find_checkpoint(options.model), dense=dense)
        dtype = options.dtype or default_dtype(model.checkpoint, device)
    embeddings = model.skeleton.get_input_embeddings()
    dataset = make_dataset(model.tokenizer)
    _check_vocabulary(dataset, embeddings.num_embeddings, model.checkpoint)
    absent = {IMAGES, "all_expert_outputs"}
    if lens == "none":
        absent.add("logit_direction")
    if not all(_has_shared_expert(model.skeleton, block) for block in model.blocks):
        absent.add("shared_outputs")
    if not all(block.d_shared for block in model.blocks):
        absent.add("shared_neurons")
    if model.is_dense:
        absent.add("router_logits")
    n_vocabulary = _n_vocabulary(model.skeleton)
    if not n_vocabulary:
        absent |= {UNEMBEDDING, FINAL_NORM}
    placement = Placement(dtype, device, options.max_bytes, options.device_map)
    if not set(model.forms(placement).values()) <= {"stacked", "dense"}:
        absent.add("expert_neurons")
    shape = ModelShape(
        blocks=model.blocks,
        n_layers=model.n_layers,
        d_model=embeddings.embedding_dim,
        itemsize=2 if dtype == "float16" else 4,
        arrays=tuple(name for name in ARRAY_NAMES if name not in absent),
        n_vocabulary=n_vocabulary,
    )
    return complete_plan(
        options,
        model.checkpoint,
        dataset,
        shape,
        dtype=dtype,
        device=device,
        open_model=partial(open_language_model, model, placement, positions=lens),
        settings={
            **({} if lens == "none" else {"lens": lens}),
            **({"dense": True} if model.is_dense else {}),
        },
        n_lens_tokens=n_lens_tokens(dataset.examples, lens),
    )


def _check_unplaced(options: CaptureOptions) -> None:
    """Refuse to say of a model that is loaded what it runs in or on."""
    placing = ("dtype", "device", "device_map", "max_bytes")
    given = [name for name in placing if getattr(options, name) is not None]
    if given:
        raise UsageError(
            f"{', '.join(given)}: a model that is loaded runs as it is, and where it is",
            "leave that out, or move the model first: model.to(...)",
        )


def _has_shared_expert(skeleton: Any, block: MoEBlock) -> bool:
    """Guess from names, as nothing has run yet; opening the model checks the guess."""
    layer = skeleton.get_submodule(block.decoder_path)
    return any("shared" in path for path, _ in layer.named_modules())


def _n_vocabulary(skeleton: Any) -> int:
    """Rows of the unembedding; 0 where there is none."""
    weight = getattr(skeleton.get_output_embeddings(), "weight", None)
    return 0 if weight is None else len(weight)


def _check_vocabulary(dataset: Dataset, n_vocabulary: int, checkpoint: Checkpoint) -> None:
    ids = (token for example in dataset.examples for token in example.token_ids)
    largest = max((token for token in ids if token is not None), default=-1)
    if largest >= n_vocabulary:
        raise UsageError(
            f"the tokenizer of {checkpoint.name} gives token {largest}, "
            f"but the model's vocabulary has {n_vocabulary}"
        )


@contextmanager
def open_language_model(
    outline: ModelOutline,
    placement: Placement,
    arrays: Mapping[str, tuple[int, ...]],
    *,
    positions: Positions = "none",
) -> Iterator["LanguageModel"]:
    """Load a model and make it ready to be traced.

    Parameters
    ----------
    outline
        The model, as it was planned with.
    placement
        What it runs in, and where its weights go.
    arrays
        For each array name the layers that will be kept of it.
    positions
        The tokens whose residual stream is read through the logit lens.

    Raises
    ------
    ModelError
        If it cannot be loaded or read, or lacks what the arrays hold.
    """
    with ExitStack() as stack:
        if outline.is_live:
            model = outline.skeleton
        else:
            model = stack.enter_context(opened_model(outline.checkpoint, placement))
        # Quantized experts come up in another form than the skeleton's.
        loaded = find_layers(model, dense=outline.is_dense)
        _check_sizes(outline, loaded)
        shared_layers = arrays.get("shared_neurons", ())
        traced_model = stack.enter_context(
            traced(model, loaded, arrays.get("expert_neurons", ()), shared_layers)
        )
        _check_shared_experts(traced_model.wiring.blocks, arrays.get("shared_outputs", ()))
        _check_shared_neurons(outline, traced_model.wiring.blocks, shared_layers)
        lens = None
        if positions != "none":
            lens = LogitLens(model, traced_model.wiring, traced_model.rehearsed)
        kept = None
        if UNEMBEDDING in arrays:
            kept = kept_unembedding(traced_model, outline.tokenizer)
        yield LanguageModel(traced_model, outline.tokenizer, lens, positions, kept)


def _check_sizes(outline: ModelOutline, loaded: Sequence[MoEBlock]) -> None:
    def sizes(blocks: Sequence[MoEBlock]) -> list[tuple[int, int, int]]:
        return [(block.layer, block.n_experts, block.top_k) for block in blocks]

    if sizes(loaded) != sizes(outline.blocks):
        name = outline.checkpoint.name
        raise ModelError(f"{name}: its MoE blocks are not those of its configuration")


def _check_shared_experts(wirings: Sequence[BlockWiring], wanted: Sequence[int]) -> None:
    for wiring in wirings:
        if wiring.block.layer in wanted and not wiring.has_shared_expert:
            raise ModelError(
                f"{wiring.block.path}: expected a shared expert, found none",
                "leave shared_outputs out: name the others with --arrays",
            )


def _check_shared_neurons(
    outline: ModelOutline, wirings: Sequence[BlockWiring], wanted: Sequence[int]
) -> None:
    """Hold the width that the arrays were made for against what ran."""
    expected = {block.layer: block.d_shared for block in outline.blocks}
    for wiring in wirings:
        layer = wiring.block.layer
        if layer in wanted and wiring.d_shared != expected[layer]:
            found = f"of {wiring.d_shared}" if wiring.d_shared else "that can be read"
            raise ModelError(
                f"{wiring.block.path}: expected a shared expert with a hidden layer of "
                f"{expected[layer]} units, found none {found}",
                "leave shared_neurons out: name the others with --arrays",
            )


class LanguageModel:
    """A traced language model, as the pipeline runs it.

    Attributes
    ----------
    traced
        The model.
    lens
        Its logit lens; None without one.
    kept
        What the run keeps of it as a whole; None where it keeps nothing.
    """

    def __init__(
        self,
        model: TracedModel,
        tokenizer: Any,
        lens: LogitLens | None = None,
        positions: Positions = "none",
        kept: KeptUnembedding | None = None,
    ) -> None:
        self.kept = kept
        self.traced = model
        self._tokenizer = tokenizer
        self.lens = lens
        self._positions = positions

    @property
    def blocks(self) -> tuple[BlockWiring, ...]:
        """Its MoE blocks."""
        return self.traced.wiring.blocks

    def expert_similarity(self, *, neurons: bool) -> dict[str, Columns]:
        """Compare the weights of every two experts of a layer."""
        return expert_similarity(self.traced.model, self.traced.wiring, neurons=neurons)

    def record(self, batch: Batch) -> BatchRecords:
        """Run a batch, check it, and reduce it to what is stored.

        Raises
        ------
        CheckError
            If the batch contradicts the model's own arithmetic.
        """
        examples = batch.examples
        reading = None
        if self.lens is not None:
            reading = LensReading(self.lens, examples, self._tokenizer, self._positions)
        lengths = [len(example) for example in examples]
        reader = BatchReader(self.blocks, lengths, batch.kept, batch.arrays, reading)
        logits = self.traced.read([token_ids(example) for example in examples], reader)
        lens = reader.read_lens()
        next_logprobs, last = _read_off(logits, examples)
        return BatchRecords(
            examples=batch.indices,
            layers=reader.layers,
            next_logprobs=next_logprobs,
            predictions=_predictions(last, examples, self._tokenizer),
            arrays=reader.arrays,
            lens=lens,
        )


def token_ids(example: Example) -> list[int]:
    """The example's token ids; a text has one for every token."""
    return [token_id for token_id in example.token_ids if token_id is not None]


def _read_off(
    logits: BatchLogits, examples: Sequence[Example]
) -> tuple[NDArray[Any], dict[int, torch.Tensor]]:
    """Each token's log-probability of the next, and the last logits of examples with a target."""
    following = torch.cat([torch.tensor([*token_ids(example)[1:], 0]) for example in examples])
    ends = np.cumsum([len(example) for example in examples])
    found = np.empty(logits.n_tokens, dtype=np.float32)
    last = {}
    for rows, piece in logits.pieces():
        values = piece.float()
        chosen = following[rows].to(values.device).unsqueeze(-1)
        found[rows] = to_numpy(values.log_softmax(dim=-1).gather(-1, chosen).squeeze(-1))
        for index in np.flatnonzero((ends > rows.start) & (ends <= rows.stop)).tolist():
            if examples[index].target_id is not None:
                last[index] = piece[ends[index] - 1 - rows.start].clone()
    found[ends - 1] = np.nan
    return found, last


def _predictions(
    last: Mapping[int, torch.Tensor], examples: Sequence[Example], tokenizer: Any
) -> tuple[tuple[dict[str, Any], ...], ...]:
    return tuple(
        (answer(last[index], example, tokenizer),) if index in last else ()
        for index, example in enumerate(examples)
    )


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
