"""A seal: the last field of a manifest, a hash of all that stands before it.

One changed bit anywhere in a sealed text is seen by who reads it, with nothing else at hand.
"""

import hashlib

from moedb.errors import StoreDamagedError

_FIELD = ',\n "seal": "'
_END = '"\n}\n'


def seal(text: str) -> str:
    """Put a seal into a JSON object that ``json.dumps(..., indent=1)`` has made.

    Raises
    ------
    ValueError
        If the text is none, or has no fields.
    """
    body = text.strip().removesuffix("}").rstrip()
    if not text.startswith("{\n") or not text.rstrip().endswith("\n}"):
        raise ValueError(f"expected a JSON object with indentation, got {text[:40]!r}")
    return body + _FIELD + _sha256(body) + _END


def check_seal(text: str, where: str) -> None:
    """Check that ``text``, the content of the file ``where``, is what was sealed.

    Raises
    ------
    StoreDamagedError
        If it isn't.
    """
    body, field, rest = text.rpartition(_FIELD)
    if not field:
        raise StoreDamagedError(f"{where} has no seal, as every manifest has in this format")
    if rest != _sha256(body) + _END:
        raise StoreDamagedError(f"{where} is not what was written: its seal is broken")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
