"""Which tokens a probe is fitted on, chosen by and scored on.

By documents: half of them to fit, a quarter to choose the expert and the layer by, a quarter to
score. ``herbst2026`` is what Herbst et al. 2026 did: as many tokens of none as of the concept,
three quarters of the tokens to fit and one to score, and to choose by.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moedb.experts.probing.concepts import Concept, Tokens
from moedb.experts.probing.settings import Protocol

UNUSED, TRAIN, SELECTION, TEST = -1, 0, 1, 2

TRAIN_SHARE = {"documents": 0.5, "herbst2026": 0.75}


@dataclass(frozen=True)
class Sample:
    """What probes for one concept are fitted and scored on, whatever the candidate.

    Attributes
    ----------
    protocol, permutation
        By which protocol, and with which shuffling of the labels; 0 is none.
    is_yes
        (token,): the labels.
    part
        (token,): TRAIN, SELECTION, TEST or UNUSED.
    """

    protocol: Protocol
    permutation: int
    is_yes: NDArray[np.bool_]
    part: NDArray[np.int8]

    @property
    def chooses_by(self) -> int:
        """The part that candidates are chosen by."""
        return SELECTION if self.protocol == "documents" else TEST


def sample(
    tokens: Tokens, concept: Concept, protocol: Protocol, permutation: int, seed: int
) -> Sample:
    """Divide the tokens that are asked about.

    The same documents are in the same part for all concepts of a key, so that concepts and
    candidates can be set beside each other. Labels are shuffled over all tokens that are asked
    about, once for all candidates.
    """
    # of each concept and shuffling its own, whatever else is asked for
    words = [seed, permutation, *concept.label.encode()]
    random = np.random.default_rng(words)
    asked = np.flatnonzero(concept.is_asked)
    is_yes = concept.is_yes.copy()
    if permutation:
        is_yes[asked] = random.permutation(is_yes[asked])
    part = np.full(len(tokens), UNUSED, np.int8)
    if protocol == "documents":
        part[asked] = _by_documents(tokens.documents[asked], concept.key, seed)
        return Sample(protocol, permutation, is_yes, part)
    yes, no = asked[is_yes[asked]], asked[~is_yes[asked]]
    taken = np.concatenate([yes, random.choice(no, min(len(yes), len(no)), replace=False)])
    taken = random.permutation(taken)
    n_train = round(TRAIN_SHARE[protocol] * len(taken))
    part[taken[:n_train]], part[taken[n_train:]] = TRAIN, TEST
    return Sample(protocol, permutation, is_yes, part)


def _by_documents(documents: NDArray[np.int64], key: str, seed: int) -> NDArray[np.int8]:
    names = np.unique(documents)
    shuffled = np.random.default_rng([seed, *key.encode()]).permutation(len(names))
    share = (shuffled + 0.5) / len(names)
    middle = TRAIN_SHARE["documents"]
    parts = np.select([share < middle, share < (1 + middle) / 2], [TRAIN, SELECTION], TEST)
    chosen: NDArray[np.int8] = parts.astype(np.int8)[np.searchsorted(names, documents)]
    return chosen
