"""Perplexity and speed of models of a store, each in the runtime that serves it."""

from __future__ import annotations

import asyncio
import math
import time
from pathlib import Path
from typing import Any

from benchmarks.refit._material import prose
from dockyard import plugins
from dockyard.artifact.manifest import Parent
from dockyard.artifact.materialize import model_files
from dockyard.artifact.store import Store
from dockyard.engines import choose
from dockyard.fleet.runner import Runner, create
from dockyard.hardware import detect
from dockyard.ops import Done, Inputs, execute, read_params
from dockyard.ops._checkpoint import open_checkpoint
from dockyard.ops._speakers import Ir, Transformers
from dockyard.settings import Settings
from dockyard.types import LoadOptions, Request, Sampling

RUN = 256
RUNS = 24
ANSWER = 96


def held_out(tokenizer: Any) -> list[list[int]]:
    """Token ids of text that nothing here calibrates with: pages of Python's reference, one run a page."""
    found = []
    for page in prose()[1]:
        ids = tokenizer(page, add_special_tokens=False).input_ids
        if len(ids) >= RUN:
            found.append(ids[:RUN])
    return found[:RUNS]


def perplexity(store: Store, name: str, runs: list[list[int]]) -> float:
    """On IR by OpenVINO; else on the floats that the file's weights stand for, by transformers."""
    files = model_files(store, name)
    said: Any = (
        Ir(Path(files.weights[0]).parent)
        if files.format == "openvino"
        else Transformers(model=(found := open_checkpoint(store, name)).model, tokenizer=found.tokenizer)
    )
    total = count = 0.0
    for run in runs:
        rows = said.logprobs(run, len(run))
        total -= float(sum(rows[place, word] for place, word in enumerate(run[1:])))
        count += len(run) - 1
    said.close()
    return math.exp(total / count)


def size(store: Store, name: str) -> float:
    """Megabytes of weights; those of a graph lie beside it."""
    files = [Path(each) for each in model_files(store, name).weights]
    files += [path.with_suffix(".bin") for path in files if path.suffix == ".xml"]
    return sum(path.stat().st_size for path in set(files)) / 1e6


def speeds(store: Store, names: dict[str, str], rounds: int = 3) -> dict[str, list[float]]:
    """Tokens a second of one greedy answer, by what is in ``names`` (model → engine): the engines are loaded one after
    the other and the rounds alternate, so that a change in the machine hits all."""
    return asyncio.run(_speeds(store, names, rounds))


async def _speeds(store: Store, names: dict[str, str], rounds: int) -> dict[str, list[float]]:
    settings = Settings(home=str(store.root.parent / "home"))
    runners: dict[str, Runner] = {}
    try:
        for name, engine in names.items():
            files = model_files(store, name)
            options = LoadOptions(engine=engine, context=512, parallel=1)
            chosen = choose(files, options, settings, detect()).engine
            plan = chosen.plan(files, options, settings, detect())
            runner = create(chosen, files, plan, settings, store.root.parent / f"{name}.log")
            await runner.start()
            runners[name] = runner
        found: dict[str, list[float]] = {name: [] for name in names}
        for place in range(rounds + 1):
            for name, runner in runners.items():
                speed = await _answer(runner, f"{name}-{place}")
                if place:
                    found[name].append(speed)
        return found
    finally:
        for runner in runners.values():
            await runner.stop()


async def _answer(runner: Runner, name: str) -> float:
    request = Request(
        id=name, kind="complete", prompt="Once upon a time there was a little crab",
        sampling=Sampling(max_tokens=ANSWER, temperature=0, ignore_eos=True),
    )  # fmt: skip
    first = None
    async for _ in runner.generate(request):
        first = first or time.monotonic()
    assert first is not None
    return (ANSWER - 1) / (time.monotonic() - first)


def make(store: Store, verb: str, base: str, name: str, *, roles: dict[str, str] | None = None, **params: Any) -> Done:
    """Run an operation on a model of the store."""
    operation: Any = plugins.find("ops")[verb].load()
    parents = [Parent(digest=store.resolve(base).digest, role="base")]
    parents += [Parent(digest=store.resolve(each).digest, role=role) for role, each in (roles or {}).items()]
    read = read_params(operation.params, params)
    return execute(store, operation, Inputs(artifacts=tuple(parents)), read, reference=store.named(name))
