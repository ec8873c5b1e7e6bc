"""What an evaluation leaves: one JSON file a run, whole and to be read without the suite, the data or the model.

Everything that a figure depends on is in it: the digests of suite, data and model, the parameters and seeds, every
item's answer and statistics, what failed, and the machine. So a report can be made of it, and two of them compared.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec

from dockyard.artifact.digest import of_bytes
from dockyard.errors import InvalidRequest, NotFound
from dockyard.scorers import Answer, Chosen, Metric
from dockyard.types import Json

FORMAT = 1
MEDIA_TYPE = "application/vnd.dockyard.evaluation.v1+json"
"""Of the file, where it travels as a blob."""


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One item's part: ``input`` is the digest of all that was asked, so that equal items are found in other runs.

    ``scores``: statistics by metric; a metric whose scorer failed is missing there and told in ``failures``.
    ``error``: why there is no answer at all; it counts against every metric's ``errors``.
    """

    id: str
    input: str
    line: int = 0
    answer: Answer | None = None
    scores: dict[str, tuple[float, ...]] = {}
    notes: dict[str, str] = {}
    failures: dict[str, str] = {}
    error: str = ""
    references: tuple[str, ...] = ()
    label: int | None = None
    prompt: Json = None


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """Where the value lies with probability ``level``, and how that was reckoned ("wilson", "bootstrap")."""

    low: float
    high: float
    level: float = 0.95
    method: str = "bootstrap"


class Aggregate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A metric over the ``n`` items that could be scored; ``errors`` items could not, and are in no mean.

    ``detectable`` is the least difference (absolute) between two runs of so many items that a comparison would find
    with ``power`` 0.8 at level 0.05; None where too few items were scored. ``value`` is None where none was.
    """

    metric: Metric
    scorer: str
    value: float | None
    interval: Interval | None
    n: int
    errors: int = 0
    detectable: float | None = None


class Subject(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The model that was measured: as it was asked for, its manifest's digest where known, and what served it."""

    name: str
    digest: str | None = None
    engine: str | None = None
    server: str | None = None
    parents: tuple[str, ...] = ()


class Contamination(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of the model having seen the items: the sets it was compared with, and the items found there."""

    checked: tuple[str, ...] = ()
    note: str = ""
    items: tuple[str, ...] = ()


class Run(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One suite put to one model. ``id`` is made of what it depends on; times are Unix seconds.

    ``records`` are in the order of the data. ``parameters`` are those sent with each request. ``errors`` counts items
    without an answer. ``usage`` are tokens and seconds in all.
    """

    id: str
    suite: str
    suite_digest: str
    data_digest: str
    subject: Subject
    scorers: tuple[Chosen, ...]
    parameters: dict[str, Json]
    seed: int
    records: tuple[Record, ...]
    aggregates: tuple[Aggregate, ...]
    errors: int = 0
    began: float = 0.0
    seconds: float = 0.0
    environment: dict[str, Json] = {}
    contamination: Contamination = Contamination()
    usage: dict[str, float] = {}
    performance: dict[str, Json] = {}
    format: int = FORMAT

    def aggregate(self, metric: str) -> Aggregate:
        """Raises NotFound that lists what there is."""
        for each in self.aggregates:
            if each.metric.name == metric:
                return each
        known = ", ".join(each.metric.name for each in self.aggregates)
        raise NotFound(f"run {self.id} has no metric {metric!r}", param="metric", hint=f"it has: {known or 'none'}")


def digest_of(value: Json) -> str:
    """The digest of a JSON value, whatever the order of its keys."""
    return of_bytes(msgspec.json.encode(value, order="deterministic"))


def encode(run: Run) -> bytes:
    """The file's bytes; the same run gives the same ones."""
    return msgspec.json.format(msgspec.json.encode(run, order="deterministic"), indent=1) + b"\n"


def decode(data: bytes, where: str = "the file") -> Run:
    """Raises InvalidRequest for what is no run, or one of a later format."""
    try:
        found = msgspec.json.decode(data, type=Run)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            f"{where} is no evaluation: {error}", hint="`dockyard eval ls` lists those here"
        ) from error
    if found.format > FORMAT:
        raise InvalidRequest(f"{where} has format {found.format}; this Dockyard reads up to {FORMAT}", hint="upgrade")
    return found


def write(run: Run, path: Path) -> None:
    """Put the file into place in one step: it is whole, or as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".run-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(encode(run))
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read(path: Path) -> Run:
    """Raises NotFound, InvalidRequest."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{path}: there is no such file", param=str(path)) from None
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror}", param=str(path)) from error
    return decode(data, str(path))
