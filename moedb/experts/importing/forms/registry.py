"""The forms of files that labels are read from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moedb.errors import UsageError, did_you_mean
from moedb.experts.importing.files import GivenFile
from moedb.experts.importing.forms import delphi, herbst, neuronpedia, own
from moedb.experts.importing.found import Choices, FoundLabels


@dataclass(frozen=True)
class Format:
    """A form of files.

    Attributes
    ----------
    name
        Its name, and what ``source`` of the labels says.
    about
        What it is, for a list.
    fits
        Whether files are of it, by their content.
    read
        Reads them.
    """

    name: str
    about: str
    fits: Callable[[Sequence[GivenFile]], bool]
    read: Callable[[Sequence[GivenFile], Choices], FoundLabels]


FORMATS = (
    Format("herbst2026", "files of Herbst et al. 2026", herbst.fits, herbst.read),
    Format("delphi", "a folder of results of delphi", delphi.fits, delphi.read),
    Format("neuronpedia", "an export of Neuronpedia", neuronpedia.fits, neuronpedia.read),
    Format("moedb", "JSON lines or CSV with layer, expert, label", own.fits, own.read),
)
NAMES = tuple(each.name for each in FORMATS)


def format_of(files: Sequence[GivenFile], name: str | None) -> Format:
    """The form that was named, or the one that files are of.

    Raises
    ------
    UsageError
        If there is none of this name, or files are of none.
    """
    if name is not None:
        for each in FORMATS:
            if each.name == name:
                return each
        raise UsageError(f"no format named {name!r}; {did_you_mean(name, NAMES)}")
    for each in FORMATS:
        if each.fits(files):
            return each
    known = "; ".join(f"{each.name}, {each.about}" for each in FORMATS)
    raise UsageError(
        f"{files[0].name} is of no form that is known: {known}",
        "bring the labels into JSON lines with layer, expert and label; or say what it is: "
        f"--from {'|'.join(NAMES)}",
    )
