"""Where the hidden layer of a shared expert can be read."""

from typing import Any

from moedb.capture.structure.feed_forward import feed_forward
from moedb.capture.structure.forward_recording import Recording, Seen


def shared_neurons(model: Any, recording: Recording, shared: tuple[Seen, ...]) -> Seen | None:
    """Where a forward pass shows the hidden units of the shared expert.

    Parameters
    ----------
    model, recording
        The model, and what was seen of it.
    shared
        The outputs of its shared experts.

    Returns
    -------
    Seen or None
        What the down projection reads; None unless there is one shared expert, a feed-forward
        layer whose output is what its down projection writes.
    """
    if len(shared) != 1 or shared[0].key is not None:
        return None
    found = feed_forward(model.get_submodule(shared[0].path))
    if found is None:
        return None
    down = f"{shared[0].path}.{found.down}"
    written = recording.of(down, "output")
    if not written or not written[0].equals(shared[0].rows):
        return None
    return next(iter(recording.of(down, "input")), None)
