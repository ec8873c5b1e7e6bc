"""The line editor of a conversation: history, several lines, completion of commands."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

QUOTES = '"""'
COMMANDS = ["/help", "/bye", "/clear", "/system", "/set", "/stats"]


def reader(history: Path) -> Callable[[], Awaitable[str]]:
    """A function that reads one message. It raises EOFError at Ctrl-D and KeyboardInterrupt at Ctrl-C.

    Enter sends, except inside three quotes; Alt-Enter always makes a new line.
    """
    history.parent.mkdir(parents=True, exist_ok=True)
    history.touch(mode=0o600)
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        text = event.current_buffer.text.strip()
        if text.startswith(QUOTES) and not (len(text) >= 2 * len(QUOTES) and text.endswith(QUOTES)):
            event.current_buffer.insert_text("\n")
        else:
            event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    session: PromptSession[str] = PromptSession(
        history=FileHistory(str(history)),
        key_bindings=keys,
        multiline=True,
        completer=WordCompleter(COMMANDS, sentence=True),
        complete_while_typing=False,
        prompt_continuation="… ",
        reserve_space_for_menu=4,
    )
    return lambda: session.prompt_async("> ")
