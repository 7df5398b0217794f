"""What a run is called by its user."""

from moedb.errors import StoreDamagedError
from moedb.schemas.run_names import RunName
from moedb.store.containment import read_text
from moedb.store.layout import RunLayout


def read_name(layout: RunLayout) -> RunName:
    """Read the name and the note of a run; both are None where none were given.

    Raises
    ------
    StoreDamagedError
        If they are not what was written.
    """
    try:
        return RunName.from_json(read_text(layout.name), str(layout.name))
    except (FileNotFoundError, NotADirectoryError):
        return RunName()
    except StoreDamagedError as error:
        raise StoreDamagedError(
            error.message, f"remove that file, and name the run again: moedb name {layout.run_id}"
        ) from error
