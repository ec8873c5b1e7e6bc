"""``dockyard mcp approvals``, ``quarantine`` and ``audit``: what a person decides and looks up, in the home's files."""

from __future__ import annotations

from typing import Annotated

import typer

from dockyard.cli._options import AsJson

approvals = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help="List, grant and refuse calls that wait for a person.",
)
quarantine = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help="List and review tools whose definition changed or is suspicious.",
)
audit = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, add_completion=False, help="Show and verify the record of calls."
)
Id = Annotated[list[str], typer.Argument(metavar="ID", help="Approvals as `approvals ls` names them.")]


@approvals.command("ls")
def approvals_ls(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Also those that were answered.")] = False,
    as_json: AsJson = False,
) -> None:
    """List calls that wait for a person, with their arguments."""
    import msgspec

    from dockyard.cli._mcp import person, safety
    from dockyard.cli._output import show_json, show_table, span

    found = [(one, standing) for one, standing in safety().approvals(person()) if everything or standing == "pending"]
    if as_json:
        return show_json([{**msgspec.to_builtins(one), "standing": standing} for one, standing in found])
    rows = [
        (
            one.id,
            standing,
            one.principal,
            one.tool,
            msgspec.json.encode(one.arguments).decode(),
            one.reason,
            f"in {span(one.expires - _now())}",
        )
        for one, standing in found
    ]
    return show_table(("id", "stands", "who", "tool", "arguments", "reason", "expires"), rows)


@approvals.command("grant")
def grant(ids: Id) -> None:
    """Agree to calls; each is good once, for these very arguments."""
    _answer(ids, ok=True)


@approvals.command("refuse")
def refuse(ids: Id) -> None:
    """Refuse calls."""
    _answer(ids, ok=False)


def _answer(ids: list[str], *, ok: bool) -> None:
    from dockyard.cli._mcp import person, safety

    for each in ids:
        one = safety().grant(each, person(), ok)
        print(f"{'granted' if ok else 'refused'} {one.id}: {one.tool}")


def _now() -> float:
    import time

    return time.time()


@quarantine.command("ls")
def quarantine_ls(
    server: Annotated[str, typer.Option("--server", metavar="NAME", help="Only this server's.")] = "",
    as_json: AsJson = False,
) -> None:
    """List tools that are kept back until a person reviews them."""
    from dockyard.cli._mcp import safety
    from dockyard.cli._output import ago, show_json, show_table

    found = safety().quarantine(server or None)
    if as_json:
        return show_json(found)
    rows = [
        (f"{one.server}.{one.tool}", one.why, "; ".join(one.reasons) or "-", ago(one.since), one.fingerprint)
        for one in found
    ]
    return show_table(("tool", "why", "reasons", "since", "fingerprint"), rows)


@quarantine.command("review")
def review(
    tool: Annotated[str, typer.Argument(metavar="SERVER.TOOL")],
    accept: Annotated[bool, typer.Option("--accept", help="Offer it from now on.")] = False,
    refuse_: Annotated[bool, typer.Option("--refuse", help="Keep it back for good.")] = False,
    fingerprint: Annotated[
        str, typer.Option("--fingerprint", metavar="F", help="Only if it is still this definition.")
    ] = "",
) -> None:
    """Show what changed in a tool's definition, and accept or refuse it."""
    from dockyard.cli._mcp import safety
    from dockyard.errors import InvalidRequest, NotFound

    if accept and refuse_:
        raise InvalidRequest("--accept or --refuse, not both")
    guard = safety()
    one = next((each for each in guard.quarantine() if f"{each.server}.{each.tool}" == tool), None)
    if one is None:
        raise NotFound(f"no tool {tool!r} is held", hint="`dockyard mcp quarantine ls` lists them")
    if not (accept or refuse_):
        print(f"{tool}: {one.why}{''.join(f'; {reason}' for reason in one.reasons)}\n{one.fingerprint}\n{one.diff}")
        return
    guard.review(one.server, one.tool, accept, fingerprint or one.fingerprint)
    print(f"{'accepted' if accept else 'refused'} {tool}")


@audit.command("ls")
def audit_ls(
    last: Annotated[int, typer.Option("--last", "-n", min=1, help="So many of the latest.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show the latest calls: who, what, and what was decided."""
    from dockyard.cli._mcp import safety
    from dockyard.cli._output import ago, show_json, show_table

    found = safety().log.read(last)
    if as_json:
        return show_json(found)
    rows = [
        (
            ago(one.get("at")),
            one.get("principal"),
            one.get("profile"),
            f"{one.get('server')}.{one.get('tool')}",
            one.get("decision"),
            one.get("error") or "-",
            f"{1000 * float(one.get('seconds') or 0):.0f} ms",
        )
        for one in found
    ]
    return show_table(("when", "who", "profile", "tool", "decision", "error", "took"), rows)


@audit.command("verify")
def audit_verify(as_json: AsJson = False) -> int:
    """Check that no line of the record was changed or taken out; the exit code is 1 if one was."""
    import msgspec

    from dockyard.cli._mcp import safety
    from dockyard.cli._output import show_json

    verdict = safety().log.verify()
    told = msgspec.to_builtins(verdict)
    if as_json:
        show_json(told)
    else:
        print(f"{verdict.lines} lines fit together" + (f"; then {verdict.broken}" if verdict.broken else ""))
    return int(bool(verdict.broken))
