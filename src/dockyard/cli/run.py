"""``dockyard run``: one answer, or a conversation."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from dockyard.cli._options import AsJson, Host, Model

if TYPE_CHECKING:
    from dockyard.cli._session import Session
    from dockyard.client import AsyncClient
    from dockyard.settings import Settings


def run(
    model: Model,
    prompt: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT", help="What to ask; `-` stands for standard input. Without: talk."),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", "-s", help="System prompt.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Randomness; 0 always takes the likeliest token.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes a random answer repeatable.")] = None,
    as_json: AsJson = False,
    stats: Annotated[bool, typer.Option("--stats", help="Print counts and speed after each answer.")] = False,
    host: Host = None,
) -> int:
    """Ask MODEL, which is pulled first if the store lacks it; without PROMPT on a terminal, talk with it.

    A running server is asked if there is one; else the model is loaded here and unloaded at the end.
    """
    import asyncio

    from dockyard.cli._connect import fetch_missing, named_server, read_settings
    from dockyard.cli._session import Session

    text = _prompt(prompt or [])
    settings = read_settings()
    if named_server(host) is None:
        fetch_missing(model, settings, quiet=as_json)
    sampling = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
    session = Session(model=model, system=system, sampling={n: v for n, v in sampling.items() if v is not None})
    return asyncio.run(_run(session, text, settings, host=host, as_json=as_json, stats=stats))


def _prompt(words: list[str]) -> str | None:
    """The prompt from the arguments and, where it is asked for or nothing else is there, standard input."""
    if not words:
        return None if sys.stdin.isatty() else sys.stdin.read()
    return " ".join(sys.stdin.read() if word == "-" else word for word in words)


async def _run(
    session: Session, text: str | None, settings: Settings, *, host: str | None, as_json: bool, stats: bool
) -> int:
    from dockyard.cli._connect import find_server
    from dockyard.cli._session import answer_once, converse, terminable

    with terminable():
        client = find_server(host, settings) or in_process(settings)
        async with client:
            if text is not None:
                return await answer_once(session, client, text, as_json=as_json, stats=stats)
            return await converse(session, client, settings, stats=stats)


def in_process(settings: Settings) -> AsyncClient:
    """The same application that a server runs, without a socket."""
    from dockyard.api import create_app
    from dockyard.client import AsyncClient

    return AsyncClient(app=create_app(settings, trusted=True))
