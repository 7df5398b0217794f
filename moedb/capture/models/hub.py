"""The Hugging Face hub, for all that read from it: what went wrong, in words for a user."""

import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from moedb.errors import DatasetError, DatasetUnreachableError

Kind = Literal["model", "dataset"]

_LOGIN = "hf auth login, or set HF_TOKEN"
_REASON_LENGTH = 300


@dataclass(frozen=True)
class HubFailure:
    """Why the hub did not give something.

    Attributes
    ----------
    reason
        What is wrong.
    remedy
        What to do about it; None where nothing in particular would help.
    is_unreachable
        Whether the network or the hub failed, and the request may be right.
    """

    reason: str
    remedy: str | None = None
    is_unreachable: bool = False

    def dataset_error(self, message: str, hint: str) -> DatasetError:
        """The error of a dataset, with ``hint`` where there is no remedy."""
        kind = DatasetUnreachableError if self.is_unreachable else DatasetError
        return kind(message, hint if self.remedy is None else f"{self.remedy}; {hint}")


def hub_failure(error: Exception, name: str, kind: Kind) -> HubFailure:
    """Put into words why a call of ``huggingface_hub`` or ``datasets`` failed.

    Parameters
    ----------
    error
        What was raised; what it came from is looked at too.
    name
        The hub id that was asked for.
    kind
        What it is the id of.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    chain = list(_chain(error))
    if any(isinstance(each, GatedRepoError) or _is_gated_dataset(each) for each in chain):
        page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{name}"
        return HubFailure(
            f"{name} is gated: the hub gives it to those who were granted access",
            f"ask for it at {page}; then {_LOGIN}",
        )
    if any(isinstance(each, RepositoryNotFoundError) for each in chain):
        return HubFailure(
            f"the hub has no {kind} {name} that you can see",
            f"check OWNER/NAME; if it is private, {_LOGIN}",
        )
    lost = next(filter(_is_network_failure, chain), None)
    offline = any(isinstance(each, OfflineModeIsEnabled) for each in chain)
    if offline or (lost and constants.HF_HUB_OFFLINE):
        return HubFailure(
            f"HF_HUB_OFFLINE is set, and {name} is not in the hub's cache, or not all of it",
            "unset HF_HUB_OFFLINE",
            is_unreachable=True,
        )
    if lost:
        reason = f"{constants.ENDPOINT} cannot be reached ({_first_lines(lost)})"
        return HubFailure(reason, is_unreachable=True)
    refused = any(isinstance(each, HfHubHTTPError) for each in chain)
    return HubFailure(_first_lines(error), is_unreachable=refused)


def tidy_output() -> None:
    """Let the hub's libraries print a warning once, and progress on a terminal only.

    They print warnings themselves; the root's handler would print them again.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import disable_progress_bars

    for library in ("huggingface_hub", "datasets"):
        logging.getLogger(library).propagate = False
    if not sys.stderr.isatty() and constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
        disable_progress_bars()


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_gated_dataset(error: BaseException) -> bool:
    """``datasets`` says it in words of its own, and drops what it came from."""
    return type(error).__name__ == "DatasetNotFoundError" and "gated" in str(error)


def _is_network_failure(error: BaseException) -> bool:
    """Whether no answer came, by the classes of Python or of the HTTP library (httpx, httpx2)."""
    if type(error).__module__.startswith("httpx"):
        return type(error).__name__ != "HTTPStatusError"
    return isinstance(error, ConnectionError | TimeoutError)


def _first_lines(error: BaseException) -> str:
    """The error's class, and its first two lines: often what is wrong, and what would be valid."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:_REASON_LENGTH] or 'no reason given'}"
