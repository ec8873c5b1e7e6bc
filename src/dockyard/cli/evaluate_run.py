"""``dockyard eval``: suites put to models, and sent to registries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dockyard.cli._options import AsJson, Host, Models

if TYPE_CHECKING:
    from dockyard.ops.evaluate.compare import Comparison
    from dockyard.ops.evaluate.result import Run
    from dockyard.ops.evaluate.run import Plan
    from dockyard.ops.evaluate.suite import Loaded
    from dockyard.settings import Settings

Suite = Annotated[str, typer.Argument(metavar="SUITE", help="A suite's YAML file, or an artifact's name.")]


def run(
    suite: Suite,
    models: Models,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first items.")] = None,
    together: Annotated[int, typer.Option(min=1, max=256, help="Items that are asked together.")] = 4,
    again: Annotated[bool, typer.Option("--again", help="Measure though it was measured before.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Ask items again that had failed.")] = False,
    repeat: Annotated[int, typer.Option(min=0, help="Number of a repetition, with other seeds.")] = 0,
    speed: Annotated[bool, typer.Option("--speed", help="Measure speed and memory too, for gates.")] = False,
    unseen: Annotated[
        list[str] | None,
        typer.Option("--trained-on", metavar="DATA", help="Data to look for the items in: a file or data set."),
    ] = None,
    judge_host: Annotated[
        str | None, typer.Option("--judge-host", metavar="URL", help="Where judges and embeddings are asked.")
    ] = None,
    as_json: AsJson = False,
    host: Host = None,
) -> int:
    """Put SUITE to each MODEL as it is served: a running server, or this process.

    A run that was stopped goes on where it was; one that is finished is shown again. With several models each is
    compared with the first. Exit code 1 if any item could not be measured.
    """
    import asyncio

    from dockyard import stack
    from dockyard.cli._connect import fetch_missing, named_server, open_store, read_settings
    from dockyard.cli._output import show_json
    from dockyard.ops.evaluate import artifact
    from dockyard.ops.evaluate.compare import compare
    from dockyard.ops.evaluate.contamination import look
    from dockyard.ops.evaluate.run import Plan

    settings = read_settings()
    store = open_store(settings)
    loaded = artifact.find(store, suite, settings.home_path / "evaluations" / "suites", limit=limit)
    seen = look(loaded, store, unseen or [])
    plan = Plan(together=together, again=again, retry=retry, repeat=repeat, speed=speed, contamination=seen)
    if named_server(host) is None:
        routes = stack.of(settings).aliases()
        for model in models:
            if model not in routes:
                fetch_missing(model, settings, quiet=as_json)
    runs = asyncio.run(_runs(settings, loaded, models, plan, host, judge_host, quiet=as_json))
    compared = [compare(runs[0], other) for other in runs[1:]]
    if as_json:
        show_json({"runs": runs, "comparisons": compared})
    else:
        _show(settings, runs, compared)
    return 1 if any(each.errors for run in runs for each in run.aggregates) else 0


async def _runs(
    settings: Settings,
    loaded: Loaded,
    models: list[str],
    plan: Plan,
    host: str | None,
    judge_host: str | None,
    *,
    quiet: bool,
) -> list[Run]:
    from contextlib import AsyncExitStack

    from dockyard.cli._connect import find_server, named_server, open_store
    from dockyard.cli._progress import progress
    from dockyard.cli._session import terminable
    from dockyard.cli.run import in_process
    from dockyard.client import AsyncClient
    from dockyard.ops.evaluate.run import evaluate
    from dockyard.ops.evaluate.subject import subject_of

    found = []
    async with AsyncExitStack() as stack:
        stack.enter_context(terminable())
        client = await stack.enter_async_context(find_server(host, settings) or in_process(settings))
        judges = await stack.enter_async_context(AsyncClient(judge_host)) if judge_host else None
        with progress(quiet=quiet) as show:
            for model in models:
                subject = await subject_of(client, model, open_store(settings), named_server(host))
                home = settings.home_path
                found.append(await evaluate(loaded, subject, client, home, plan, judges=judges, on_progress=show))
    return found


def _show(settings: Settings, runs: list[Run], compared: list[Comparison]) -> None:
    from dockyard.cli._evaluation import print_comparison, print_run
    from dockyard.cli._output import note
    from dockyard.ops.evaluate import shelf

    for number, each in enumerate(runs):
        print("\n" * bool(number), end="")
        print_run(each)
        note(f"kept as {shelf.place(settings.home_path, each.id)}")
    for comparison in compared:
        print()
        print_comparison(comparison)


def push(
    suite: Suite,
    to: Annotated[str, typer.Argument(metavar="REFERENCE", help="Its name, as [host/]path[:tag].")],
    local: Annotated[bool, typer.Option("--local", help="Only name it in the store here.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make SUITE and its data an artifact called REFERENCE, and send it to its registry."""
    from pathlib import Path

    from dockyard.artifact.transfer import push as send
    from dockyard.cli._connect import open_store, read_settings
    from dockyard.cli._output import show_json
    from dockyard.cli._progress import progress
    from dockyard.ops.evaluate import artifact

    settings = read_settings()
    store = open_store(settings)
    digest = artifact.pack(store, Path(suite), store.named(to))
    if not local:
        with progress(quiet=as_json) as show:
            send(store, digest, settings, to=to, on_progress=show)
    if as_json:
        return show_json({"reference": to, "digest": digest})
    print(f"{to} {digest}")
    return None


def harness(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name, digest or id.")],
    tasks: Annotated[list[str], typer.Argument(metavar="TASK", help="Tasks by name, or files that define them.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first items of each task.")] = None,
    shots: Annotated[int | None, typer.Option(min=0, help="Examples before each item.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask over chat: tasks of generated answers only.")] = False,
    tokenizer: Annotated[
        str | None, typer.Option(metavar="DIR", help="A tokenizer's folder; else the server's /tokenize is asked.")
    ] = None,
    prefix: Annotated[
        str, typer.Option(metavar="TOKEN", help="What goes before texts without context, as <|im_start|>.")
    ] = "",
    files: Annotated[
        str | None, typer.Option(metavar="DIR|FILE.gguf", help="Measure these files by the harness's own backend.")
    ] = None,
    as_json: AsJson = False,
    host: Host = None,
) -> int:
    """Run TASKs of lm-evaluation-harness, which must be installed, on MODEL as it is served."""
    from dockyard.cli._connect import fetch_missing, named_server, read_settings
    from dockyard.cli._output import show_json, show_table
    from dockyard.cli._serving import served
    from dockyard.ops.evaluate import harness as lm_eval

    settings = read_settings()
    asked = lm_eval.Asked(
        model=model,
        tasks=tuple(tasks),
        limit=limit,
        shots=shots,
        chat=chat,
        tokenizer=tokenizer,
        prefix=prefix,
        files=files,
    )
    lm_eval.check(asked)
    if files is not None:
        found = lm_eval.run(asked, None)
    else:
        if named_server(host) is None:
            fetch_missing(model, settings, quiet=as_json)
        with served(settings, host) as (url, key):
            found = lm_eval.run(asked, url, key)
    if as_json:
        show_json(found)
        return 0
    rows = [(task, name, f"{value:.6g}") for task, figures in found.items() for name, value in figures.items()]
    show_table(("task", "metric", "value"), rows)
    return 0
