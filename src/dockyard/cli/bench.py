"""``dockyard bench``: how fast a model answers, and which way to load it is best on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dockyard.cli._options import AsJson, Host, Model

if TYPE_CHECKING:
    from dockyard.client import AsyncClient
    from dockyard.ops.bench.figures import Figures, Objective
    from dockyard.ops.bench.resources import Resources
    from dockyard.ops.bench.tune import Trial, Tuned
    from dockyard.settings import Settings
    from dockyard.types import LoadOptions


def bench(
    model: Model,
    streams: Annotated[int, typer.Option(min=1, max=256, help="Answers that are generated together.")] = 8,
    tokens: Annotated[int, typer.Option(min=2, max=8192, help="Length of each answer.")] = 64,
    requests: Annotated[int | None, typer.Option(min=1, help="Answers in all; three a stream if not said.")] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Open loop: so many requests arrive a second, at random.")
    ] = None,
    prompt_words: Annotated[int, typer.Option(min=2, max=100_000, help="Length of each prompt, in words.")] = 32,
    ttft: Annotated[float, typer.Option(help="Objective: seconds to the first token, for 95 of 100 answers.")] = 1.0,
    tpot: Annotated[float, typer.Option(help="Objective: seconds for each further token, likewise.")] = 0.1,
    tune: Annotated[bool, typer.Option("--tune", help="Try ways to load MODEL here and keep the best.")] = False,
    minutes: Annotated[float, typer.Option(help="With --tune: no new trial after so long.")] = 10.0,
    save: Annotated[bool, typer.Option(help="With --tune: load MODEL so from now on.")] = True,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="With --tune: draw the trials and their Pareto front.")
    ] = None,
    as_json: AsJson = False,
    host: Host = None,
) -> int:
    """Measure MODEL as it is served: TTFT, time a token, throughput, goodput; with --tune, search for better.

    A running server is measured if there is one; --tune loads the model here, many times, and wants none running.
    """
    import asyncio

    from dockyard.cli._connect import fetch_missing, find_server, named_server, read_settings
    from dockyard.ops.bench.figures import Objective
    from dockyard.ops.bench.load import Load

    settings = read_settings()
    if named_server(host) is None:
        fetch_missing(model, settings, quiet=as_json)
    objective = Objective(ttft=ttft, tpot=tpot)
    load = Load(streams=streams, requests=requests or 3 * streams, tokens=tokens, prompt_words=prompt_words, rate=rate)
    if not tune:
        client = find_server(host, settings) or _in_process(settings)
        return asyncio.run(_measure_once(client, model, load, objective, as_json=as_json))
    tuned = asyncio.run(_tune(settings, model, load, objective, minutes * 60, quiet=as_json))
    _keep(tuned, settings, model, save=save, picture=picture, as_json=as_json)
    return 0


def _in_process(settings: Settings) -> AsyncClient:
    from dockyard.api import create_app
    from dockyard.client import AsyncClient

    return AsyncClient(app=create_app(settings, trusted=True))


async def _measure_once(client: AsyncClient, model: str, load: Any, objective: Objective, *, as_json: bool) -> int:
    import msgspec

    from dockyard.cli._output import note, show_json
    from dockyard.ops.bench.figures import summarize
    from dockyard.ops.bench.load import answer, run
    from dockyard.ops.bench.resources import watch

    async with client:
        first = await answer(client, model, "Hello.", 2)  # loads the model
        if first.error:
            note(f"error: {first.error}")
            return 1
        async with watch(client, model) as watched:
            samples = await run(client, model, load)
    streams = load.streams if load.rate is None else 0
    figures, taken = summarize(samples, streams, objective), watched.resources
    if as_json:
        show_json({**msgspec.structs.asdict(figures), **msgspec.structs.asdict(taken), "rate": load.rate})
    else:
        _print_figures(figures, load.rate)
        _print_resources(taken, figures)
    failed = next((sample.error for sample in samples if sample.error), "")
    if failed and not as_json:
        note(f"{figures.failed} of {len(samples)} requests failed: {failed}")
    return 1 if figures.failed else 0


def _print_figures(figures: Figures, rate: float | None) -> None:
    how = f"{figures.streams} at a time" if rate is None else f"{rate:g} asked for a second"
    print(f"{figures.answers} answers, {how}, {figures.seconds:.1f} s")
    print(f"throughput  {figures.throughput:.1f} tokens/s    goodput {figures.goodput:.2f} answers/s")
    print(f"TTFT        p50 {_ms(figures.ttft_p50)}   p95 {_ms(figures.ttft_p95)}   p99 {_ms(figures.ttft_p99)}")
    print(f"TPOT        p50 {_ms(figures.tpot_p50)}   p95 {_ms(figures.tpot_p95)}   p99 {_ms(figures.tpot_p99)}")
    print(f"ITL         p50 {_ms(figures.itl_p50)}   p95 {_ms(figures.itl_p95)}   p99 {_ms(figures.itl_p99)}")
    print(f"objective   kept by {figures.within:.0%} of the requests")


def _print_resources(taken: Resources, figures: Figures) -> None:
    """What the machine tells; nothing where it tells nothing."""
    from dockyard.cli._output import size

    told = []
    if taken.memory_peak is not None:
        told.append(f"memory peak {size(taken.memory_peak)}")
    if taken.cpu_seconds is not None:
        told.append(f"processor {taken.cpu_seconds:.1f} s")
    if taken.joules is not None:
        each = f" ({taken.joules / figures.tokens:.2f} J a token)" if figures.tokens else ""
        told.append(f"energy {taken.joules:.0f} J{each}")
    if told:
        print(f"took        {'   '.join(told)}")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


async def _tune(
    settings: Settings, model: str, load: Any, objective: Objective, seconds: float, *, quiet: bool
) -> Tuned:
    from dockyard.artifact.materialize import model_files
    from dockyard.cli._connect import open_store
    from dockyard.client import running
    from dockyard.engines import builtin
    from dockyard.errors import Conflict, InvalidRequest
    from dockyard.hardware import detect
    from dockyard.ops.bench import tune as search

    if running(settings.home_path) is not None:
        raise Conflict("a server runs on this home, and tuning wants the machine to itself", hint="`dockyard stop`")
    if builtin(model) is not None:
        raise InvalidRequest(f"{model} is built in: there is nothing to choose", param="model")
    files, machine = model_files(open_store(settings), model), detect()
    client = _in_process(settings)
    async with client:
        measure = _measurer(client, model, load, objective)
        stages = search_stages(files, settings, machine)
        return await search.tune(stages, measure, objective, seconds=seconds, on_trial=None if quiet else _told)


def _measurer(client: AsyncClient, model: str, load: Any, objective: Objective) -> Any:
    import msgspec

    from dockyard.ops.bench.figures import summarize
    from dockyard.ops.bench.load import run

    async def measure(options: LoadOptions) -> tuple[Figures, Figures, int]:
        await client.call("POST", "/api/dockyard/load", {"model": model, "options": msgspec.to_builtins(options)})
        alone = msgspec.structs.replace(load, streams=1, requests=2, rate=None)
        await run(client, model, msgspec.structs.replace(load, requests=load.streams, rate=None))  # warm
        one = summarize(await run(client, model, alone), 1, objective)
        many = summarize(await run(client, model, load), load.streams, objective)
        memory = sum(row.get("measured") or 0 for row in await client.ps())
        return one, many, memory

    return measure


def search_stages(files: Any, settings: Settings, machine: Any) -> list[Callable[[LoadOptions], list[Any]]]:
    """Engines first, then what the best of them can vary, then threads and batch size."""
    from dockyard import engines
    from dockyard.ops.bench.tune import Knob
    from dockyard.types import LoadOptions

    able = [name for name, reason in engines.survey(files, settings, machine, "chat").items() if not reason]

    def which(_: LoadOptions) -> list[Any]:
        values = {name: LoadOptions(engine=name) for name in able}
        if len(able) > 1:
            values["+".join(able[:2])] = LoadOptions(replicas=tuple(able[:2]))
        return [Knob(name="engine", values=values)]

    def own(best: LoadOptions) -> list[Any]:
        found = []
        for name in best.replicas or (best.engine or (*able, "")[0],):
            knobs = getattr(engines.create(name), "knobs", None) if name else None
            for knob, values in (knobs(files, machine) if knobs is not None else {}).items():
                found.append(Knob(name=f"{name} {knob}", values=values))
        return found

    def machine_wide(_: LoadOptions) -> list[Any]:
        threads = {f"{n}": LoadOptions(threads=n) for n in range(1, machine.cores + 1)}
        batch = {f"{n}": LoadOptions(parallel=n) for n in (4, 8, 16, 32)}
        return [Knob(name="threads", values=threads), Knob(name="batch size", values=batch)]

    return [which, own, machine_wide]


def _told(trial: Trial) -> None:
    from dockyard.cli._output import note

    if trial.one is None or trial.many is None:
        note(f"{trial.label}: {trial.error}")
    else:
        note(f"{trial.label}: {trial.one.throughput:.0f} tokens/s alone, {trial.many.throughput:.0f} together")


def _keep(tuned: Tuned, settings: Settings, model: str, *, save: bool, picture: Path | None, as_json: bool) -> None:
    from dockyard.cli._connect import open_store
    from dockyard.cli._output import note, show_json
    from dockyard.fleet import tuned as choices
    from dockyard.ops.bench.picture import svg

    if picture is not None:
        many = tuned.best.many
        picture.write_text(svg(tuned, f"{model}, {many.streams if many else 0} streams"), encoding="utf-8")
    if save and tuned.best.many is not None:
        choices.write(settings.home_path, open_store(settings).resolve(model).digest, tuned.best.options)
    if as_json:
        show_json(tuned)
        return
    _table(tuned)
    if not tuned.kept:
        note("no way to load it keeps the objective; this one comes nearest")
    if save and tuned.best.many is not None:
        note(f"saved: {model} is loaded so from now on ({tuned.best.label}); `dockyard explain {model}` shows it")


def _table(tuned: Tuned) -> None:
    from rich.console import Console
    from rich.table import Table

    from dockyard.cli._output import size

    table = Table(box=None, pad_edge=False)
    for name in ("", "TRIAL", "ALONE tok/s", "TOGETHER tok/s", "TTFT p95", "TPOT p95", "MEMORY"):
        table.add_column(name, justify="left" if name in ("", "TRIAL") else "right")
    for trial in tuned.trials:
        mark = "→" if trial == tuned.best else "*" if trial in tuned.front else ""
        if trial.one is None or trial.many is None:
            table.add_row(mark, trial.label, trial.error[:60], "", "", "", "")
            continue
        table.add_row(
            mark, trial.label, f"{trial.one.throughput:.0f}", f"{trial.many.throughput:.0f}",
            _ms(trial.many.ttft_p95), _ms(trial.many.tpot_p95), size(trial.memory),
        )  # fmt: skip
    Console().print(table)
    print("→ chosen   * on the Pareto front of throughput and time a token")
