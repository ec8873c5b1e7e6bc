"""Logs, Prometheus metrics and OpenTelemetry spans; the only file that knows those libraries.

Nothing here ever sees a prompt or an answer: only names, counts and times. Definitions: TTFT is from the request's
arrival to the first chunk of the answer; TPOT is (end to end - TTFT) / (output tokens - 1); e2e is arrival to end.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from bisect import bisect_left
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import accumulate
from typing import TYPE_CHECKING, TextIO

import msgspec

from dockyard.types import Call, LoadedModel

if TYPE_CHECKING:
    from prometheus_client.core import Metric

LATENCY_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
TPOT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.0, 2.5)
ACCESS_FLUSH_SECONDS = 0.2
TIMED = {"ttft": "Time to first token.", "tpot": "Time per output token.", "e2e": "Arrival of a request to its end."}
COUNTED = {
    "prompt": "Tokens of prompts.",
    "completion": "Generated tokens.",
    "cached": "Tokens of prompts found in the KV cache.",
}
OWN = {
    "ttft": "dockyard_time_to_first_token_seconds",
    "tpot": "dockyard_time_per_output_token_seconds",
    "e2e": "dockyard_request_seconds",
    "prompt": "dockyard_prompt_tokens",
    "completion": "dockyard_completion_tokens",
    "cached": "dockyard_cached_prompt_tokens",
}
VLLM = {
    "ttft": "vllm:time_to_first_token_seconds",
    "tpot": "vllm:time_per_output_token_seconds",
    "e2e": "vllm:e2e_request_latency_seconds",
    "prompt": "vllm:prompt_tokens",
    "completion": "vllm:generation_tokens",
}
PLAIN = "%(asctime)s %(levelname)s %(message)s"
CLOCK = "%H:%M:%S"
OTHER = "(other)"
MOST_MODELS = 200


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What only the running server knows, read when somebody scrapes."""

    active: int = 0
    models: tuple[LoadedModel, ...] = ()
    memory: dict[str, int] = {}
    dropped_usage_rows: int = 0


class _Line(msgspec.Struct, frozen=True, omit_defaults=True):
    time: float
    event: str
    request: str
    dialect: str
    model: str
    outcome: str
    seconds: float
    prompt_tokens: int = 0
    completion_tokens: int = 0
    ttft: float | None = None
    key: str = ""
    cache: str = "off"


class AccessLog:
    """A line for each finished call, written in batches so that no request waits for a terminal or a disk.

    JSON, or plain text where the stream is a terminal, as with ``configure_logs``.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._lines: list[_Line] = []
        self._encode = msgspec.json.Encoder().encode_lines

    def add(self, line: _Line) -> None:
        self._lines.append(line)
        if len(self._lines) == 1:
            try:
                asyncio.get_running_loop().call_later(ACCESS_FLUSH_SECONDS, self.flush)
            except RuntimeError:
                self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        lines, self._lines = self._lines, []
        if lines:
            stream = self._stream or sys.stderr
            try:
                stream.write("".join(map(_plain, lines)) if stream.isatty() else self._encode(lines).decode())
                stream.flush()
            except (OSError, ValueError):  # a closed terminal is no reason to fail a server
                pass


def _plain(line: _Line) -> str:
    """A call as a person reads it: how long it took and how much was said, then who and how where that tells more."""
    told = f"{line.prompt_tokens}+{line.completion_tokens} tokens in {line.seconds:.2f} s"
    if line.ttft is not None:
        told += f", first after {line.ttft:.2f} s"
    if line.cache != "off":
        told += f", cache {line.cache}"
    if line.key:
        told += f", key {line.key}"
    clock = time.strftime(CLOCK, time.localtime(line.time))
    return f"{clock} INFO {line.dialect} {line.model} {line.outcome}: {told} ({line.request})\n"


class _Histogram:
    """Bucket counts of one series. Belongs to the event loop, so it needs none of the library's locks."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as the exposition format has them."""
        names = [*(repr(bound) for bound in self.bounds), "+Inf"]
        return list(zip(names, accumulate(map(float, self.counts)), strict=True))


