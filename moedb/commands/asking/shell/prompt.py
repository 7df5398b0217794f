"""The prompt on a terminal: lines of SQL in colours, with history and completion."""

from collections.abc import Callable, Iterable

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import completion_is_selected
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.sql import SqlLexer

from moedb.commands.asking.shell.completion import complete
from moedb.commands.asking.shell.history import history_path, private_history
from moedb.commands.asking.shell.names import Names
from moedb.commands.asking.shell.statements import is_finished
from moedb.queries.results.visible import visible


class _Offered(Completer):
    """Offers what :func:`complete` finds; of names from a store nothing acts on the terminal."""

    def __init__(self, names: Callable[[], Names]) -> None:
        self._names = names

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        for found in complete(self._names(), document.text_before_cursor):
            yield Completion(
                found.text,
                found.start,
                display=visible(found.text.rstrip()),
                display_meta=found.kind,
            )


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter", filter=completion_is_selected)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.complete_state = None

    @keys.add("enter", filter=~completion_is_selected)
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_finished(buffer.text):
            buffer.validate_and_handle()
        else:
            buffer.newline(copy_margin=False)

    return keys


def make_prompt(names: Callable[[], Names]) -> Callable[[str | None], str]:
    """Return what asks for a text: statements that a semicolon ends, or a command of the shell.

    Parameters
    ----------
    names
        Gives what can be completed.

    Returns
    -------
    callable
        Takes what the chosen run is called. It raises KeyboardInterrupt at Ctrl-C, EOFError at
        Ctrl-D.
    """
    file = private_history(history_path())
    history: History = InMemoryHistory() if file is None else FileHistory(file)
    session: PromptSession[str] = PromptSession(
        history=history,
        lexer=PygmentsLexer(SqlLexer),
        completer=_Offered(names),
        complete_while_typing=False,
        multiline=True,
        key_bindings=_keys(),
    )

    def ask(run: str | None) -> str:
        named = "" if run is None else f" {visible(run)}"
        head = f"moedb{named}> "

        def continued(width: int, line_number: int, wrap_count: int) -> str:
            return " " * width if wrap_count else "...> ".rjust(width)

        return session.prompt(head, prompt_continuation=continued)

    return ask
