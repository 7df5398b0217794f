"""The commands of a study's steps: lines as they are typed, with places for what is chosen."""

import re
import shlex
from collections.abc import Mapping, Sequence

import click

from moedb.errors import UsageError, did_you_mean

MAKING_RUNS = ("capture", "intervene")
"""Commands that make runs, whose names they print."""

ADDING = ("label-tokens", "probe", "label-experts", "check-labels", "import")
"""Commands that add to the run that is their first argument."""

OTHERS = (
    *("compact", "verify", "export", "plot", "report", "query", "sql", "compare", "cite", "card"),
)
"""Commands that read, and write files."""

_PLACE = re.compile(r"\$\{([a-z][a-z0-9_-]*)\}")
_FORBIDDEN = ("--help", "-h", "--store", "--mirror", "--dry-run")


def words_of(command: str) -> tuple[str, ...]:
    """The words of a line, without ``moedb``.

    Raises
    ------
    UsageError
        If a quote is left open, or it is no command of moedb.

    Examples
    --------
    >>> words_of("moedb capture qwen-ioi --name '${model} once'")
    ('capture', 'qwen-ioi', '--name', '${model} once')
    """
    try:
        program, *words = shlex.split(command) or [""]
    except ValueError as error:
        raise UsageError(f"{command!r}: {error}") from error
    if program != "moedb" or not words:
        raise UsageError(f"a step is a command of moedb, not {command!r}", "moedb capture ...")
    return tuple(words)


def check_command(words: Sequence[str]) -> None:
    """Check that a command is one that may be a step.

    Raises
    ------
    UsageError
        If it is none, or says what the study as a whole says.
    """
    known = (*MAKING_RUNS, *ADDING, *OTHERS)
    if words[0] not in known:
        raise UsageError(f"moedb {words[0]} is no step of a study; {did_you_mean(words[0], known)}")
    for word in words:
        if word.partition("=")[0] in _FORBIDDEN:
            raise UsageError(f"{word} has no place in a step: the study as a whole says it")


def names_in(words: Sequence[str]) -> list[str]:
    """The settings and steps that a command names.

    Examples
    --------
    >>> names_in(["plot", "-o", "${output}/${model}.png"])
    ['output', 'model']
    """
    return [name for word in words for name in _PLACE.findall(word)]


def filled(words: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """A command with what is chosen in its places; a value with blanks stays one word.

    Examples
    --------
    >>> filled(["export", "load-balance", "--run", "${prompts}"], {"prompts": "qwen-ioi-3f"})
    ['export', 'load-balance', '--run', 'qwen-ioi-3f']
    """
    return [_PLACE.sub(lambda found: values[found[1]], word) for word in words]


def check_options(root: click.Command, words: Sequence[str]) -> None:
    """Check a command's options as if it were typed, without running it.

    Parameters
    ----------
    root
        moedb's own command, that the others belong to.
    words
        The command, with a value in every place.

    Raises
    ------
    UsageError
        If there is no such option or argument, or a value is not what it has to be.
    """
    context = click.Context(root, info_name="moedb", **root.context_settings)
    command, rest = root, list(words)
    try:
        while isinstance(command, click.Group):
            name, found, rest = command.resolve_command(context, rest)
            if found is None:
                raise UsageError(f"moedb has no command {name!r}")
            command = found
            context = command.make_context(name, rest, parent=context)
            rest = [*context._protected_args, *context.args]
    except click.ClickException as error:
        raise UsageError(error.format_message()) from error
    except click.exceptions.Exit as error:
        raise UsageError(f"{shlex.join(words)} does nothing") from error
