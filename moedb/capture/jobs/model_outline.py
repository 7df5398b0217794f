"""A language model as it is planned with: what is known of it before its weights are loaded."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from moedb.capture.models.checkpoints import Checkpoint
from moedb.capture.models.loading.pretrained import load_skeleton, load_tokenizer
from moedb.capture.models.loading.quantized import stays_quantized
from moedb.capture.models.placement import Placement
from moedb.capture.structure.blocks import Form, MoEBlock
from moedb.capture.structure.dense_blocks import find_layers


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
    is_dense
        Whether the blocks are the feed-forward layers of a dense model.
    """

    checkpoint: Checkpoint
    skeleton: Any
    blocks: tuple[MoEBlock, ...]
    is_live: bool = False
    is_dense: bool = False

    @property
    def placed(self) -> tuple[str, str]:
        """The number format and the device that a loaded model is in and on."""
        return str(self.skeleton.dtype).removeprefix("torch."), str(self.skeleton.device)

    @classmethod
    def of(cls, checkpoint: Checkpoint, *, dense: bool = False) -> "ModelOutline":
        """Build a checkpoint's model without weights, and find its blocks.

        Parameters
        ----------
        checkpoint
            Where it is.
        dense
            Whether it is a dense model, whose feed-forward layers are the blocks.

        Raises
        ------
        ModelError
            If it is none that transformers knows, or has no block that can be captured.
        """
        skeleton = load_skeleton(checkpoint)
        blocks = tuple(find_layers(skeleton, dense=dense))
        return cls(checkpoint, skeleton, blocks, is_dense=dense)

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
        quantized = not self.is_dense and stays_quantized(self.checkpoint, placement)
        return {block.layer: "list" if quantized else block.form for block in self.blocks}
