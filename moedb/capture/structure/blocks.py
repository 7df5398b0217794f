"""Finding a model's MoE blocks by their structure.

A block is a module that holds experts, in one of three forms:

``stacked``
    an experts module with stacked weights, run through transformers' experts interface;
``own``
    an experts module with a forward of its own, called with hidden states, indices and weights;
``list``
    an ``nn.ModuleList`` of experts which the block itself calls one by one, as quantized
    checkpoints come up;
``dense``
    no experts: the feed-forward layer of a dense model, see
    :mod:`moedb.capture.structure.dense_blocks`.

Nothing here runs the model, so it works on a model without weights too;
:mod:`moedb.capture.structure.probing.model_probe` then watches a small forward pass to learn the
rest.
"""

import inspect
import re
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from moedb.capture.structure.feed_forward import shared_width
from moedb.errors import ModelError

Form = Literal["stacked", "own", "list", "dense"]

_TOP_K = ("top_k", "num_experts_per_tok", "moe_top_k", "moe_topk", "top_k_experts", "moe_k")
_N_EXPERTS = ("total_experts", "num_experts", "num_local_experts", "n_routed_experts")
_D_EXPERT = ("intermediate_size", "intermediate_dim", "ffn_hidden_size", "ffn_dim")


@dataclass(frozen=True)
class MoEBlock:
    """One MoE block of a model.

    Attributes
    ----------
    layer
        Index of the decoder block that holds it.
    path, experts_path, decoder_path
        Where the block, its experts and the decoder block are in the model. A block has the path
        of its experts where they sit in the decoder block without a module around them.
    n_experts, top_k, d_expert
        Routed experts, experts chosen for each token, width of an expert's hidden layer.
    form
        How the experts are built.
    d_shared
        Width of the shared expert's hidden layer; 0 where there is none that shows it.
    """

    layer: int
    path: str
    experts_path: str
    decoder_path: str
    n_experts: int
    top_k: int
    d_expert: int
    form: Form = "stacked"
    d_shared: int = 0

    @property
    def scope(self) -> str:
        """Path of the module that holds the experts, and the router beside them."""
        return self.experts_path.rpartition(".")[0]


def find_blocks(model: nn.Module) -> list[MoEBlock]:
    """Find the MoE blocks of ``model``, in the order of their layers.

    Raises
    ------
    ModelError
        If there are none (a dense model), or one is not built as expected.
    """
    blocks = [_block(model, path, module, form) for path, module, form in experts_modules(model)]
    if not blocks:
        suspect = _suspect(model)
        raise ModelError(
            f"{type(model).__name__} has no MoE block that can be read: expected experts behind "
            "transformers' experts interface, experts called with (hidden states, indices, "
            "weights), or an nn.ModuleList of experts beside their router; "
            f"{suspect or 'found a dense model'}",
            "moedb captures Mixture-of-Experts models; leave --model out for qwen-moe-mini"
            if suspect
            else "--dense captures a dense model, each feed-forward layer as one expert that "
            "every token uses; leave --model out for qwen-moe-mini",
        )
    layers = [block.layer for block in blocks]
    if len(set(layers)) != len(layers):
        raise ModelError(f"several MoE blocks in one decoder block: layers {layers}")
    return sorted(blocks, key=lambda block: block.layer)


def experts_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module, Form]]:
    """The modules of ``model`` that hold experts, with their paths and forms."""
    for path, module in model.named_modules():
        form = _form(model, path, module)
        if form is not None:
            yield path, module, form


def _suspect(model: nn.Module) -> str:
    """The first module that looks like an MoE block by its name, for the message; else empty."""
    for path, module in model.named_modules():
        if re.search(r"MoE|Moe|Experts", type(module).__name__) and re.search(r"\.\d+\.", path):
            return f"{path} ({type(module).__name__}) is none of these"
    return ""


def _form(model: nn.Module, path: str, module: nn.Module) -> Form | None:
    down = getattr(module, "down_proj", None)
    if hasattr(module, "is_transposed") and isinstance(down, nn.Parameter) and down.dim() == 3:
        return "stacked"
    if _takes_a_routing(module) and _number(_attributes([module]), _N_EXPERTS):
        return "own"
    if type(module).forward is nn.ModuleList.forward and isinstance(module, nn.ModuleList):
        return "list" if _beside_a_router(model, path, module) else None
    return None


