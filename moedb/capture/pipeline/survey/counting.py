"""The sizes of a dataset, counted in one pass: its tokens, and those that the arrays keep."""

from array import array
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moedb.capture.examples import Dataset
from moedb.capture.pipeline.survey.tokens import TokenSelection
from moedb.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Survey:
    """What one pass over a dataset's examples finds out: all that a plan has to know of them.

    Attributes
    ----------
    lengths
        (example,): tokens.
    kept
        (example,): tokens that the arrays keep.
    n_labels, n_token_labels
        Labels of the examples, and of their tokens.
    n_targets
        Examples with a right answer.
    text_bytes, token_bytes
        Bytes of the examples' texts, and of the tokens'.
    """

    lengths: NDArray[np.int64]
    kept: NDArray[np.int64]
    n_labels: int
    n_token_labels: int
    n_targets: int
    text_bytes: int
    token_bytes: int

    @property
    def n_examples(self) -> int:
        """Number of examples."""
        return len(self.lengths)

    @property
    def n_tokens(self) -> int:
        """Tokens over all examples."""
        return int(self.lengths.sum())

    @property
    def n_kept(self) -> int:
        """Tokens that the arrays keep."""
        return int(self.kept.sum())


def survey(dataset: Dataset, selection: TokenSelection) -> Survey:
    """Walk over the examples once and count.

    Parameters
    ----------
    dataset
        The examples.
    selection
        The tokens that the arrays keep.

    Raises
    ------
    UsageError
        If no token has the label that is selected; the message names the keys or values there are.
    """
    # Eight bytes a number, where lists of int objects would take some forty.
    lengths, kept = array("q"), array("q")
    n_labels = n_token_labels = n_targets = text_bytes = token_bytes = 0
    for index, example in enumerate(dataset.examples):
        lengths.append(len(example))
        kept.append(int(selection.mask(example, index).sum()))
        n_labels += len(example.labels)
        for values in example.token_labels.values():
            n_token_labels += len(values) - values.count(None)
        n_targets += example.has_target
        text_bytes += len((example.text or "").encode())
        token_bytes += len("".join(filter(None, example.tokens)).encode())
    found = Survey(
        np.frombuffer(lengths, dtype=np.int64),
        np.frombuffer(kept, dtype=np.int64),
        n_labels,
        n_token_labels,
        n_targets,
        text_bytes,
        token_bytes,
    )
    if selection.key is not None and found.n_kept == 0:
        raise _nothing_selected(dataset, selection)
    return found


def _nothing_selected(dataset: Dataset, selection: TokenSelection) -> UsageError:
    """Say which keys or values there are."""
    key = selection.key or ""
    keys: set[str] = set()
    values: set[str] = set()
    for example in dataset.examples:
        keys.update((*example.labels, *example.token_labels))
        given = (example.labels.get(key), *example.token_labels.get(key, ()))
        values.update(value for value in given if value is not None)
    if key not in keys or selection.value is None:
        return UsageError(f"--tokens {selection.text}: no such key; {did_you_mean(key, keys)}")
    known = did_you_mean(str(selection.value), sorted(values)[:20])
    return UsageError(f"--tokens {selection.text}: no such value; {known}")
