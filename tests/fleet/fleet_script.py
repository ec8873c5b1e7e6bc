"""A scripted engine without processes: loads, answers, grows and crashes when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dockyard.artifact.store import Store
from dockyard.engines import Choice, LoadPlan
from dockyard.errors import DockyardError, ModelNotFound, UnsupportedFormat, WorkerCrashed
from dockyard.fleet import Fleet, Parts, RestartPolicy
from dockyard.fleet.runner import Exit, Started
from dockyard.hardware import Hardware
from dockyard.settings import Settings
from dockyard.types import Chunk, Memory, ModelFacts, ModelFiles, Request, Usage

MIB = 1 << 20


@dataclass
class Script:
    """How a model behaves, in MiB and seconds. ``per_token`` is what a token of context takes."""

    size: int = 10
    actual: int | None = None
    per_token: float = 0.0
    load: float = 0.0
    fails: DockyardError | Exception | None = None
    rejects: DockyardError | None = None
    words: tuple[str, ...] = ("one", "two", "three")
    embeds: str = ""
    """"together" with what generates, or "apart"; empty: it can't."""
    slow: dict[str, float] = field(default_factory=dict)
    """Seconds that a load takes on an engine, where that differs."""
    step: float = 0.0
    digest: str = ""


@dataclass
class Stage:
    """All models and everything that was ever started with them."""

    scripts: dict[str, Script]
    runners: list[ScriptedRunner] = field(default_factory=list)
    plans: list[LoadPlan] = field(default_factory=list)

    def files(self, store: Store, name: str) -> ModelFiles:
        if name not in self.scripts:
            raise ModelNotFound(f"there is no {name!r}", hint="did you mean 'a'?")
        digest = self.scripts[name].digest or f"sha256:{name}"
        facts = ModelFacts(format="gguf")
        return ModelFiles(
            reference=name, digest=digest, directory="/", format="gguf", weights=("/w",), facts=facts, context=8192
        )

    def choose(self, files, options, settings, hardware, kind) -> Choice:
        if kind in ("embed", "rerank") and not self.scripts[files.reference].embeds:
            raise UnsupportedFormat(f"scripted does not serve {kind!r}")
        return Choice(self.engine(options.engine or "scripted"), "it was scripted")

    def survey(self, files, settings, hardware, kind) -> dict[str, str]:
        return {"scripted": "", "another": "it reads no scripts"}

    def engine(self, name: str) -> ScriptedEngine:
        return ScriptedEngine(self, name)

    def plan(self, name: str, files: ModelFiles, options, settings: Settings, hardware: Hardware) -> LoadPlan:
        script = self.scripts[files.reference]
        context = options.context or 8192
        room = hardware.memory_available - script.size * MIB
        while not options.context and context > 512 and context * script.per_token * MIB > room:
            context //= 2
        predicted = Memory(weights=script.size * MIB, kv_cache=int(context * script.per_token * MIB))
        return LoadPlan(
            engine=name,
            context=context,
            parallel=options.parallel or 2,
            threads=options.threads or hardware.cores,
            predicted=predicted,
            details={
                **({"mode": options.mode} if script.embeds == "apart" else {}),
                **({"flags": options.flags} if options.flags else {}),
            },
        )

    def runner(
        self, engine, files: ModelFiles, plan: LoadPlan, settings: Settings, log_path: Path, begun=None
    ) -> ScriptedRunner:
        made = ScriptedRunner(files, self.scripts[files.reference], plan, log_path, 1000 + len(self.runners))
        self.runners.append(made)
        return made

    def live(self) -> list[str]:
        return [runner.name for runner in self.runners if runner.alive]

    def of(self, name: str) -> ScriptedRunner:
        return [runner for runner in self.runners if runner.name == name][-1]


class ScriptedEngine:
    """One engine of the stage, by any name."""

    serves = frozenset({"chat", "embed", "rerank"})
    formats = frozenset({"gguf"})
    isolated = True
    extra = ""

    def __init__(self, stage: Stage, name: str) -> None:
        self.name = name
        self._stage = stage

    def plan(self, files: ModelFiles, options, settings: Settings, hardware: Hardware) -> LoadPlan:
        return self._stage.plan(self.name, files, options, settings, hardware)