class _Series:
    """What is counted for one model."""

    __slots__ = ("cached", "completion", "e2e", "prompt", "tpot", "ttft")

    def __init__(self) -> None:
        self.ttft = _Histogram(LATENCY_BUCKETS)
        self.tpot = _Histogram(TPOT_BUCKETS)
        self.e2e = _Histogram(LATENCY_BUCKETS)
        self.prompt = 0
        self.completion = 0
        self.cached = 0


class Telemetry:
    """A server's metrics in a registry of their own. ``snapshot`` is asked at each scrape; ``sinks`` see each call."""

    def __init__(self, snapshot: Callable[[], Snapshot] = Snapshot, *, access: AccessLog | None = None) -> None:
        from prometheus_client import CollectorRegistry
        from prometheus_client.platform_collector import PlatformCollector
        from prometheus_client.process_collector import ProcessCollector

        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        registry.register(_Collector(self))
        self.snapshot = snapshot
        self.access = access
        self.sinks: list[Callable[[Call, str, float], None]] = []
        self.series: dict[str, _Series] = {}
        self.ends: dict[tuple[str, str, str], int] = {}
        self._span = _span_writer()

    def finished(self, call: Call, outcome: str, seconds: float) -> None:
        """Count a call that has ended. Its label is the resolved model: names that callers make up are not counted."""
        model = call.reference or (call.model if call.cache == "hit" else OTHER)
        series = self.series.get(model)
        if series is None:
            if len(self.series) >= MOST_MODELS:
                model = OTHER
            series = self.series.setdefault(model, _Series())
        end = (model, call.dialect, outcome)
        self.ends[end] = self.ends.get(end, 0) + 1
        ttft = None
        if call.first_token is not None:
            usage = call.usage
            ttft = call.first_token - call.received
            series.ttft.observe(ttft)
            series.e2e.observe(seconds)
            series.prompt += usage.prompt_tokens
            series.completion += usage.completion_tokens
            series.cached += usage.cached_tokens
            if usage.completion_tokens > 1:
                series.tpot.observe((seconds - ttft) / (usage.completion_tokens - 1))
        if self.access is not None:
            self.access.add(_line(call, model, outcome, seconds, ttft))
        for sink in self.sinks:
            sink(call, outcome, seconds)
        if self._span is not None:
            self._span(call, outcome, seconds)

    def render(self) -> tuple[bytes, str]:
        """The text exposition and its content type."""
        from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4


