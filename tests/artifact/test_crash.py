"""Many processes at once, and processes that are killed at any moment: nothing is lost, nothing is corrupt."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from artifact_samples import package_into

from dockyard.artifact.digest import of_bytes
from dockyard.artifact.store import Store
from dockyard.errors import ArtifactError

WRITER = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from artifact_samples import package_into
from dockyard.artifact.reference import parse
from dockyard.artifact.store import Store

store, who, rounds = Store(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
for number in range(rounds):
    data = {{"model.gguf": b"shared", "README.md": f"{{who}}-{{number}}".encode() * 5000}}
    with store.lease():
        described = package_into(store, data, f"w{{who}}/m:{{number}}")
        store.tag(parse(f"w{{who}}/again:{{number}}"), described.digest)
    if number % 3 == 2:
        store.delete(f"w{{who}}/m:{{number - 1}}")
    if number % 5 == 4:
        store.gc(grace=0)
"""


def writer(root: Path, who: str, rounds: int) -> subprocess.Popen[bytes]:
    code = WRITER.format(here=str(Path(__file__).parent))
    return subprocess.Popen(
        [sys.executable, "-c", code, str(root), who, str(rounds)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_processes_that_tag_delete_and_collect_at_once_lose_nothing(store: Store) -> None:
    rounds = 12
    running = [writer(store.root, str(each), rounds) for each in range(6)]
    for process in running:
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors.decode()
    names = {str(each.reference) for each in store.entries()}
    expected = {f"docker.io/w{who}/again:{number}" for who in range(6) for number in range(rounds)}
    expected |= {f"docker.io/w{who}/m:{number}" for who in range(6) for number in range(rounds) if number % 3 != 1}
    assert names == expected
    assert store.fsck() == []


def test_a_writer_killed_at_any_moment_leaves_a_sound_store(store: Store) -> None:
    kept = package_into(store, {"model.gguf": b"kept"}, "kept")
    dice = random.Random(7)
    for attempt in range(12):
        process = writer(store.root, f"k{attempt}", 1000)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(dice.uniform(0.0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert store.fsck() == []
        assert store.resolve("kept").digest == kept.digest
    for path in [*store.incoming.iterdir(), *(store.root / "leases").iterdir()]:
        os.utime(path, (1, 1))
    store.gc(grace=0)
    assert list((store.root / "leases").iterdir()) == []
    left = {path.name for path in store.incoming.iterdir() if path.suffix != ".lock"}
    assert left == set()
    package_into(store, {"model.gguf": b"after"}, "after")


PULLER = """
import sys
from pathlib import Path
from dockyard.artifact.store import Store

store, source, digest = Store(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
with store.partial(digest, source.stat().st_size) as blob, source.open("rb") as file:
    print("ready", blob.offset, flush=True)
    if not blob.complete:
        file.seek(blob.offset)
        while data := file.read(65536):
            blob.append(data)
        blob.commit()
"""


def test_a_blob_is_whole_after_any_number_of_kills(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    data = random.Random(1).randbytes(24 << 20)
    source.write_bytes(data)
    digest = of_bytes(data)
    dice = random.Random(2)
    offsets = []
    for attempt in range(40):
        process = subprocess.Popen(
            [sys.executable, "-c", PULLER, str(store.root), str(source), digest], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        offsets.append(int(process.stdout.readline().split()[1]))
        try:
            process.wait(timeout=dice.uniform(0.001, 0.02) if attempt < 20 else 30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        if store.has(digest):
            break
    assert store.read(digest) == data
    assert store.fsck() == []
    assert offsets == sorted(offsets), "what was written is never written again"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"manifests": 5}', b'{"manifests": [{"digest": "x"}]}'])
def test_a_broken_index_is_found_and_rebuilt(store: Store, text: bytes) -> None:
    first = package_into(store, {"model.gguf": b"one"}, "one")
    second = package_into(store, {"model.gguf": b"two"}, "two")
    store.index.path.write_bytes(text)
    with pytest.raises(ArtifactError, match=r"index\.json"):
        store.entries()
    assert [(each.fault, each.repaired) for each in store.fsck()] == [("broken-index", False)]
    assert [(each.fault, each.repaired) for each in store.fsck(repair=True)] == [("broken-index", True)]
    assert store.fsck() == []
    assert store.resolve("one").digest == first.digest
    assert store.resolve(second.digest).digest == second.digest, "the last change is there, without its name"
