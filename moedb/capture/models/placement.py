"""What a model runs in, and where its weights go.

Imports no torch, so that commands can name the choices.
"""

from dataclasses import dataclass

from moedb.errors import UsageError

DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
"""Ways in which accelerate spreads layers over the GPUs that there are."""


@dataclass(frozen=True)
class Placement:
    """What a model runs in, and where its weights go.

    Attributes
    ----------
    dtype, device
        What the model runs in and on.
    max_bytes
        Bytes of weights to hold at most. None: as much as is free, less what a forward needs; and
        all on a device of its own memory.
    device_map
        How transformers spreads the layers over several devices, instead of ``device``.
    """

    dtype: str
    device: str
    max_bytes: int | None = None
    device_map: str | None = None


def check_placement(device: str | None, max_bytes: int | None, device_map: str | None) -> None:
    """Check that a model is not both spread over devices and told where to go.

    Raises
    ------
    UsageError
        If it is.
    """
    for name, value in (("device", device), ("max-memory", max_bytes)):
        if device_map is not None and value is not None:
            raise UsageError(f"--device-map {device_map} and --{name}: only one can be")
