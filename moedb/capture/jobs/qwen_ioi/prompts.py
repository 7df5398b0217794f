"""Prompts for a tokenizer: drawn, beside their corrupted twins, and the role of each token."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from moedb.capture.jobs.qwen_ioi.drawing import Draw, Order, PairFilter, Span
from moedb.capture.jobs.qwen_ioi.templates import IOITemplates
from moedb.errors import DatasetError, UsageError

logger = logging.getLogger(__name__)

Role = Literal["io", "s1", "s2", "end", "other"]


@dataclass(frozen=True)
class IOIPrompt:
    """One prompt, without its answer.

    Attributes
    ----------
    example_id : int
        Position in the list it was generated into.
    twin_of : int or None
        For a corrupted twin, the example_id of the prompt it was made from.
    text : str
        The prompt; the answer is ``" " + io``.
    io, s : str
        The indirect object (the right answer) and the subject (the wrong one). A twin keeps both.
    template : int
        Index of the template.
    order : {"BABA", "ABBA"}
        Whether S (BABA) or IO (ABBA) is named first.
    place, object : str or None
        None when the template has no such slot.
    io_token_id, s_token_id : int
        Token of ``" " + io`` and of ``" " + s``.
    io_span, s1_span, s2_span : (int, int)
        Characters ``text[start:stop]`` of the two first mentions and of the last name.
    third_name : str or None
        In a twin, the name that stands where S stood the second time.
    """

    example_id: int
    twin_of: int | None
    text: str
    io: str
    s: str
    template: int
    order: Order
    place: str | None
    object: str | None
    io_token_id: int
    s_token_id: int
    io_span: Span
    s1_span: Span
    s2_span: Span
    third_name: str | None = None


@dataclass(frozen=True)
class IOIPrompts:
    """Generated prompts and what had to be left out.

    Attributes
    ----------
    prompts : tuple of IOIPrompt
        With twins: prompt, its twin, prompt, its twin, and so on.
    names : tuple of str
        The names drawn from.
    dropped_names : tuple of str
        Names that are not one token of their own in the tokenizer, and were left out.
    """

    prompts: tuple[IOIPrompt, ...]
    names: tuple[str, ...]
    dropped_names: tuple[str, ...]

    @property
    def pairs(self) -> list[tuple[IOIPrompt, IOIPrompt]]:
        """Each prompt beside its twin; empty where twins were not asked for."""
        by_id = {prompt.example_id: prompt for prompt in self.prompts}
        return [(by_id[p.twin_of], p) for p in self.prompts if p.twin_of is not None]


def single_token_names(names: Sequence[str], tokenizer: Any) -> tuple[dict[str, int], list[str]]:
    """Sort names by whether ``" " + name`` is one token that no other name shares.

    Parameters
    ----------
    names : sequence of str
        First names.
    tokenizer : transformers tokenizer
        Called with ``add_special_tokens=False``.

    Returns
    -------
    token_ids : dict of str to int
        The usable names and their tokens, in the order given.
    dropped : list of str
        The other names.
    """
    unknown_id = getattr(tokenizer, "unk_token_id", None)
    token_ids: dict[str, int] = {}
    dropped: list[str] = []
    taken: set[int] = set()
    encoded = tokenizer([" " + name for name in names], add_special_tokens=False)["input_ids"]
    for name, ids in zip(names, encoded, strict=True):
        if len(ids) == 1 and ids[0] != unknown_id and ids[0] not in taken:
            token_ids[name] = int(ids[0])
            taken.add(ids[0])
        else:
            dropped.append(name)
    return token_ids, dropped


def generate_prompts(
    templates: IOITemplates,
    tokenizer: Any,
    n: int,
    *,
    seed: int = 0,
    twins: bool = False,
    pair_filter: PairFilter | None = None,
) -> IOIPrompts:
    """Draw prompts, as evenly as n allows over the templates and the two orders.

    The same seed gives the same prompts, and a shorter list is the beginning of a longer one
    (with the same names usable). Asking for twins changes no prompt.

    Parameters
    ----------
    templates : IOITemplates
        The material.
    tokenizer : transformers tokenizer
        Names that are not one token in it are left out, and the log says which.
    n : int
        Number of prompts, twins not counted.
    seed : int
        Seed of every draw.
    twins : bool
        Follow each prompt by its corrupted twin (see `corrupted_twin`); example_id then counts
        both, so prompt i has the id 2 i and its twin 2 i + 1.
    pair_filter : callable, optional
        Takes two names and says whether they may meet in a prompt.

    Returns
    -------
    IOIPrompts

    Raises
    ------
    UsageError
        When n is below 1.
    DatasetError
        When too few names are left.
    """
    if n < 1:
        raise UsageError(f"{n} IOI prompts asked for; valid: 1 or more")
    token_ids, dropped = single_token_names(templates.names, tokenizer)
    if dropped:
        logger.warning(
            "%d of %d names are not one token in this tokenizer and were left out: %s",
            len(dropped),
            len(templates.names),
            ", ".join(dropped[:10]) + (", ..." if len(dropped) > 10 else ""),
        )
    names = tuple(token_ids)
    needed = 3 if twins else 2
    if len(names) < needed:
        raise DatasetError(
            f"{len(names)} of {len(templates.names)} names are one token in this tokenizer; "
            f"IOI prompts {'with twins ' if twins else ''}need {needed}. Give a template file with "
            "more common names, or another tokenizer"
        )
    draw = Draw(templates, names, seed, pair_filter)
    prompts: list[IOIPrompt] = []
    for index in range(n):
        filled = draw(index)
        prompt = IOIPrompt(
            example_id=len(prompts),
            twin_of=None,
            io_token_id=token_ids[filled.io],
            s_token_id=token_ids[filled.s],
            **vars(filled),
        )
        prompts.append(prompt)
        if twins:
            third = draw.third_name(index, filled)
            prompts.append(corrupted_twin(prompt, third, example_id=len(prompts)))
    return IOIPrompts(tuple(prompts), names, tuple(dropped))


def corrupted_twin(prompt: IOIPrompt, third_name: str, *, example_id: int) -> IOIPrompt:
    """Replace the second mention of S by a third name, so that no name repeats.

    The twin keeps io, s and their tokens: both are still the answers that are compared, and
    neither is right any more.

    Parameters
    ----------
    prompt : IOIPrompt
        The prompt to corrupt.
    third_name : str
        The name to write instead.
    example_id : int
        The twin's own id.

    Returns
    -------
    IOIPrompt

    Raises
    ------
    UsageError
        When the third name is one of the two others, or the prompt is a twin itself.
    """
    if prompt.twin_of is not None:
        raise UsageError(f"example {prompt.example_id} is a twin itself; corrupt its original")
    if not third_name or third_name in (prompt.io, prompt.s):
        raise UsageError(
            f"third name {third_name!r}: a twin of a prompt with {prompt.io} and {prompt.s} needs "
            "a name other than these"
        )
    start, stop = prompt.s2_span
    fields = dict(vars(prompt))
    fields.update(
        example_id=example_id,
        twin_of=prompt.example_id,
        text=prompt.text[:start] + third_name + prompt.text[stop:],
        s2_span=(start, start + len(third_name)),
        third_name=third_name,
    )
    return IOIPrompt(**fields)


def token_roles(prompt: IOIPrompt, offsets: Sequence[Span]) -> list[Role]:
    """Name the role of every token of a prompt.

    Parameters
    ----------
    prompt : IOIPrompt
        The prompt that was tokenized.
    offsets : sequence of (int, int)
        Characters of each token in ``prompt.text``, as a fast tokenizer's ``offset_mapping``
        gives them. Empty ones (special tokens, padding) have the role other.

    Returns
    -------
    list of {"io", "s1", "s2", "end", "other"}
        io, s1 and s2 for every token that overlaps the name (in a twin, s2 is the third name),
        end for the last token of the text.
    """
    spans: tuple[tuple[Role, Span], ...] = (
        ("io", prompt.io_span),
        ("s1", prompt.s1_span),
        ("s2", prompt.s2_span),
    )
    roles: list[Role] = []
    last = None
    for index, (start, stop) in enumerate(offsets):
        role: Role = "other"
        if stop > start:
            last = index
            role = next((r for r, (lo, hi) in spans if start < hi and lo < stop), "other")
        roles.append(role)
    if last is not None:
        roles[last] = "end"
    return roles
