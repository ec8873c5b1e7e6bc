"""Uploads: skipped, mounted, in one piece, in chunks, and taken up again."""

from __future__ import annotations

from pathlib import Path

import pytest
from registry_samples import QUICK, digest_of, noise

from dockyard.artifact.registry.client import Registry
from dockyard.artifact.registry.memory import MemoryRegistry
from dockyard.artifact.registry.upload import Blob, upload
from dockyard.errors import Cancelled, DigestMismatch, SourceError

DATA = noise(5_000_003, 7)
CHUNK = 1 << 20


@pytest.fixture
def blob(tmp_path: Path) -> Blob:
    path = tmp_path / "blob"
    path.write_bytes(DATA)
    return Blob(path=path, digest=digest_of(DATA), size=len(DATA))


def send(memory: MemoryRegistry, blob: Blob, **options: object) -> str:
    with Registry(memory.host, policy=QUICK) as registry:
        return upload(registry, "a/b", blob, **{"chunk": CHUNK, **options})  # type: ignore[arg-type]


def methods(memory: MemoryRegistry) -> list[str]:
    return [one.method for one in memory.asked("/uploads/")]


def test_chunks_then_nothing_the_second_time(blob: Blob) -> None:
    with MemoryRegistry() as memory:
        reports: list[int] = []
        assert send(memory, blob, on_bytes=lambda _d, current, _t: reports.append(current)) == "sent"
        assert memory.blobs[blob.digest] == DATA
        assert methods(memory) == ["POST", *["PATCH"] * 5, "PUT"]
        assert reports == sorted(reports)
        assert reports[-1] == len(DATA)
        assert send(memory, blob) == "exists"
        assert len(methods(memory)) == 7


def test_a_small_blob_goes_in_one_put(blob: Blob) -> None:
    with MemoryRegistry() as memory:
        assert send(memory, blob, chunk=len(DATA)) == "sent"
        assert methods(memory) == ["POST", "PUT"]
        assert memory.blobs[blob.digest] == DATA


def test_a_registry_without_chunks(blob: Blob) -> None:
    with MemoryRegistry(chunked=False) as memory:
        assert send(memory, blob) == "sent"
        assert memory.blobs[blob.digest] == DATA


def test_a_neighbours_blob_is_mounted(blob: Blob) -> None:
    with MemoryRegistry(auth="token", users={"ann": "pw"}) as memory:
        memory.add_blob("other/model", DATA)
        from dockyard.artifact.registry.credentials import Credentials

        with Registry(memory.host, credentials=Credentials(username="ann", password="pw"), policy=QUICK) as registry:
            assert upload(registry, "a/b", blob, mount_from=["no/such", "other/model"][1:]) == "mounted"
            assert upload(registry, "a/c", blob, mount_from=["no/such"]) == "sent"
        assert {blob.digest} == memory.repositories["a/b"].blobs == memory.repositories["a/c"].blobs


@pytest.mark.parametrize("cut", [0, 1000, CHUNK - 1, 700_000])
@pytest.mark.parametrize("chunk", [CHUNK, 10 * CHUNK])
def test_a_broken_upload_goes_on_where_the_registry_stands(blob: Blob, cut: int, chunk: int) -> None:
    with MemoryRegistry() as memory:
        memory.fail(match="(PATCH|PUT) .*/uploads/", cut=cut, times=3)
        assert send(memory, blob, chunk=chunk) == "sent"
        assert memory.blobs[blob.digest] == DATA
        assert methods(memory).count("GET") >= 3
        assert methods(memory).count("POST") == 1


@pytest.mark.parametrize("status", [500, 503, 429])
def test_passing_failures_are_retried(blob: Blob, status: int) -> None:
    with MemoryRegistry() as memory:
        memory.fail(match="/uploads/", status=status, times=2, skip=1)
        assert send(memory, blob) == "sent"
        assert memory.blobs[blob.digest] == DATA


def test_lasting_failures_are_said(blob: Blob) -> None:
    with MemoryRegistry() as memory:
        memory.fail(match="PATCH", status=503, times=99)
        with pytest.raises(SourceError, match="broke off"):
            send(memory, blob)
        memory.faults.clear()
        memory.fail(match="POST", status=403, times=99)
        with pytest.raises(SourceError, match="refused access"):
            send(memory, blob)


def test_the_next_process_goes_on_where_this_one_stopped(blob: Blob, tmp_path: Path) -> None:
    ticket = tmp_path / "ticket.json"

    def stop(_digest: str, current: int, _total: int) -> None:
        if current > 2 * CHUNK + 1000:
            raise Cancelled("enough")

    with MemoryRegistry() as memory:
        with pytest.raises(Cancelled):
            send(memory, blob, ticket=ticket, on_bytes=stop)
        assert ticket.exists()
        assert ticket.stat().st_mode & 0o777 == 0o600
        memory.requests.clear()
        assert send(memory, blob, ticket=ticket) == "sent"
        assert memory.blobs[blob.digest] == DATA
        # The server may note the chunk that was cut off only now; it began at the same byte.
        asked = [name for name in methods(memory) if name != "PATCH"]
        assert asked[0] == "GET"
        assert "POST" not in asked
        assert memory.asked("PATCH")[0].headers["content-range"].startswith(f"{2 * CHUNK}-")
        assert not ticket.exists()


def test_a_ticket_that_is_worth_nothing(blob: Blob, tmp_path: Path) -> None:
    ticket = tmp_path / "ticket.json"
    with MemoryRegistry() as memory:
        for text in (
            "",
            '{"digest":"sha256:0","location":"http://evil/"}',
            f'{{"digest":"{blob.digest}","location":"http://evil/x"}}',
        ):
            ticket.write_text(text)
            memory.repositories.clear()
            assert send(memory, blob, ticket=ticket) == "sent"
        gone = f'{{"digest":"{blob.digest}","location":"http://{memory.host}/v2/a/b/blobs/uploads/abc"}}'
        ticket.write_text(gone)
        memory.repositories.clear()
        assert send(memory, blob, ticket=ticket) == "sent"


def test_a_blob_that_is_not_what_it_says_is_refused(blob: Blob) -> None:
    blob.path.write_bytes(DATA[:-1] + b"?")
    with MemoryRegistry() as memory, pytest.raises(DigestMismatch):
        send(memory, blob)


def test_debians_registry_takes_chunks_and_an_interrupted_upload(
    docker_registry: str, blob: Blob, tmp_path: Path
) -> None:
    ticket = tmp_path / "ticket.json"

    def stop(_digest: str, current: int, _total: int) -> None:
        if current > 3 * CHUNK + 1000:
            raise Cancelled("enough")

    with Registry(docker_registry, policy=QUICK) as registry:
        with pytest.raises(Cancelled):
            upload(registry, "chunks/a", blob, chunk=CHUNK, ticket=ticket, on_bytes=stop)
    with Registry(docker_registry, policy=QUICK) as registry:
        starts: list[int] = []
        again = upload(
            registry, "chunks/a", blob, chunk=CHUNK, ticket=ticket, on_bytes=lambda _d, at, _t: starts.append(at)
        )
        assert again == "sent"
        assert starts[0] >= 3 * CHUNK
        assert upload(registry, "chunks/b", blob, mount_from=["chunks/a"]) == "mounted"
        assert upload(registry, "chunks/c", blob) == "sent"
        with registry.open_blob("chunks/b", blob.digest) as reply:
            assert reply.body(len(DATA)) == DATA
