"""Files of rules: what they say, and whether they can be followed."""

import re
import tomllib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from moedb.errors import UsageError, did_you_mean
from moedb.store.files import sha256_of_text

BUILTIN = "builtin"
"""What the rules of the package are called."""

LARGEST_FILE = 256 << 10
"""Bytes: the text of the rules stands in the addition's manifest, which is read with the run."""

_KEY = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_RESERVED = ("name", "note")
"""Labels that a run has of its user."""

_FLAGS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE, "a": re.ASCII}
_COVERS = ("any", "all")
_COMMON = ("key", "kind", "about")
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "pattern": ("pattern", "flags", "value", "values", "covers"),
    "depth": ("pairs", "most"),
    "position": ("edges",),
    "repeat": (),
    "induction": (),
    "script": (),
    "word-piece": (),
}
"""For each kind of rule what it says beside its key and what it is about."""
_NEEDED = {"pattern": ("pattern",), "depth": ("pairs",), "position": ("edges",)}


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes
    ----------
    key
        The key of the labels that it gives.
    kind
        Which kind it is of.
    about
        What it is about, in words.
    pattern, flags
        A regular expression, and its flags as a number.
    groups
        The named groups whose parts are labelled; without any the whole match is.
    values
        For each group the value; without groups the one value.
    covers
        Which tokens are labelled: ``any`` that shares a character with the match, or those of which
        it has ``all``.
    pairs, most
        Of brackets by depth: each an opening and a closing one; the last depth that is told apart.
    edges
        Of positions: where the second stretch begins, and each that follows.
    """

    key: str
    kind: str
    about: str = ""
    pattern: str = ""
    flags: int = 0
    groups: tuple[str, ...] = ()
    values: tuple[str, ...] = ("yes",)
    covers: str = "any"
    pairs: tuple[str, ...] = ()
    most: int = 3
    edges: tuple[int, ...] = ()

    @property
    def value_names(self) -> tuple[str, ...]:
        """The values that it may give; none of a script, which follow from the texts."""
        if self.kind == "depth":
            return (*map(str, range(1, self.most)), f"{self.most}+")
        if self.kind == "position":
            lows = (0, *self.edges)
            stretches = [
                str(low) if high == low + 1 else f"{low}-{high - 1}"
                for low, high in zip(lows, self.edges, strict=False)
            ]
            return (*stretches, f"{lows[-1]}+")
        return () if self.kind == "script" else self.values


@dataclass(frozen=True)
class RuleFile:
    """The rules of a file.

    Attributes
    ----------
    name
        What the file is called, without folder and ending.
    text
        What is in it.
    rules
        Its rules, or those of them that were asked for.
    """

    name: str
    text: str
    rules: tuple[Rule, ...]

    @property
    def sha256(self) -> str:
        """The hash of its text."""
        return sha256_of_text(self.text)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of its rules."""
        return tuple(rule.key for rule in self.rules)

    def only(self, keys: Sequence[str]) -> "RuleFile":
        """The rules of some keys.

        Raises
        ------
        UsageError
            If there is none of one of them.
        """
        for key in keys:
            if key not in self.keys:
                raise UsageError(f"no rule {key!r} in {self.name}; {did_you_mean(key, self.keys)}")
        return RuleFile(self.name, self.text, tuple(r for r in self.rules if r.key in keys))


def read_rules(source: str | Path = BUILTIN) -> RuleFile:
    """Read the rules of the package, or those of a file.

    Parameters
    ----------
    source
        ``builtin``, or a TOML file.

    Raises
    ------
    UsageError
        If it cannot be read, or a rule cannot be followed; the error names the rule.
    """
    if str(source) == BUILTIN:
        found = resources.files("moedb") / "experts" / "concepts" / "rules.toml"
        return parse_rules(found.read_text(encoding="utf-8"), BUILTIN)
    path = Path(source)
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UsageError(
            f"cannot read the rules {path}: {error.strerror}",
            f"--rules {BUILTIN} takes those of the package",
        ) from error
    if len(content) > LARGEST_FILE:
        raise UsageError(f"{path}: larger than {LARGEST_FILE >> 10} KiB, which is no file of rules")
    try:
        return parse_rules(content.decode(), path.stem, str(path))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text: {error}") from error


