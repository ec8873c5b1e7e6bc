"""``dockyard arena``: people judge answers blind, in a terminal; what they say becomes a ranking or training data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dockyard.cli._options import AsJson, Host

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Let people judge answers, blind.")

Name = Annotated[str, typer.Argument(metavar="ARENA", help="The arena's name.")]
Rater = Annotated[str, typer.Option("--rater", help="Who judges.")]
Consent = Annotated[bool, typer.Option("--consent", help="These votes may become training data.")]
Limit = Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Tasks in this sitting.")]


@app.command("create")
def create(
    name: Name,
    answers: Annotated[
        Path | None,
        typer.Option("--answers", metavar="FILE.jsonl", help='Lines of {"prompt": …, "answers": {MODEL: …}}.'),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", metavar="FILE", help="A prompt a line, for the models to answer.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="With --prompts: who answers; several times.")
    ] = None,
    runs: Annotated[
        list[str] | None, typer.Option("--run", metavar="RUN", help="Answers of an evaluation; several times.")
    ] = None,
    kind: Annotated[Literal["pairs", "rating"], typer.Option(help="Pairs of answers, or single ones.")] = "pairs",
    question: Annotated[str, typer.Option(help="What raters are asked.")] = "",
    scale: Annotated[int, typer.Option(help="Best rating, of 1 at least.")] = 5,
    max_tokens: Annotated[int, typer.Option(help="With --prompts: longest answer.")] = 256,
    as_json: AsJson = False,
    host: Host = None,
) -> None:
    """Make an arena of answers that are there, or that models give now."""
    from dockyard.cli._arena import asked, door, gather_runs
    from dockyard.cli._output import show_json
    from dockyard.errors import InvalidRequest
    from dockyard.ops.arena.service import Asked, Draft, read_items

    if sum(each is not None for each in (answers, prompts, runs)) != 1:
        raise InvalidRequest("an arena is made of --answers, of --prompts with --model, or of --run", param="answers")
    if (prompts is not None) != bool(model):
        raise InvalidRequest("--prompts and --model belong together", param="model")
    items: tuple[Asked, ...]
    if answers is not None:
        items = read_items(answers.read_text(encoding="utf-8").splitlines(), str(answers))
    elif prompts is not None:
        lines = [each for each in prompts.read_text(encoding="utf-8").splitlines() if each.strip()]
        items = asked(lines, model or [], host, max_tokens=max_tokens, quiet=as_json)
    else:
        items = gather_runs(runs or [])
    draft = Draft(name=name, items=items, kind=kind, question=question, scale=scale)
    made = door(host, lambda arenas: arenas.create(draft))
    if as_json:
        return show_json(made)
    print(f"{made.name}: {made.items} items, {made.tasks} tasks. Judge them with `dockyard arena "
          f"{'vote' if kind == 'pairs' else 'rate'} {name} --rater YOU`")  # fmt: skip
    return None


@app.command("ls")
def ls(as_json: AsJson = False, host: Host = None) -> None:
    """List arenas."""
    from dockyard.cli._arena import door
    from dockyard.cli._output import ago, show_json, show_table

    found = door(host, lambda arenas: arenas.all())
    if as_json:
        return show_json(found)
    rows = [(each.name, each.kind, each.items, each.tasks, each.votes, ago(each.created)) for each in found]
    return show_table(("name", "kind", "items", "tasks", "votes", "created"), rows)


@app.command("vote")
def vote(name: Name, rater: Rater = "me", consent: Consent = False, limit: Limit = None, host: Host = None) -> None:
    """Say which of two answers is better: l(eft), r(ight), t(ie), b(ad both); q ends the sitting."""
    from dockyard.cli._arena import sit

    sit(host, name, "pairs", rater, consent=consent, limit=limit)


@app.command("rate")
def rate(name: Name, rater: Rater = "me", consent: Consent = False, limit: Limit = None, host: Host = None) -> None:
    """Give single answers a number; q ends the sitting."""
    from dockyard.cli._arena import sit

    sit(host, name, "rating", rater, consent=consent, limit=limit)


@app.command("results")
def results(name: Name, as_json: AsJson = False, host: Host = None) -> None:
    """Show the ranking with its intervals, and how far the raters agree."""
    from dockyard.cli._arena import door, show_results
    from dockyard.cli._output import show_json

    found = door(host, lambda arenas: arenas.results(name))
    return show_json(found) if as_json else show_results(found)


@app.command("export")
def export(
    name: Name,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE.jsonl", help="Where to; else the terminal.")
    ] = None,
    host: Host = None,
) -> None:
    """Write votes as preference data: prompt, chosen, rejected; with consent, and without personal data."""
    from dockyard.cli._arena import door
    from dockyard.cli._output import note
    from dockyard.errors import InvalidRequest

    data, told = door(host, lambda arenas: arenas.exported(name))
    if out is not None:
        part = out.with_name(out.name + ".part")
        try:
            part.write_bytes(data)
            part.replace(out)
        except OSError as error:
            raise InvalidRequest(f"{out}: {error.strerror}", param="out") from error
    else:
        print(data.decode(), end="")
    note(told)


@app.command("rm")
def rm(name: Name, host: Host = None) -> None:
    """Delete an arena and its votes."""
    from dockyard.cli._arena import door

    door(host, lambda arenas: arenas.remove(name))
    print(f"removed {name}")


@app.command("forget")
def forget(name: Name, rater: Rater, host: Host = None) -> None:
    """Take back all that a rater said."""
    from dockyard.cli._arena import door

    print(f"removed {door(host, lambda arenas: arenas.forget(name, rater))} votes of {rater}")
