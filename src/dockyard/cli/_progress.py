"""Progress of long work: bars on a terminal, a line an item elsewhere, nothing where JSON is wanted."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dockyard.cli._output import note, size

if TYPE_CHECKING:
    from rich.progress import TaskID

    from dockyard.types import OnProgress, Progress

BLOCKS = "▁▂▃▄▅▆▇█"


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[OnProgress]:
    """What to hand to ``on_progress``; it may be called from any thread."""
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bars() as show:
            yield show
    else:
        yield _Lines().show


class _Lines:
    """For pipes and logs: each item once when it starts and once when it is done."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun: set[str] = set()
        self._done: set[str] = set()

    def show(self, news: Progress) -> None:
        with self._lock:
            if news.message:
                note(news.message)
            if not news.item:
                return
            if news.item not in self._begun and news.current < news.total:
                self._begun.add(news.item)
                note(f"{_told(news)} {_amount(news)}")
            begun = news.item in self._begun
            if begun and news.item not in self._done and news.current >= news.total:
                self._done.add(news.item)
                note(f"{_told(news)} done")


@contextmanager
def _bars() -> Iterator[OnProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Amount(DownloadColumn):
        """Bytes; or steps, where those are counted."""

        def render(self, task: Any) -> Text:
            return Text(f"{task.completed:.0f}/{task.total or 0:.0f}") if task.fields["steps"] else super().render(task)

    class Speed(TransferSpeedColumn):
        def render(self, task: Any) -> Text:
            return Text() if task.fields["steps"] else super().render(task)

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        Amount(),
        Speed(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[chart]}"),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}
        values: dict[str, list[float]] = {}
        lock = threading.Lock()

        def show(news: Progress) -> None:
            with lock:
                if news.message:
                    bars.console.print(news.message, markup=False, highlight=False)
                if not news.item:
                    return
                if news.item not in tasks:
                    steps = news.action == "step"
                    tasks[news.item] = bars.add_task(_told(news), total=news.total or None, steps=steps, chart="")
                bars.update(tasks[news.item], total=news.total or None, completed=news.current)
                if news.value is not None:
                    line = values.setdefault(news.item, [])
                    line.append(news.value)
                    bars.update(tasks[news.item], chart=f"{chart(line)} {news.value:.4f}")

        yield show


def _told(news: Progress) -> str:
    return short(news.item) if news.action == "step" else f"{news.action} {short(news.item)}"


def _amount(news: Progress) -> str:
    return f"{news.total} steps" if news.action == "step" else size(news.total)


def chart(values: Sequence[float], width: int = 24) -> str:
    """A line of blocks, from the least value to the greatest; where there are more than ``width``, each is a mean."""
    count = min(width, len(values))
    cuts = [len(values) * place // count for place in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(cuts)]
    low, high = min(means), max(means)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((mean - low) * scale)] for mean in means)


def short(item: str) -> str:
    """A digest as its first twelve hex digits; anything else as it is."""
    algorithm, _, digits = item.partition(":")
    return digits[:12] if algorithm in ("sha256", "sha512") else item
