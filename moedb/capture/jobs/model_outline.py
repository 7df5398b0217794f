"""A language model as it is planned with: what is known of it before its weights are loaded."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from moedb.capture.models.checkpoints import Checkpoint
from moedb.capture.models.loading.pretrained import load_skeleton, load_tokenizer
from moedb.capture.models.loading.quantized import stays_quantized
from moedb.capture.models.placement import Placement
from moedb.capture.structure.blocks import Form, MoEBlock, find_blocks


@dataclass(frozen=True)
class ModelOutline:
    """What is known of a language model before its weights are loaded.

    Attributes
    ----------
    checkpoint
        Where it is.
    skeleton
        The model without weights.
    blocks
        Its MoE blocks, as the skeleton has them.
    is_live
        Whether the skeleton is the model itself, which is loaded already.
    """

    checkpoint: Checkpoint
    skeleton: Any
    blocks: tuple[MoEBlock, ...]
    is_live: bool = False

    @property
    def placed(self) -> tuple[str, str]:
        """The number format and the device that a loaded model is in and on."""
        return str(self.skeleton.dtype).removeprefix("torch."), str(self.skeleton.device)

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "ModelOutline":
        """Build a checkpoint's model without weights, and find its MoE blocks.

        Raises
        ------
        ModelError
            If it is none that transformers knows, or has no MoE block that can be captured.
        """
        skeleton = load_skeleton(checkpoint)
        return cls(checkpoint, skeleton, tuple(find_blocks(skeleton)))

    @cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer, loaded when it is first asked for."""
        return load_tokenizer(self.checkpoint)

    @property
    def n_layers(self) -> int:
        """Its decoder layers, those without an MoE block included."""
        return len(self.skeleton.get_submodule(self.blocks[0].decoder_path.rpartition(".")[0]))

    def forms(self, placement: Placement) -> dict[int, Form]:
        """For each MoE layer the form that its experts will have once they are opened."""
        quantized = stays_quantized(self.checkpoint, placement)
        return {block.layer: "list" if quantized else block.form for block in self.blocks}