class ScriptedRunner:
    def __init__(self, files: ModelFiles, script: Script, plan: LoadPlan, log_path: Path, pid: int) -> None:
        self.files = files
        self.name = files.reference
        self.requests: list[Request] = []
        self.plan = plan
        self.alive = False
        self.log_path = log_path
        self.pid: int | None = None
        self.size = (script.actual or script.size) * MIB if script.actual else plan.predicted.total
        self.open: set[ScriptedStream] = set()
        self.cancelled = 0
        self.ended_quietly = False
        self._pid = pid
        self._script = script
        self._exit: Exit | None = None
        self._ended = asyncio.Event()

    async def start(self) -> Started:
        await asyncio.sleep(self._script.slow.get(self.plan.engine, self._script.load))
        if self._script.fails is not None:
            raise self._script.fails
        self.alive, self.pid = True, self._pid
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("a") as log:
            log.write(f"{self.name} is loaded\n")
        return Started(plan=self.plan, measured=self.size, seconds=self._script.load)

    def generate(self, request: Request) -> ScriptedStream:
        if not self.alive:
            raise WorkerCrashed(f"{self.name} is gone")
        self.requests.append(request)
        return ScriptedStream(self, self._script)

    def rss(self) -> int | None:
        return self.size if self.alive else None

    async def wait_exit(self) -> Exit:
        await self._ended.wait()
        assert self._exit is not None
        return self._exit

    async def stop(self, drain: float = 0.0) -> None:
        await asyncio.sleep(0)
        self._end(Exit(expected=True, reason="stopped"))

    def crash(self, reason: str = "killed by SIGSEGV") -> None:
        self._end(Exit(expected=False, reason=reason, log_tail=("loading", "segmentation fault in kernel 7")))

    def _end(self, ended: Exit) -> None:
        if self._exit is None:
            self.alive, self._exit = False, ended
            self._ended.set()
            for stream in tuple(self.open):
                stream.lost.set()


class ScriptedStream:
    def __init__(self, runner: ScriptedRunner, script: Script) -> None:
        self._runner = runner
        self._script = script
        self._at = 0
        self.lost = asyncio.Event()
        runner.open.add(self)

    def __aiter__(self) -> ScriptedStream:
        return self

    async def __anext__(self) -> list[Chunk]:
        try:
            async with asyncio.timeout(self._script.step):
                await self.lost.wait()
        except TimeoutError:
            pass
        if self.lost.is_set():
            self._runner.open.discard(self)
            if self._runner.ended_quietly:
                raise StopAsyncIteration
            raise WorkerCrashed(f"{self._runner.name} died")
        if self._script.rejects is not None:
            self._runner.open.discard(self)
            raise self._script.rejects
        if self._at == len(self._script.words) or self not in self._runner.open:
            self._runner.open.discard(self)
            raise StopAsyncIteration
        self._at += 1
        last = self._at == len(self._script.words)
        return [Chunk(self._script.words[self._at - 1], usage=Usage(completion_tokens=self._at) if last else None)]

    async def aclose(self) -> None:
        if self in self._runner.open:
            self._runner.open.discard(self)
            self._runner.cancelled += 1


@asynccontextmanager
async def staged(
    home: Path,
    scripts: dict[str, Script],
    *,
    budget: int = 100,
    restarts: RestartPolicy | None = None,
    stage: type[Stage] = Stage,
    **settings,
) -> AsyncIterator[tuple[Fleet, Stage]]:
    """A fleet of ``budget`` MiB over scripted models; afterwards nothing may be left."""
    made = stage(scripts)
    parts = Parts(files=made.files, choose=made.choose, survey=made.survey, engine=made.engine, runner=made.runner)
    chosen = Settings(home=str(home), memory_budget=budget * MIB, **settings)
    hardware = Hardware(cores=2, memory_total=2 * budget * MIB, memory_available=2 * budget * MIB)
    policy = restarts or RestartPolicy(base=0.01, cap=0.05, breaker=3, cooldown=0.2)
    fleet = Fleet(chosen, Store(home / "store"), hardware=hardware, parts=parts, restarts=policy)
    await fleet.start()
    try:
        yield fleet, made
    finally:
        await fleet.close(drain=0.0)
        assert made.live() == []
        assert fleet.schedule.ledger.charged == 0
        assert fleet.schedule.residents == {}


REQUEST = Request(id="r", prompt="x", kind="complete")


async def ask(fleet: Fleet, name: str) -> str:
    """One request, start to end."""
    lease = await fleet.lease(name)
    try:
        return " ".join([chunk.text async for chunks in lease.generate(REQUEST) for chunk in chunks])
    finally:
        lease.release()
