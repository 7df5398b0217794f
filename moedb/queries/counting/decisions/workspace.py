"""Memory that is used again for one stretch after another."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike, NDArray

_OF_THREAD = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an array of this thread whose content is not defined.

    To get the pages of a new array takes several times as long as to fill them. The next call with
    the same name on the same thread returns the same memory: what is kept must be copied.

    Parameters
    ----------
    name
        What the array is for.
    shape, dtype
        Of the array.
    """
    import numpy as np

    held: dict[str, NDArray[np.uint8]] = _OF_THREAD.__dict__.setdefault("held", {})
    n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if name not in held or held[name].size < n_bytes:
        held[name] = np.empty(n_bytes, np.uint8)
    array: NDArray[Any] = held[name][:n_bytes].view(dtype).reshape(shape)
    return array


def constant(
    name: str, shape: tuple[int, ...], dtype: DTypeLike, values: NDArray[Any] | int
) -> NDArray[Any]:
    """Return an array of this thread that holds the same values for the same shape, always.

    They are filled in once for a shape, which most stretches of a run have; not to be written to.

    Parameters
    ----------
    name
        What the array is for: no other, and no :func:`scratch`, may have this name.
    shape, dtype
        Of the array.
    values
        What it holds, of a shape that can be spread over it.
    """
    import numpy as np

    filled: dict[str, tuple[Any, ...]] = _OF_THREAD.__dict__.setdefault("filled", {})
    array = scratch(name, shape, dtype)
    of = shape, np.dtype(dtype), array.ctypes.data
    if filled.get(name) != of:
        np.copyto(array, values)
        filled[name] = of
    return array