class _Collector:
    """Makes the library's metrics of our counts when somebody scrapes, under our names and those of vLLM."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        now = self._telemetry.snapshot()
        ends = CounterMetricFamily("dockyard_requests", "Calls that ended.", labels=["model", "dialect", "outcome"])
        for labels, count in self._telemetry.ends.items():
            ends.add_metric(labels, count)
        yield ends
        for label, names in (("model", OWN), ("model_name", VLLM)):
            yield from self._series(label, names)
        yield GaugeMetricFamily("dockyard_requests_active", "Calls under way in the gateway.", value=now.active)
        lost = CounterMetricFamily("dockyard_usage_rows_dropped", "Usage rows lost because the database was slow.")
        lost.add_metric([], now.dropped_usage_rows)
        yield lost
        memory = GaugeMetricFamily("dockyard_memory_bytes", "Memory as the fleet sees it.", labels=["kind"])
        for kind, size in now.memory.items():
            memory.add_metric([kind], size)
        yield memory
        yield from self._models(now.models)

    def _series(self, label: str, names: Mapping[str, str]) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        for attribute, name in names.items():
            if attribute in COUNTED:
                counter = CounterMetricFamily(name, COUNTED[attribute], labels=[label])
                for model, series in self._telemetry.series.items():
                    counter.add_metric([model], getattr(series, attribute))
                yield counter
                continue
            histogram = HistogramMetricFamily(name, TIMED[attribute], labels=[label])
            for model, series in self._telemetry.series.items():
                found: _Histogram = getattr(series, attribute)
                histogram.add_metric([model], found.buckets(), found.total)
            yield histogram

    def _models(self, models: tuple[LoadedModel, ...]) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        running = GaugeMetricFamily("vllm:num_requests_running", "Requests being decoded.", labels=["model_name"])
        waiting = GaugeMetricFamily("vllm:num_requests_waiting", "Requests that queue.", labels=["model_name"])
        size = GaugeMetricFamily("dockyard_model_memory_bytes", "A model's bytes.", labels=["model", "engine", "kind"])
        for model in models:
            running.add_metric([model.reference], model.active)
            waiting.add_metric([model.reference], model.queued)
            size.add_metric([model.reference, model.engine, "predicted"], model.predicted.total)
            if model.measured is not None:
                size.add_metric([model.reference, model.engine, "measured"], model.measured)
        yield from (running, waiting, size)


def _line(call: Call, model: str, outcome: str, seconds: float, ttft: float | None) -> _Line:
    return _Line(
        time=round(time.time(), 3),
        event="call",
        request=call.request.id,
        dialect=call.dialect,
        model=model,
        outcome=outcome,
        seconds=round(seconds, 6),
        prompt_tokens=call.usage.prompt_tokens,
        completion_tokens=call.usage.completion_tokens,
        ttft=None if ttft is None else round(ttft, 6),
        key=call.principal.name if call.principal else "",
        cache=call.cache,
    )


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class LogRing(logging.Handler):
    """The last lines of the log, in memory, for ``dockyard logs``; and those to come, for whoever follows."""

    def __init__(self, size: int = 2000) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=size)
        self._followers: set[tuple[asyncio.AbstractEventLoop, asyncio.Queue[str]]] = set()
        self.setFormatter(logging.Formatter(PLAIN))

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        self._lines.append(line)
        for loop, queue in list(self._followers):
            with suppress(RuntimeError):  # its loop has ended
                loop.call_soon_threadsafe(_offer, queue, line)

    async def lines(self, *, follow: bool = False, tail: int = 500) -> AsyncIterator[str]:
        """Up to ``tail`` lines, oldest first; with ``follow`` it never ends."""
        follower = asyncio.get_running_loop(), asyncio.Queue[str](1000)
        self._followers.add(follower)
        try:
            for line in list(self._lines)[-tail:] if tail else ():
                yield line
            while follow:
                yield await follower[1].get()
        finally:
            self._followers.discard(follower)


def _offer(queue: asyncio.Queue[str], line: str) -> None:
    with suppress(asyncio.QueueFull):  # a reader this slow misses lines; the server does not wait
        queue.put_nowait(line)


def configure_logs(
    level: str, *, json: bool | None = None, stream: TextIO | None = None, ring: LogRing | None = None
) -> None:
    """Send the log of ``dockyard`` to standard error: JSON lines, or on a terminal ``HH:MM:SS LEVEL message``."""
    target = stream or sys.stderr
    handler = logging.StreamHandler(target)
    as_json = not target.isatty() if json is None else json
    handler.setFormatter(_JsonLines() if as_json else logging.Formatter(PLAIN, CLOCK))
    logger = logging.getLogger("dockyard")
    logger.handlers[:] = [handler, ring] if ring is not None else [handler]
    logger.setLevel(level.upper())
    logger.propagate = False


def _span_writer() -> Callable[[Call, str, float], None] | None:
    """Writes a span for each call, if OpenTelemetry is installed and an exporter's address is set."""
    import os

    if not any(os.environ.get(f"OTEL_EXPORTER_OTLP_{name}ENDPOINT") for name in ("", "TRACES_")):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import SpanKind, Status, StatusCode
    except ImportError:
        logging.getLogger(__name__).warning("traces are asked for: pip install 'dockyard[tracing]'")
        return None
    provider = TracerProvider(resource=Resource.create({"service.name": "dockyard"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    tracer = provider.get_tracer("dockyard")

    def write(call: Call, outcome: str, seconds: float) -> None:
        end = time.time_ns()
        operation = "chat" if call.request.kind == "chat" else "text_completion"
        span = tracer.start_span(
            f"{operation} {call.reference or call.model}",
            kind=SpanKind.SERVER,
            start_time=end - int(seconds * 1e9),
            attributes={
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": "dockyard",
                "gen_ai.request.model": call.model,
                "gen_ai.response.model": call.reference or call.model,
                "gen_ai.response.id": call.request.id,
                "gen_ai.usage.input_tokens": call.usage.prompt_tokens,
                "gen_ai.usage.output_tokens": call.usage.completion_tokens,
                "gen_ai.response.finish_reasons": (call.finish or "",),
            },
        )
        if outcome != "ok":
            span.set_attribute("error.type", outcome)
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)

    return write
