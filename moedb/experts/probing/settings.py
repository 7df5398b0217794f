"""What is asked of a probing, and which of it makes its scores what they are."""

import json
from dataclasses import dataclass, field
from typing import Literal, get_args

from moedb.errors import UsageError, did_you_mean
from moedb.schemas.additions import Addition

KIND = "probe"
"""The kind of additions that are probes."""

Protocol = Literal["documents", "herbst2026"]

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
NEURONS = ("expert_neurons", "shared_neurons")
SIZES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class ProbeSettings:
    """What is asked of a probing.

    Attributes
    ----------
    run
        The run, or an unambiguous beginning of its name.
    concepts
        ``KEY``, for every value of a label of tokens, or ``KEY=VALUE``; ``*`` in a key is any text.
    sizes
        How many neurons a probe has, each k a probe of its own; more than there are is left out.
    array
        The neurons.
    groups
        Where a layer has one candidate only, divide its neurons at random into as many.
    width
        Neurons of such a group; by default all are divided.
    tokens_of
        A run of the same tokens. Each of its experts has a candidate then, a group that sees the
        tokens which chose the expert.
    protocols
        How probes are split, chosen and scored.
    permutations
        How often all is done with shuffled labels.
    min_tokens
        A candidate with fewer tokens of the concept, or of none, is passed over.
    max_tokens
        Tokens of each kind that a probe is fitted on, at most.
    resamples
        Bootstrap samples of the documents, for the intervals.
    cluster
        The label of examples that tells documents; by default as capture says.
    seed
        Seed of what is drawn.
    layers
        The layers; empty for all that the array is kept of.
    name
        What the probes are called together.
    """

    run: str
    concepts: tuple[str, ...]
    sizes: tuple[int, ...] = SIZES
    array: str = "expert_neurons"
    groups: int = 0
    width: int | None = None
    protocols: tuple[Protocol, ...] = PROTOCOLS
    permutations: int = 1
    min_tokens: int = 50
    max_tokens: int = 2500
    resamples: int = 200
    cluster: str | None = None
    seed: int = 0
    layers: tuple[int, ...] = field(default=())
    name: str = "probe"
    tokens_of: str | None = None

    def __post_init__(self) -> None:
        if not self.concepts:
            raise UsageError("what shall be probed for?", "moedb probe RUN --key upos")
        if self.array not in NEURONS:
            raise UsageError(
                f"no neurons named {self.array!r}; {did_you_mean(self.array, NEURONS)}"
            )
        for protocol in self.protocols:
            if protocol not in PROTOCOLS:
                raise UsageError(f"no protocol {protocol!r}; {did_you_mean(protocol, PROTOCOLS)}")
        least = {"min_tokens": 2, "max_tokens": 2, "groups": 0, "permutations": 0, "resamples": 0}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise UsageError(f"{name} is {getattr(self, name)}; it is {smallest} or more")
        if not self.sizes or min(self.sizes) < 1:
            raise UsageError(f"k is {min(self.sizes, default=0)}; a probe has a neuron or more")
        if self.width is not None and not (self.groups and self.width >= 1):
            raise UsageError(f"width is {self.width}: 1 or more, and only with groups")
        if self.tokens_of is not None and not self.groups:
            raise UsageError("without groups there is nothing that could see others' tokens")

    @property
    def addition(self) -> Addition:
        """What the scores become; layers and concepts can be added to it later."""
        content = {
            name: getattr(self, name)
            for name in (
                "array",
                "groups",
                "width",
                "permutations",
                "min_tokens",
                "max_tokens",
                "resamples",
                "cluster",
                "seed",
            )
        }
        content |= {"protocols": sorted(self.protocols), "sizes": sorted(set(self.sizes))}
        if self.tokens_of is not None:
            content["tokens_of"] = self.tokens_of
        return Addition(self.name, KIND, json.dumps(content, sort_keys=True))
