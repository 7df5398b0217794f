"""Prompts of the indirect object identification task (IOI) of Wang et al. 2022.

A prompt names two people and then one of them again: "..., Anna met Paul outside the cafe, so
Anna lent a scarf to" is continued by " Paul". The indirect object (IO) is the answer, the subject
(S) is the name that stands twice. A file of templates holds the sentences in their BABA form, in
which S comes first; the ABBA form swaps the first mention of the two names.

This module knows tokenizers by their call interface alone and imports no tensor library.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from moedb.errors import DatasetError, UsageError

logger = logging.getLogger(__name__)

Order = Literal["BABA", "ABBA"]
Role = Literal["io", "s1", "s2", "end", "other"]
Span = tuple[int, int]
PairFilter = Callable[[str, str], bool]

ORDERS: tuple[Order, ...] = ("BABA", "ABBA")
SLOTS = ("[A]", "[B]", "[PLACE]", "[OBJECT]")
_SLOT = re.compile(r"\[[^\[\]]*\]")
_SHAPE = "a JSON object with the keys source, templates_baba, names, places and objects"


@dataclass(frozen=True)
class IOITemplates:
    """The material prompts are made of, checked when it is built.

    Parameters
    ----------
    source : str
        Where the sentences come from.
    templates_baba : tuple of str
        Sentences with the slots ``[A]`` (IO), ``[B]`` (S), ``[PLACE]`` and ``[OBJECT]``. The names
        stand in the order B, A, B, A, each after a space, and the last ``[A]`` ends the sentence.
    names, places, objects : tuple of str
        What the slots are filled with.

    Raises
    ------
    DatasetError
        When a template or a list cannot make prompts.
    """

    source: str
    templates_baba: tuple[str, ...]
    names: tuple[str, ...]
    places: tuple[str, ...]
    objects: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.templates_baba:
            raise DatasetError("templates_baba is empty: IOI prompts need at least one template")
        for index, template in enumerate(self.templates_baba):
            _check_template(index, template)
        for key in ("names", "places", "objects"):
            _check_words(key, getattr(self, key))
        if len(self.names) < 2:
            raise DatasetError(
                f"names has {len(self.names)} entries: IOI prompts need at least 2 different names"
            )
        for slot, key in (("[PLACE]", "places"), ("[OBJECT]", "objects")):
            users = [i for i, text in enumerate(self.templates_baba) if slot in text]
            if users and not getattr(self, key):
                raise DatasetError(f"{key} is empty, but template {users[0]} has the slot {slot}")


def _check_template(index: int, template: str) -> None:
    what = f"template {index} {template!r}"
    found = _SLOT.findall(template)
    unknown = sorted(set(found) - set(SLOTS))
    if unknown:
        raise DatasetError(f"{what} has the unknown slot {unknown[0]}; valid: {', '.join(SLOTS)}")
    if re.search(r"[\[\]]", _SLOT.sub("", template)):
        raise DatasetError(f"{what} has a bracket that belongs to no slot")
    if not template.endswith("[A]"):
        raise DatasetError(f"{what} must end with [A], the name that answers the prompt")
    named = [slot for slot in found if slot in ("[A]", "[B]")]
    if named != ["[B]", "[A]", "[B]", "[A]"]:
        raise DatasetError(
            f"{what} has the name slots {' '.join(named)}; the BABA form is [B] [A] [B] [A]"
        )
    for match in _SLOT.finditer(template):
        if match.group() in ("[A]", "[B]") and template[: match.start()][-1:] != " ":
            raise DatasetError(
                f"{what} must have a space before each name, and so cannot start with one"
            )
    if re.search(r"\s\s", template) or template != template.strip():
        raise DatasetError(f"{what} has white space at an end or twice in a row")


def _check_words(key: str, words: Sequence[str]) -> None:
    seen: set[str] = set()
    for word in words:
        if not word or word != word.strip() or "[" in word or "]" in word:
            raise DatasetError(f"{key} has the entry {word!r}; valid: a word without brackets")
        if key == "names" and re.search(r"\s", word):
            raise DatasetError(f"names has the entry {word!r}; valid: one word")
        if word in seen:
            raise DatasetError(f"{key} has {word!r} twice; valid: each entry once")
        seen.add(word)


def load_ioi_templates(path: str | Path | None = None) -> IOITemplates:
    """Read and check a template file.

    Parameters
    ----------
    path : str or Path, optional
        A JSON file with the keys ``source``, ``templates_baba``, ``names``, ``places`` and
        ``objects`` (``slots`` is a description and may be left out). Without it, the templates
        that come with the package.

    Returns
    -------
    IOITemplates

    Raises
    ------
    UsageError
        When there is no such file.
    DatasetError
        When the file is not JSON or cannot make prompts.
    """
    if path is None:
        shown = "the templates of the package"
        text = resources.files("moedb.capture").joinpath("data/ioi.json").read_text("utf-8")
    else:
        shown = str(path)
        try:
            text = Path(path).read_text("utf-8")
        except UnicodeDecodeError as error:
            raise DatasetError(
                f"{shown}: not UTF-8 text ({error.reason}); valid: {_SHAPE}"
            ) from error
        except OSError as error:
            raise UsageError(
                f"{shown}: cannot read the template file ({error.strerror}); valid: {_SHAPE}"
            ) from error
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{shown}: not JSON ({error}); valid: {_SHAPE}") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{shown}: found a JSON {type(content).__name__}; valid: {_SHAPE}")
    missing = [
        k for k in ("source", "templates_baba", "names", "places", "objects") if k not in content
    ]
    if missing:
        raise DatasetError(f"{shown}: the key {missing[0]} is missing; valid: {_SHAPE}")
    if not isinstance(content["source"], str):
        raise DatasetError(f"{shown}: source must be text, found {content['source']!r:.80}")
    _check_slots(shown, content.get("slots", {}))
    lists = {key: _words(shown, key, content[key]) for key in list(content) if key in _LISTS}
    try:
        return IOITemplates(source=content["source"], **lists)
    except DatasetError as error:
        raise DatasetError(f"{shown}: {error}") from error


_LISTS = ("templates_baba", "names", "places", "objects")


def _check_slots(shown: str, slots: Any) -> None:
    if not isinstance(slots, dict) or not set(slots) <= set(SLOTS):
        raise DatasetError(
            f"{shown}: slots is {slots!r:.80}; valid: an object that describes {', '.join(SLOTS)}"
        )


def _words(shown: str, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise DatasetError(f"{shown}: {key} is {value!r:.80}; valid: a list of texts")
    return tuple(value)


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


@dataclass(frozen=True)
class IOISentence:
    """A whole sentence, answer included: ``text[answer_start:]`` is ``" " + io``."""

    text: str
    answer_start: int
    io: str
    s: str
    template: int
    order: Order


def is_held_out_pair(first: str, second: str, fraction: float = 0.1) -> bool:
    """Whether an unordered pair of names is kept out of training.

    The answer depends on the two names alone (a hash of them), so that training and evaluation
    agree on it without a list.

    Parameters
    ----------
    first, second : str
        The names, in any order.
    fraction : float
        Expected share of the pairs that is held out.
    """
    joined = "\0".join(sorted((first, second)))
    digest = hashlib.sha256(joined.encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


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
    draw = _Draw(templates, names, seed, pair_filter)
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
            third = draw.third_name(index, prompt)
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


def training_sentences(
    templates: IOITemplates,
    n: int,
    *,
    seed: int = 0,
    start: int = 0,
    pair_filter: PairFilter | None = None,
) -> list[IOISentence]:
    """Draw whole sentences, answer included, for training a model on the task.

    The sentences are entries ``start`` to ``start + n`` of one endless list per seed.

    Parameters
    ----------
    templates : IOITemplates
        The material. All its names are used.
    n : int
        Number of sentences.
    seed : int
        Seed of every draw.
    start : int
        Index of the first sentence.
    pair_filter : callable, optional
        Takes two names and says whether they may meet in a sentence.

    Returns
    -------
    list of IOISentence
    """
    return SentenceStream(templates, seed=seed, pair_filter=pair_filter).take(n, start=start)


class SentenceStream:
    """The endless list behind `training_sentences`, kept so that the pairs are filtered once."""

    def __init__(
        self, templates: IOITemplates, *, seed: int = 0, pair_filter: PairFilter | None = None
    ) -> None:
        self._draw = _Draw(templates, templates.names, seed, pair_filter)

    def take(self, n: int, *, start: int = 0) -> list[IOISentence]:
        """Return the sentences ``start`` to ``start + n``."""
        sentences = []
        for index in range(start, start + n):
            filled = self._draw(index)
            sentences.append(
                IOISentence(
                    text=f"{filled.text} {filled.io}",
                    answer_start=len(filled.text),
                    io=filled.io,
                    s=filled.s,
                    template=filled.template,
                    order=filled.order,
                )
            )
        return sentences


@dataclass(frozen=True)
class _Filled:
    text: str
    io: str
    s: str
    template: int
    order: Order
    place: str | None
    object: str | None
    io_span: Span
    s1_span: Span
    s2_span: Span


class _Draw:
    """Entry i of an endless list of filled templates, a function of the seed and i alone."""

    def __init__(
        self,
        templates: IOITemplates,
        names: Sequence[str],
        seed: int,
        pair_filter: PairFilter | None,
    ) -> None:
        self._templates = templates
        self._names = tuple(names)
        self._seed = seed
        self._pairs: list[tuple[str, str]] | None = None
        self._block: tuple[int, list[tuple[int, Order]]] = (-1, [])
        if pair_filter is not None:
            self._pairs = [
                (a, b)
                for i, a in enumerate(self._names)
                for b in self._names[i + 1 :]
                if pair_filter(a, b)
            ]
            if not self._pairs:
                raise DatasetError(
                    f"no pair of the {len(self._names)} names passes the pair filter"
                )

    def _rng(self, what: str, index: int) -> random.Random:
        return random.Random(f"moedb ioi {self._seed} {what} {index}")

    def _form(self, index: int) -> tuple[int, Order]:
        """Each block of 2 x templates entries holds every template in both orders once."""
        size = 2 * len(self._templates.templates_baba)
        number, position = divmod(index, size)
        if self._block[0] != number:
            forms = [(t, order) for t in range(size // 2) for order in ORDERS]
            self._rng("block", number).shuffle(forms)
            self._block = (number, forms)
        return self._block[1][position]

    def __call__(self, index: int) -> _Filled:
        template, order = self._form(index)
        rng = self._rng("entry", index)
        if self._pairs is None:
            io, s = rng.sample(self._names, 2)
        else:
            io, s = rng.sample(rng.choice(self._pairs), 2)
        text = self._templates.templates_baba[template]
        place = rng.choice(self._templates.places) if "[PLACE]" in text else None
        thing = rng.choice(self._templates.objects) if "[OBJECT]" in text else None
        return _fill(text, template, order, io, s, place, thing)

    def third_name(self, index: int, prompt: IOIPrompt) -> str:
        others = [name for name in self._names if name not in (prompt.io, prompt.s)]
        return self._rng("twin", index).choice(others)


def _fill(
    text: str, template: int, order: Order, io: str, s: str, place: str | None, thing: str | None
) -> _Filled:
    mentions = iter([s, io, s, io] if order == "BABA" else [io, s, s, io])
    pieces: list[str] = []
    spans: list[Span] = []
    length = cursor = 0
    for match in _SLOT.finditer(text):
        slot = match.group()
        word = {"[PLACE]": place, "[OBJECT]": thing}.get(slot) or next(mentions)
        pieces += [text[cursor : match.start()], word]
        length += match.start() - cursor
        if slot in ("[A]", "[B]"):
            spans.append((length, length + len(word)))
        length += len(word)
        cursor = match.end()
    whole = "".join(pieces)
    first, second, s2_span, answer_span = spans
    s1_span, io_span = (first, second) if order == "BABA" else (second, first)
    return _Filled(
        text=whole[: answer_span[0] - 1],
        io=io,
        s=s,
        template=template,
        order=order,
        place=place,
        object=thing,
        io_span=io_span,
        s1_span=s1_span,
        s2_span=s2_span,
    )