def parse_rules(text: str, name: str, where: str | None = None) -> RuleFile:
    """Read the rules of a text; ``where`` is its file, for messages.

    Raises
    ------
    UsageError
        If it is no TOML, or a rule cannot be followed.
    """
    where = where or name
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{where}: not valid TOML: {error}") from error
    for field in content:
        if field != "rule":
            raise UsageError(f"{where}: unknown field {field!r}; {did_you_mean(field, ['rule'])}")
    given = content.get("rule")
    if not isinstance(given, list) or not given or not all(isinstance(r, dict) for r in given):
        raise UsageError(f"{where}: no rules", "each begins with a line [[rule]]")
    rules = [_rule(row, f"{where}: {_named(row, n)}") for n, row in enumerate(given, 1)]
    seen: set[str] = set()
    for rule in rules:
        if rule.key in seen:
            raise UsageError(f"{where}: two rules have the key {rule.key!r}", "rename one of them")
        seen.add(rule.key)
    return RuleFile(name, text, tuple(rules))


def _named(row: Mapping[str, Any], number: int) -> str:
    key = row.get("key")
    return f"rule {key!r}" if isinstance(key, str) else f"rule number {number}"


def _rule(row: Mapping[str, Any], where: str) -> Rule:
    key = _text(row, "key", where)
    if not _KEY.fullmatch(key) or key in _RESERVED:
        taken = " is a label of the run's user" if key in _RESERVED else " is no key"
        raise UsageError(
            f"{where}: {key!r}{taken}",
            "a key has up to 64 small letters, digits, hyphens, dots and underscores",
        )
    kind = _text(row, "kind", where) if "kind" in row else "pattern"
    if kind not in _FIELDS:
        raise UsageError(f"{where}: unknown kind {kind!r}; {did_you_mean(kind, _FIELDS)}")
    fields = (*_COMMON, *_FIELDS[kind])
    for field in row:
        if field not in fields:
            raise UsageError(
                f"{where}: a rule of the kind {kind} has no field {field!r}; "
                f"{did_you_mean(field, fields)}"
            )
    for field in _NEEDED.get(kind, ()):
        if field not in row:
            raise UsageError(f"{where}: a rule of the kind {kind} needs the field {field!r}")
    about = _text(row, "about", where) if "about" in row else ""
    if kind == "pattern":
        return _pattern_rule(row, where, Rule(key, kind, about))
    if kind == "depth":
        pairs = row["pairs"]
        if not _is_list(pairs, str) or not all(len(p) == 2 and p[0] != p[1] for p in pairs):
            raise UsageError(f'{where}: pairs: expected such as ["()", "[]"], got {pairs!r}')
        most = row.get("most", 3)
        if type(most) is not int or not 1 <= most <= 100:
            raise UsageError(f"{where}: most: expected 1 to 100, got {most!r}")
        return Rule(key, kind, about, pairs=tuple(pairs), most=most)
    if kind == "position":
        edges = row["edges"]
        if not _is_list(edges, int) or edges != sorted({*edges}) or edges[0] < 1:
            raise UsageError(f"{where}: edges: expected ascending such as [1, 8], got {edges!r}")
        return Rule(key, kind, about, edges=tuple(edges))
    return Rule(key, kind, about)


def _pattern_rule(row: Mapping[str, Any], where: str, rule: Rule) -> Rule:
    pattern, letters = _text(row, "pattern", where), row.get("flags", "")
    if not isinstance(letters, str) or not set(letters) <= set(_FLAGS):
        raise UsageError(f"{where}: flags: expected letters of {''.join(_FLAGS)}, got {letters!r}")
    flags = sum(_FLAGS[letter] for letter in set(letters))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiled = re.compile(pattern, flags)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"{where}: no regular expression: {error}: {pattern!r}") from error
    covers = row.get("covers", "any")
    if covers not in _COVERS:
        raise UsageError(f"{where}: covers: {did_you_mean(str(covers), _COVERS)}; got {covers!r}")
    groups = tuple(compiled.groupindex)
    if row.get("values") is None:
        value = _text(row, "value", where) if "value" in row else "yes"
        if set(groups) - {"label"}:
            raise UsageError(
                f"{where}: named groups {', '.join(groups)}, of which only 'label' has a meaning",
                'values = "groups" makes each name a value',
            )
        values: tuple[str, ...] = (value,)
    else:
        if row["values"] != "groups" or "value" in row:
            raise UsageError(
                f"{where}: values: expected 'groups', without a value, got {row['values']!r}"
            )
        if not groups:
            raise UsageError(f"{where}: values are those of groups, and the pattern names none")
        values = tuple(name.replace("_", "-") for name in groups)
    return Rule(
        rule.key,
        rule.kind,
        rule.about,
        pattern=pattern,
        flags=int(flags),
        groups=groups,
        values=values,
        covers=covers,
    )


def _text(row: Mapping[str, Any], field: str, where: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value or "\0" in value:
        raise UsageError(f"{where}: {field}: expected a text, got {value!r}")
    return value


def _is_list(value: object, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(type(each) is kind for each in value)
