"""``dockyard key``: keys that open the server of this home, kept as digests in its database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from dockyard.cli._options import AsJson

if TYPE_CHECKING:
    from dockyard.state import State

T = TypeVar("T")

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, add_completion=False, help="Create, list and remove API keys."
)


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is, or what for.")],
    manage: Annotated[bool, typer.Option("--manage", help="May also load, unload, pull, push and stop.")] = False,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="May only use models that match; may be repeated.")
    ] = None,
    requests_per_minute: Annotated[int, typer.Option(help="Limit; 0: the server's own.")] = 0,
    days: Annotated[float | None, typer.Option("--days", help="Expires after so many days.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print its secret, which is shown this once. A running server knows it within seconds."""
    from dockyard.cli._output import note, show_json

    made, secret = _with_state(
        lambda state: state.create_key(
            name,
            scopes=frozenset({"infer", "manage"} if manage else {"infer"}),
            models=tuple(model or ()),
            requests_per_minute=requests_per_minute,
            expires_in=days * 86400 if days is not None else None,
        )
    )
    if as_json:
        import msgspec

        return show_json({**msgspec.to_builtins(made), "secret": secret})
    note(f"Key {made.name!r} ({', '.join(made.scopes)}); its secret is shown only now:")
    print(secret)
    return None


@app.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List keys; their secrets are kept nowhere."""
    from dockyard.cli._output import ago, show_json, show_table, span

    found = _with_state(lambda state: state.list_keys())
    if as_json:
        return show_json(found)
    rows = []
    for key in found:
        ends = "never" if key.expires is None else f"in {span(key.expires - _now())}"
        limit = f"{key.requests_per_minute}/min" if key.requests_per_minute else "-"
        rows.append((key.name, ", ".join(key.scopes), ", ".join(key.models) or "any", limit, ago(key.created), ends))
    return show_table(("name", "may", "models", "limit", "created", "expires"), rows)


@app.command("rm")
def rm(names: Annotated[list[str], typer.Argument(metavar="NAME")]) -> None:
    """Revoke keys."""

    async def revoke(state: State) -> None:
        for name in names:
            await state.revoke_key(name)
            print(f"revoked {name}")

    _with_state(revoke)


def _with_state(call: Callable[[State], Awaitable[T]]) -> T:
    import asyncio

    from dockyard.cli._connect import read_settings
    from dockyard.state import State

    async def use() -> T:
        settings = read_settings()
        settings.home_path.mkdir(parents=True, exist_ok=True)
        state = State(settings.database_url)
        await state.open()
        try:
            return await call(state)
        finally:
            await state.close()

    return asyncio.run(use())


def _now() -> float:
    import time

    return time.time()
