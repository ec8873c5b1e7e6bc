"""Write docs/reference/*.md from the code: settings, command line, HTTP API, errors, operations.

``python scripts/reference.py`` writes them; with ``--check`` it only says which are stale, and fails if any is. A test
does the same, so the pages can't lie for longer than a commit.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
NOTE = "<!-- Written by scripts/reference.py; change the code, then run `make docs`. -->\n\n"
WIDTH = 100

SETTINGS = """\
# Settings

A flag of `dockyard serve` goes over an environment variable, that over a line of the settings file, that over the
default. `dockyard config` shows every value with where it came from. The file is YAML, one `name: value` a line, at
`$DOCKYARD_CONFIG` or `dockyard/settings.yaml` in the user's configuration folder; lists are separated by commas in
variables, and an empty variable is an unset one: what shall be empty is said in the file. Sizes are bytes, times
seconds. Unknown names and values of the wrong type are errors.

"""
HTTP = """\
# HTTP API

On port 12434 unless set otherwise. `/docs` of a running server shows the same with all types, `/openapi.json` is the
machine-readable description. Errors come in the shape of the dialect; [errors](errors.md) lists them.
"""
ERRORS = """\
# Errors

Every failure that Dockyard reports on purpose. Programs match on the code; people read the message and the hint, which
says what to do. The status is the HTTP answer's, the exit code the command line's.

"""
OPERATIONS = """\
# Operations

Each maps artifacts and files to an artifact, and is keyed by its version, its parameters and the digests of its inputs:
where the store has an artifact with the same key, that one is used again.
"""


def pages() -> dict[str, str]:
    """Each page's file name and text."""
    return {
        "settings.md": NOTE + settings_page(),
        "cli.md": NOTE + cli_page(),
        "http.md": NOTE + http_page(),
        "errors.md": NOTE + errors_page(),
        "operations.md": NOTE + operations_page(),
    }


def table(titles: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in cells)]) + "\n"


def code(value: object) -> str:
    return f"`{value}`" if value not in ("", None) else ""


def settings_page() -> str:
    from dockyard import settings

    rows = []
    for name, default, text in settings.names():
        shown = ", ".join(default) if isinstance(default, tuple) else default
        shown = str(shown).lower() if isinstance(shown, bool) else shown
        rows.append([code(name), code(f"DOCKYARD_{name.upper()}"), code(shown), text])
    return SETTINGS + table(["setting", "variable", "default", "what it does"], rows)


def cli_page() -> str:
    from dockyard.cli import EPILOG, SECTIONS, Commands

    commands = Commands()
    parts = ["# Command line\n", f"{EPILOG}\n"]
    for title, verbs in SECTIONS.items():
        parts.append(f"## {title}\n")
        for name in verbs:
            for path, text in _helps(commands[name], f"dockyard {name}"):
                parts.append(f"### `{path}`\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def _helps(command: Any, path: str) -> Iterator[tuple[str, str]]:
    """The help of a command, or of every command in a group."""
    inner = getattr(command, "commands", None)
    if inner:
        for name in inner:
            yield from _helps(inner[name], f"{path} {name}")
        return
    context = command.make_context(path, [], resilient_parsing=True, terminal_width=WIDTH, max_content_width=WIDTH)
    yield path, "\n".join(line.rstrip() for line in command.get_help(context).splitlines()).strip()


def http_page() -> str:
    from dockyard.api import create_app
    from dockyard.api.reference import complete
    from dockyard.settings import Settings

    with tempfile.TemporaryDirectory() as home:
        described = complete(create_app(Settings(home=home)).openapi_schema.to_schema())
    groups: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if isinstance(operation, dict) and "responses" in operation:
                groups.setdefault((operation.get("tags") or ["Other"])[0], []).append((method.upper(), path, operation))
    parts = [HTTP]
    for tag in sorted(groups, key=lambda tag: (tag != "OpenAI", tag)):
        rows = [[code(method), code(path), operation.get("summary") or ""] for method, path, operation in groups[tag]]
        parts.append(f"## {tag}\n\n" + table(["method", "path", "what it does"], rows))
    for method, path, operation in groups["OpenAI"]:
        rows = _fields(described, operation)
        if rows:
            parts.append(f"### Fields of `{method} {path}`\n\n" + table(["field", "type", ""], rows))
    return "\n".join(parts)


def _fields(described: dict[str, Any], operation: dict[str, Any]) -> list[list[str]]:
    from dockyard.api.reference import _kind, _resolved

    found = []
    for content in operation.get("requestBody", {}).get("content", {}).values():
        schema = _resolved(described, content.get("schema", {}))
        for name, field in schema.get("properties", {}).items():
            star = "required. " if name in schema.get("required", ()) else ""
            found.append([code(name), _kind(field, described), star + str(field.get("description", ""))])
    return found


def errors_page() -> str:
    from dockyard import errors
    from dockyard.cli._failure import exit_code

    def walk(kind: type[errors.DockyardError], depth: int) -> Iterator[list[str]]:
        yield [f"{'&emsp;' * depth}`{kind.__name__}`", str(kind.status), code(kind.code), str(exit_code(kind("")))]
        for inner in kind.__subclasses__():
            if inner.__module__ == errors.__name__:
                yield from walk(inner, depth + 1)

    tree = (errors.__doc__ or "").split("\n\n")
    return (
        ERRORS
        + table(["error", "status", "code", "exit"], list(walk(errors.DockyardError, 0)))
        + "\nThe same tree, with what some of them mean:\n\n```text\n"
        + "\n".join(line.removeprefix("    ") for line in tree[1].splitlines())
        + "\n```\n"
    )


def operations_page() -> str:
    from dockyard import ops, plugins

    parts = [OPERATIONS]
    for plugin in plugins.find("ops").values():
        operation: Any = plugin.load()
        rows = [
            [code(option.name), option.kind.replace(" | ", " or "), code(option.default), option.help]
            for option in ops.options(operation.params)
        ]
        parts.append(f"## {operation.name}\n\nVersion {operation.version}.\n")
        parts.append(table(["parameter", "type", "default", "what it does"], rows))
    return "\n".join(parts)


def stale() -> list[str]:
    """Pages whose text on disk is not what the code says now."""
    found = pages()
    left = {path.name for path in FOLDER.glob("*.md")} - set(found)
    return sorted(left | {name for name, text in found.items() if not (FOLDER / name).exists() or _read(name) != text})


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def main() -> int:
    for name in [name for name in os.environ if name.startswith("DOCKYARD_")]:
        del os.environ[name]
    if "--check" in sys.argv[1:]:
        found = stale()
        print(
            "\n".join(f"docs/reference/{name} is stale: run `make docs`" for name in found) or "reference: up to date"
        )
        return bool(found)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
