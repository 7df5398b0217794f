"""Reading the pickles of CIFAR-10's original archive without obeying them.

A pickle is a program: it names functions and their arguments. Even numpy's own must not be called,
since the state of a dtype that it restores can claim that bytes are pointers. So nothing that a
pickle names is called. The few names that such a file has stand for objects of ours, which keep
what they are given, check it, and make arrays of plain numbers.
"""

import pickle
import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

_NUMBER = re.compile(r"[iuf][1248]")


class _Dtype:
    """What a pickle says of a number format: of that, only numbers are known."""

    def __init__(self, code: Any = None, *others: Any) -> None:
        text = code.decode("ascii") if isinstance(code, bytes) else code
        if not isinstance(text, str) or not _NUMBER.fullmatch(text):
            raise pickle.UnpicklingError(f"it has values of the format {code!r}, not numbers")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: Any) -> None:
        """Take the byte order; refuse fields, dimensions and flags."""
        order: Any = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "=", "|") or any(each is not None for each in state[2:5]):
            raise pickle.UnpicklingError(f"it has a number format with the state {state!r}")
        self.dtype = self.dtype if order == "|" else self.dtype.newbyteorder(order)


class _Array:
    """What a pickle says of an array: a shape, a number format, and bytes."""

    values: NDArray[Any]

    def __setstate__(self, state: Any) -> None:
        """Take (version, shape, dtype, whether columns come first, bytes)."""
        _, shape, dtype, by_column, content = state
        self._fill(content, dtype, shape, by_column)

    @classmethod
    def empty(cls, *_: Any) -> "_Array":
        """The place of an array whose state follows, as protocols up to 4 have it."""
        return cls()

    @classmethod
    def of_buffer(cls, content: Any, dtype: Any, shape: Any, order: Any = "C", *_: Any) -> "_Array":
        """An array as protocol 5 has it."""
        found = cls()
        found._fill(content, dtype, shape, order == "F")
        return found

    def _fill(self, content: Any, dtype: Any, shape: Any, by_column: Any) -> None:
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes | bytearray):
            raise pickle.UnpicklingError("it has an array of something else than bytes")
        values = np.frombuffer(content, dtype.dtype)
        self.values = values.reshape(shape, order="F" if by_column else "C")


def _encoded(text: Any, _: Any = None) -> bytes:
    """Bytes as Python 3 writes them in an old protocol: as a string of their code points."""
    if not isinstance(text, str):
        raise pickle.UnpicklingError("it has something else than bytes")
    return text.encode("latin-1")


class _Reader(pickle.Unpickler):
    KNOWN: ClassVar = {
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        **{
            (f"numpy.{core}.{module}", name): stand_in
            for core in ("core", "_core")
            for module, name, stand_in in (
                ("multiarray", "_reconstruct", _Array.empty),
                ("numeric", "_frombuffer", _Array.of_buffer),
            )
        },
        ("_codecs", "encode"): _encoded,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.KNOWN:
            raise pickle.UnpicklingError(f"it calls {module}.{name}, which no CIFAR batch needs")
        return self.KNOWN[module, name]


def read_batch(path: Path) -> dict[str, Any]:
    """Read a batch of the original archive.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    dict
        What it holds by name: arrays, lists, numbers and bytes.

    Raises
    ------
    Exception
        If it is no pickle of a dict, is damaged, or names anything but arrays of numbers.
    """
    with path.open("rb") as file:
        content = _Reader(file, encoding="bytes").load()
    return {
        key.decode() if isinstance(key, bytes) else key: (
            value.values if isinstance(value, _Array) else value
        )
        for key, value in content.items()
    }
