"""From the times of single answers to the figures of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """The longest TTFT and TPOT, in seconds, that 95 of 100 answers may take."""

    ttft: float = 1.0
    tpot: float = 0.1


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One answer: when it was asked for (monotonic seconds), and the seconds from then to each piece of it.

    ``tokens`` is what the server counted. ``error`` says why there is no answer.
    """

    begun: float
    arrivals: tuple[float, ...] = ()
    tokens: int = 0
    prompt_tokens: int = 0
    error: str = ""

    @property
    def ttft(self) -> float:
        return self.arrivals[0] if self.arrivals else math.inf

    @property
    def tpot(self) -> float:
        """0.0 where there was one token only."""
        if not self.arrivals:
            return math.inf
        return (self.arrivals[-1] - self.arrivals[0]) / (self.tokens - 1) if self.tokens > 1 else 0.0

    def within(self, objective: Objective) -> bool:
        return not self.error and self.ttft <= objective.ttft and self.tpot <= objective.tpot


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to. Times are seconds, ``p50``, ``p95`` and ``p99`` by nearest rank; see the package's words.
    ``streams`` is 0 where requests arrived at a rate."""

    streams: int
    answers: int
    failed: int
    seconds: float
    prompt_tokens: int
    tokens: int
    throughput: float
    goodput: float
    ttft_p50: float
    ttft_p95: float
    ttft_p99: float
    tpot_p50: float
    tpot_p95: float
    itl_p50: float
    itl_p95: float
    tpot_p99: float = 0.0
    itl_p99: float = 0.0
    within: float = 0.0
    """Share of all requests, failed ones too, that kept the objective."""
    requests_rate: float = 0.0
    """Answers a second."""
    ttft_mean: float = 0.0
    tpot_mean: float = 0.0
    itl_mean: float = 0.0


def summarize(samples: Sequence[Sample], streams: int, objective: Objective | None = None) -> Figures:
    """The figures of a run. Failed answers count in ``failed`` and in no time."""
    good = [sample for sample in samples if not sample.error]
    ends = [sample.begun + sample.arrivals[-1] for sample in good if sample.arrivals]
    seconds = max(ends) - min(sample.begun for sample in samples) if ends else 0.0
    tokens = sum(sample.tokens for sample in good)
    ttft = [sample.ttft for sample in good if sample.arrivals]
    tpot = [sample.tpot for sample in good if sample.tokens > 1]
    gaps = [b - a for sample in good for a, b in zip(sample.arrivals, sample.arrivals[1:], strict=False)]
    kept = [sample for sample in good if objective is None or sample.within(objective)]
    return Figures(
        streams=streams,
        answers=len(good),
        failed=len(samples) - len(good),
        seconds=seconds,
        prompt_tokens=sum(sample.prompt_tokens for sample in good),
        tokens=tokens,
        throughput=tokens / seconds if seconds else 0.0,
        goodput=len(kept) / seconds if seconds else 0.0,
        ttft_p50=percentile(ttft, 50),
        ttft_p95=percentile(ttft, 95),
        ttft_p99=percentile(ttft, 99),
        tpot_p50=percentile(tpot, 50),
        tpot_p95=percentile(tpot, 95),
        itl_p50=percentile(gaps, 50),
        itl_p95=percentile(gaps, 95),
        tpot_p99=percentile(tpot, 99),
        itl_p99=percentile(gaps, 99),
        within=len(kept) / len(samples) if samples else 0.0,
        requests_rate=len(good) / seconds if seconds else 0.0,
        ttft_mean=sum(ttft) / len(ttft) if ttft else 0.0,
        tpot_mean=sum(tpot) / len(tpot) if tpot else 0.0,
        itl_mean=sum(gaps) / len(gaps) if gaps else 0.0,
    )


def percentile(values: Sequence[float], rank: float) -> float:
    """The value at or below which ``rank`` of 100 lie, by nearest rank; 0.0 of no values."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(rank / 100 * len(values)) - 1)]
