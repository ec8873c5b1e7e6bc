"""Downloads from a registry that misbehaves in every way we know."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from registry_samples import QUICK, digest_of, noise

from dockyard.artifact.registry import flight
from dockyard.artifact.registry.client import Registry
from dockyard.artifact.registry.download import download
from dockyard.artifact.registry.flight import OnBytes, Wanted
from dockyard.artifact.registry.memory import MemoryRegistry
from dockyard.artifact.store import Store
from dockyard.errors import (
    ArtifactError,
    Cancelled,
    DigestMismatch,
    NotFound,
    SourceError,
    SourceUnreachable,
    StoreFull,
    TruncatedContent,
)

LARGE = noise((20 << 20) + 12_345)
SMALL = noise(70_000, 2)


def fetch(
    store: Store, memory: MemoryRegistry, *blobs: bytes, size: int | None = None, on_bytes: OnBytes | None = None
) -> None:
    with Registry(memory.host, policy=QUICK) as registry:

        def wanted_of(data: bytes) -> Wanted:
            digest = digest_of(data)
            length = len(data) if size is None else size
            return Wanted(
                digest=digest,
                size=length,
                where="a blob",
                open=lambda headers: registry.open_blob("a/b", digest, headers),
            )

        wanted = [wanted_of(data) for data in blobs]
        download(store, wanted, registry.transport, connections=3, on_bytes=on_bytes)


def holds(store: Store, *blobs: bytes) -> bool:
    assert leftovers(store) == []
    return all(store.blob_path(digest_of(data)).read_bytes() == data for data in blobs)


def leftovers(store: Store) -> list[str]:
    return [path.name for path in store.incoming.iterdir() if path.suffix != ".lock"]


@pytest.fixture
def memory() -> Any:
    with MemoryRegistry() as registry:
        for data in (LARGE, SMALL, b""):
            registry.add_blob("a/b", data)
        yield registry


@pytest.fixture
def past_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every blob counts as one that comes faster than the page cache takes it."""
    monkeypatch.setattr(flight, "FAST", 0.0)
    monkeypatch.setattr(flight, "SETTLED", 0)


def test_large_small_and_empty_blobs_together(store: Store, memory: MemoryRegistry) -> None:
    fetch(store, memory, LARGE, SMALL, b"", SMALL)
    assert holds(store, LARGE, SMALL, b"")
    ranges = [one.headers["range"] for one in memory.asked(digest_of(LARGE)) if "range" in one.headers]
    assert len(ranges) == 3
    before = len(memory.requests)
    fetch(store, memory, LARGE, SMALL, b"")
    assert len(memory.requests) == before


@pytest.mark.parametrize("cut", [0, 1, 65_535, 1 << 20, (1 << 20) + 7, 5_000_000])
def test_bodies_cut_short_go_on_where_they_ended(store: Store, memory: MemoryRegistry, cut: int) -> None:
    memory.fail(match="GET .*/blobs/", cut=cut, times=4)
    fetch(store, memory, LARGE, SMALL)
    assert holds(store, LARGE, SMALL)
    starts = {one.headers["range"].split("-")[0] for one in memory.asked(digest_of(LARGE))}
    assert cut < 1 << 20 or f"bytes={cut}" in starts


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 9 << 20), st.integers(0, 3)), max_size=5), st.booleans(), st.booleans())
def test_any_pattern_of_cuts_ends_in_the_right_bytes(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[tuple[int, int]], ranges: bool, fast: bool
) -> None:
    store = Store(tmp_path_factory.mktemp("cuts") / "store")
    with pytest.MonkeyPatch.context() as patch, MemoryRegistry(ranges=ranges) as memory:
        patch.setattr(flight, "FAST", 0.0 if fast else 1e12)
        patch.setattr(flight, "SETTLED", 0)
        memory.add_blob("a/b", LARGE)
        for cut, skip in cuts:
            memory.fail(match="GET .*/blobs/", cut=cut, skip=skip)
        fetch(store, memory, LARGE)
    assert holds(store, LARGE)


@pytest.mark.usefixtures("past_the_cache")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EINVAL])
def test_a_write_past_the_page_cache_that_fails(
    store: Store, memory: MemoryRegistry, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A full disk and a broken one end the pull; a file system that can't do it is written to as ever."""
    tried = []

    def pwritev(*_: object) -> int:
        tried.append(number)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwritev", pwritev)
    if number == errno.EINVAL:
        fetch(store, memory, LARGE)
        assert holds(store, LARGE)
    else:
        with pytest.raises(StoreFull if number == errno.ENOSPC else ArtifactError):
            fetch(store, memory, LARGE)
        assert not store.has(digest_of(LARGE))
        monkeypatch.undo()
        fetch(store, memory, LARGE)
        assert holds(store, LARGE)
    assert tried


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_passing_failures_are_retried(store: Store, memory: MemoryRegistry, status: int) -> None:
    memory.fail(match="GET .*/blobs/", status=status, times=3)
    fetch(store, memory, SMALL)
    assert holds(store, SMALL)
    assert len(memory.asked("GET .*/blobs/")) == 1


def test_retry_after_is_honoured(store: Store, memory: MemoryRegistry) -> None:
    memory.fail(match="GET .*/blobs/", status=429, retry_after=0.4)
    start = time.monotonic()
    fetch(store, memory, SMALL)
    assert time.monotonic() - start >= 0.4


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"status": 503, "times": 99}, SourceError),
        ({"status": 403, "times": 99}, SourceError),
        ({"status": 404, "times": 99}, NotFound),
        ({"cut": 0, "times": 99}, TruncatedContent),
        ({"spoil": 100, "times": 99}, DigestMismatch),
    ],
)
def test_lasting_failures_leave_the_store_as_it_was(
    store: Store, memory: MemoryRegistry, fault: dict[str, Any], error: type[Exception]
) -> None:
    memory.fail(match="GET .*/blobs/", **fault)
    with pytest.raises(error):
        fetch(store, memory, SMALL)
    assert not store.has(digest_of(SMALL))
    memory.faults.clear()
    fetch(store, memory, SMALL)
    assert holds(store, SMALL)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(("said", "error"), [(69_999, DigestMismatch), (70_001, TruncatedContent)])
