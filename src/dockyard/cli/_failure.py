"""Failures as a user sees them: a message, a hint and an exit code."""

from __future__ import annotations

import sys

from dockyard.errors import (
    Cancelled,
    Conflict,
    DockyardError,
    Forbidden,
    InvalidRequest,
    NotFound,
    Overloaded,
    RateLimited,
    ServerUnreachable,
    SettingsError,
    SourceUnreachable,
    StoreFull,
    Unauthorized,
)

CODES: tuple[tuple[type[DockyardError], int], ...] = (
    (InvalidRequest, 2),
    (SettingsError, 2),
    (NotFound, 3),
    (ServerUnreachable, 4),
    (SourceUnreachable, 4),
    (Unauthorized, 5),
    (Forbidden, 5),
    (Conflict, 5),
    (RateLimited, 6),
    (Overloaded, 6),
    (StoreFull, 6),
    (Cancelled, 130),
)


def exit_code(error: DockyardError) -> int:
    """The exit code that a script can tell this kind of failure by."""
    refused = 5 if error.status == Forbidden.status else 1  # errors of other parts, which the tree does not know
    return next((code for kind, code in CODES if isinstance(error, kind)), refused)


def report(error: Exception) -> int:
    """Print what went wrong on stderr and return the exit code."""
    if isinstance(error, DockyardError):
        _say(error.message, error.hint)
        return exit_code(error)
    if hasattr(error, "format_message"):  # wrong flags and arguments, as the parser words them
        ctx = getattr(error, "ctx", None)
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message(), file=sys.stderr)
            return 2
        _say(error.format_message(), f"see `{ctx.command_path} --help`" if ctx else None)
        return 2
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        _say(f"{place}{error.strerror}", None)
        return 1
    _say(f"{type(error).__name__}: {error}", "this is a defect in Dockyard; `dockyard --debug …` shows where it is")
    return 1


def _say(message: str, hint: str | None) -> None:
    colour = sys.stderr.isatty()
    red, dim, plain = ("\033[31m", "\033[2m", "\033[0m") if colour else ("", "", "")
    print(f"{red}error:{plain} {message}", file=sys.stderr)
    if hint:
        print(f"{dim}hint:{plain} {hint}", file=sys.stderr)
