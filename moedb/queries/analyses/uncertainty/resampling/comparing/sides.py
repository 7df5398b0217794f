"""Two sides that a query is compared between: label values, layers, splits or runs."""

from typing import TYPE_CHECKING, NamedTuple

from moedb.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from moedb.queries.questions.query_file import NamedQuery


class Sides(NamedTuple):
    """What is compared.

    Attributes
    ----------
    key
        A column that tells rows apart, such as ``value``, or a parameter, such as ``split``.
    one, other
        Its two values.
    """

    key: str
    one: str
    other: str

    @property
    def title(self) -> str:
        """What is compared, in words."""
        return f"{self.key} {self.one} less {self.key} {self.other}"


def read_sides(query: "NamedQuery", one: str, other: str) -> Sides:
    """Read two sides such as ``value=code`` and ``value=prose``.

    Raises
    ------
    UsageError
        If they are of two keys, of one that the query does not have, or the same.
    """
    parts = [side.partition("=") for side in (one, other)]
    (key, sign, first), (other_key, other_sign, second) = parts
    hint = f"moedb query {query.name} --compare split=clean split=corrupted"
    if not (sign and other_sign and first and second):
        raise UsageError(f"--compare {one!r} {other!r}: a side is KEY=VALUE", hint)
    if key != other_key:
        raise UsageError(f"--compare: the sides are of two keys, {key!r} and {other_key!r}", hint)
    known = [*query.row_columns, *(parameter.name for parameter in query.parameters)]
    if key not in known:
        raise UsageError(
            f"--compare: {query.name} has no column that tells rows apart, and no parameter, "
            f"called {key!r}; {did_you_mean(key, dict.fromkeys(known))}",
            hint,
        )
    if first == second:
        raise UsageError(f"--compare: both sides are {one}", hint)
    return Sides(key, first, second)
