"""What may come next in SQL, as the shell has it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from moedb.commands.asking.shell.completion import complete
from moedb.commands.asking.shell.names import Names, names_of
from moedb.commands.asking.shell.statements import is_dot_command

if TYPE_CHECKING:
    from moedb.queries.database import Database

__all__ = ["Names", "names_over", "offers"]

_MOST = 40

Offer = tuple[str, int, str]
"""What stands in the place of the word that is typed, where that begins, and what it is."""


def names_over(database: "Database") -> Names:
    """What can be named over a store."""
    return names_of(database)


def offers(names: Names, text: str) -> Sequence[Offer]:
    """What may come next after a text; nothing where it is a command of the shell."""
    if is_dot_command(text) or text.strip() == ".":
        return []
    return [(each.text, each.start, each.kind) for each in complete(names, text)[:_MOST]]