def _takes_a_routing(module: nn.Module) -> bool:
    """Whether forward takes hidden states, the chosen experts and their weights."""
    names = [*inspect.signature(type(module).forward).parameters][1:4]
    return (
        len(names) == 3
        and re.search(r"ind(ex|ices)|selected", names[1]) is not None
        and re.search(r"weight|score|prob", names[2]) is not None
    )


def _beside_a_router(model: nn.Module, path: str, experts: nn.ModuleList) -> bool:
    """Whether a sibling of the list scores exactly as many experts as the list has."""
    inside_a_layer = re.search(r"\.\d+\.", path) is not None
    if not inside_a_layer or len(experts) < 2 or len({type(expert) for expert in experts}) != 1:
        return False
    scope, _, name = path.rpartition(".")
    siblings = [m for n, m in model.get_submodule(scope).named_children() if n != name]
    return any(
        parameter.dim() == 2 and parameter.shape[0] == len(experts)
        for sibling in siblings
        for parameter in sibling.parameters()
    )


def _block(model: nn.Module, experts_path: str, experts: Any, form: Form) -> MoEBlock:
    path, _, _ = experts_path.rpartition(".")
    decoder = re.match(r"^(.*?\.(\d+))\.", experts_path)
    if not path or decoder is None:
        raise ModelError(f"{experts_path}: expected an experts module inside a numbered layer")
    if form == "stacked":
        n_experts, first, second = experts.down_proj.shape
        d_expert = first if experts.is_transposed else second
    elif form == "own":
        n_experts = _number(_attributes([experts]), _N_EXPERTS)
        d_expert = _number(_attributes(experts.modules()), _D_EXPERT) or 0
    else:
        n_experts, d_expert = len(experts), _hidden_width(experts[0])
    top_k = _number(_attributes(model.get_submodule(path).modules()), _TOP_K)
    top_k = top_k or _number(_attributes([model]), _TOP_K)
    if top_k is None:
        raise ModelError(f"{path}: cannot tell how many experts its router chooses")
    return MoEBlock(
        layer=int(decoder.group(2)),
        path=experts_path if path == decoder.group(1) else path,
        experts_path=experts_path,
        decoder_path=decoder.group(1),
        n_experts=n_experts,
        top_k=top_k,
        d_expert=d_expert,
        form=form,
        d_shared=shared_width(model, decoder.group(1)),
    )


def _attributes(modules: Iterable[nn.Module]) -> Iterator[Any]:
    """The modules themselves, then their configurations."""
    modules = list(modules)
    yield from modules
    for module in modules:
        config = getattr(module, "config", None)
        if config is not None:
            yield config
            if hasattr(config, "get_text_config"):
                yield config.get_text_config()


def _number(holders: Iterable[Any], names: tuple[str, ...]) -> int | None:
    """The first positive whole number that one of ``holders`` has under one of ``names``."""
    for holder in holders:
        for name in names:
            value = getattr(holder, name, None)
            if type(value) is int and value > 0:
                return value
    return None


def _hidden_width(expert: nn.Module) -> int:
    """The width of an expert's hidden layer: what its down projection reads."""
    linears: list[Any] = [m for m in expert.modules() if hasattr(m, "in_features")]
    for linear in linears:
        if linear.out_features == linears[0].in_features and linear is not linears[0]:
            return int(linear.in_features)
    return 0


Kind = Hashable
"""How a layer is built; equal where two are built alike, and so wired alike."""


def layer_kinds(layers: Sequence[nn.Module], neurons: Collection[int]) -> list[Kind]:
    """The kind of each layer.

    Parameters
    ----------
    layers
        The decoder layers, with or without weights.
    neurons
        The layers whose experts' hidden units will be tapped.
    """
    return [(_parts(layer), index in neurons) for index, layer in enumerate(layers)]


def _parts(layer: nn.Module) -> Kind:
    return tuple(
        (path, type(module), tuple((n, p.shape) for n, p in module.named_parameters(recurse=False)))
        for path, module in layer.named_modules()
    )


def n_first_layers(kinds: Sequence[Kind]) -> int:
    """The number of first layers among which there is one of every kind."""
    return 1 + max(kinds.index(kind) for kind in set(kinds))