def test_a_size_that_the_manifest_gets_wrong(store: Store, ranges: bool, said: int, error: type[Exception]) -> None:
    with MemoryRegistry(ranges=ranges) as memory:
        memory.add_blob("a/b", SMALL)
        with pytest.raises(error):
            fetch(store, memory, SMALL, size=said)
    assert not store.has(digest_of(SMALL))


@pytest.mark.parametrize("said", [len(LARGE) - 5, len(LARGE) + 5_000_000])
def test_a_large_size_that_the_manifest_gets_wrong(store: Store, memory: MemoryRegistry, said: int) -> None:
    with pytest.raises((DigestMismatch, TruncatedContent)):
        fetch(store, memory, LARGE, size=said)
    assert not store.has(digest_of(LARGE))


def stop_after(count: int, failure: type[BaseException]) -> Callable[[str, int, int], None]:
    seen = 0
    lock = threading.Lock()

    def on_bytes(_digest: str, _current: int, _total: int) -> None:
        nonlocal seen
        with lock:
            seen += 1
            if seen == count:
                raise failure("enough")

    return on_bytes


@pytest.mark.parametrize("failure", [Cancelled, KeyboardInterrupt, ZeroDivisionError])
def test_a_callback_that_raises_stops_at_once_and_the_next_attempt_goes_on(
    store: Store, memory: MemoryRegistry, failure: type[BaseException]
) -> None:
    threads = threading.active_count()
    with pytest.raises(failure):
        fetch(store, memory, LARGE, on_bytes=stop_after(12, failure))
    assert [one for one in threading.enumerate() if one.name == "dockyard-download"] == []
    assert threading.active_count() <= threads + 3
    first = sum(_asked_bytes(one.headers) for one in memory.asked(digest_of(LARGE)))
    assert first > 0
    memory.requests.clear()
    reports: list[int] = []
    fetch(store, memory, LARGE, on_bytes=lambda _d, current, _t: reports.append(current))
    assert holds(store, LARGE)
    assert reports[0] >= 1 << 20, "begins with what is here already"
    assert sum(_asked_bytes(one.headers) for one in memory.requests) < len(LARGE)


def _asked_bytes(headers: dict[str, str]) -> int:
    first, _, last = headers["range"].removeprefix("bytes=").partition("-")
    return int(last) - int(first) + 1


def test_what_an_earlier_attempt_left_spoiled_is_fetched_again(store: Store, memory: MemoryRegistry) -> None:
    with pytest.raises(Cancelled):
        fetch(store, memory, LARGE, on_bytes=stop_after(18, Cancelled))
    (partial,) = [path for path in store.incoming.iterdir() if path.suffix == ".partial"]
    with partial.open("r+b") as file:
        os.pwrite(file.fileno(), b"spoiled", 1000)
    fetch(store, memory, LARGE)
    assert holds(store, LARGE)


def test_a_partial_of_an_older_writer_is_continued(store: Store, memory: MemoryRegistry) -> None:
    with store.partial(digest_of(LARGE), len(LARGE)) as partial:
        partial.append(LARGE[: 12 << 20])
    fetch(store, memory, LARGE)
    assert holds(store, LARGE)
    assert sum(_asked_bytes(one.headers) for one in memory.requests) == len(LARGE) - (12 << 20)


def test_a_server_without_ranges_is_read_from_the_start(store: Store) -> None:
    with MemoryRegistry(ranges=False) as memory:
        memory.add_blob("a/b", LARGE)
        with pytest.raises(Cancelled):
            fetch(store, memory, LARGE, on_bytes=stop_after(12, Cancelled))
        fetch(store, memory, LARGE)
    assert holds(store, LARGE)


def test_a_cdn_behind_a_redirect(store: Store, memory: MemoryRegistry) -> None:
    with MemoryRegistry(blobs_at=f"http://{memory.host}") as front:
        front.add_blob("a/b", LARGE)
        memory.fail(match="GET .*/blobs/", cut=3_000_000, times=2)
        fetch(store, front, LARGE)
    assert holds(store, LARGE)


def test_nobody_there(store: Store) -> None:
    with MemoryRegistry() as memory:
        host = memory.host
    memory._server = None
    with Registry(host, policy=QUICK) as registry, pytest.raises(SourceUnreachable, match="can't be reached"):
        registry.ping()


def test_a_full_store_is_said_before_anything_is_fetched(
    tmp_path_factory: pytest.TempPathFactory, memory: MemoryRegistry
) -> None:
    store = Store(tmp_path_factory.mktemp("small") / "store", quota=1 << 20)
    with pytest.raises(StoreFull):
        fetch(store, memory, LARGE)
    assert memory.asked("GET .*/blobs/") == []


def test_two_pulls_of_the_same_blobs_at_once_fetch_them_once(store: Store, memory: MemoryRegistry) -> None:
    failures: list[BaseException] = []

    def one(*blobs: bytes) -> None:
        try:
            fetch(Store(store.root), memory, *blobs)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=one, args=order) for order in ((LARGE, SMALL), (SMALL, LARGE), (LARGE,))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert holds(store, LARGE, SMALL)
    assert len(memory.asked(digest_of(SMALL))) == 1
