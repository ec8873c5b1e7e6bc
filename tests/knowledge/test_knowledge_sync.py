"""Sync: what is new, changed and gone; what goes wrong with one document; and processes that are killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from knowledge_bench import Bench
from knowledge_samples import BYLAWS

from dockyard.cli import call
from dockyard.errors import Conflict, InvalidRequest
from dockyard.knowledge.making import changed
from dockyard.knowledge.model import Recipe, Search
from dockyard.knowledge.retrieve import search

pytestmark = pytest.mark.anyio


async def test_only_what_changed_is_read_and_embedded(bench: Bench) -> None:
    first = await bench.sync()
    assert (first.added, first.chunks) == (3, 5)
    again = await bench.sync()
    assert (again.unchanged, again.embedded) == (3, 0)
    (bench.folder / "bylaws.md").write_text(BYLAWS.replace("150 crowns", "175 crowns"))
    (bench.folder / "new.txt").write_text("The ferry leaves at noon.")
    (bench.folder / "staff.csv").unlink()
    third = await bench.sync()
    assert (third.added, third.changed, third.removed, third.unchanged) == (1, 1, 1, 1)
    assert (third.chunks, third.embedded) == (4, 2)  # two sections of the bylaws are as they were
    assert await bench.paths("crane operator") == []
    assert await bench.paths("ferry") == ["new.txt"]
    assert await bench.paths("175") == ["bylaws.md"]
    bench.whole()


async def test_what_somebody_may_not_read_is_not_searched(bench: Bench) -> None:
    await bench.sync()
    assert "private/salaries.md" in await bench.paths("salaries crowns month")
    assert "private/salaries.md" in await bench.paths("salaries crowns month", reader="mira")
    assert "private/salaries.md" not in await bench.paths("salaries crowns month", reader="teo")
    only = {"type": "glob", "key": "path", "value": "private/*"}
    assert await bench.paths("crowns", filters=only, reader="teo") == []
    assert await bench.paths("crowns", filters=only) == ["private/salaries.md"]
    with pytest.raises(InvalidRequest, match="none of eq, ne"):
        await bench.paths("crowns", filters={"type": "like", "key": "path", "value": "x"})
    (bench.folder / ".dockyard-access.yaml").write_text("private/*: mira")
    broken = await bench.sync()
    assert "access.yaml" in broken.problems[0].message
    assert "private/salaries.md" not in await bench.paths("salaries crowns month", reader="teo")


async def test_a_source_that_gave_nothing_is_named(bench: Bench, tmp_path: Path) -> None:
    nowhere = bench.source("http://127.0.0.1:1/handbook.html").place
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary" / "noise.txt").write_bytes(bytes(range(256)) * 8)
    broken = bench.source(str(tmp_path / "binary")).place
    assert set((await bench.sync()).empty) == {nowhere, broken}
    (bench.folder / "bylaws.md").unlink()
    assert bench.folder.resolve().as_posix() not in (await bench.sync()).empty


def test_adding_what_cannot_be_reached_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lancedb", reason="the extra `knowledge` is not installed")
    monkeypatch.setenv("DOCKYARD_HOME", str(tmp_path / "home"))
    (tmp_path / "note.txt").write_text("The ferry leaves at noon.")
    assert call(["knowledge", "create", "kb", "--embedder", "echo", "--reranker", "none"]) == 0
    assert call(["knowledge", "add", "kb", "http://127.0.0.1:1/handbook.html"]) == 1
    assert "http://127.0.0.1:1/handbook.html: " in capsys.readouterr().err
    assert call(["knowledge", "add", "kb", str(tmp_path / "note.txt")]) == 0
    assert "127.0.0.1" not in capsys.readouterr().err
    assert call(["knowledge", "sync", "kb"]) == 1


async def test_what_goes_wrong_costs_one_document(bench: Bench) -> None:
    await bench.sync()
    (bench.folder / "bylaws.md").write_bytes(bytes(range(256)) * 8)
    (bench.folder / "locked.docx").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 99)
    (bench.folder / "fine.txt").write_text("The ferry leaves at noon.")
    done = await bench.sync()
    assert (done.added, done.kept) == (1, 1)
    assert {one.path for one in done.problems} == {"bylaws.md", "locked.docx"}
    assert await bench.paths("lifeboat Halcyon") == ["bylaws.md"]  # the old version answers
    bench.whole()


async def test_what_is_no_file_is_told_and_the_rest_goes_on(bench: Bench, tmp_path: Path) -> None:
    """Opening a FIFO waits for somebody who writes, and a link may lead round in a circle."""
    deep = bench.folder / "deep"
    deep.mkdir()
    (deep / "fine.txt").write_text("The ferry leaves at noon.")
    (tmp_path / "elsewhere.txt").write_text("not of this folder")
    os.mkfifo(bench.folder / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(bench.folder / "socket.md"))
    links = {"to-pipe.txt": "pipe.txt", "round.txt": "round.txt", "gone.txt": "nowhere.txt", "up": ".",
             "deep/top": "..", "deep/same": "../deep", "shortcut": "deep", "out.txt": tmp_path / "elsewhere.txt",
             "again.txt": "deep/fine.txt"}  # fmt: skip
    for name, target in links.items():
        (bench.folder / name).symlink_to(target)
    done = await bench.sync()
    back = "it is a link that leads back to a folder that holds it; it is not followed"
    assert {one.path: one.message for one in done.problems} == {
        "pipe.txt": "it is a FIFO, not a regular file",
        "to-pipe.txt": "it is a FIFO, not a regular file",
        "socket.md": "it is a socket, not a regular file",
        "round.txt": "it is a link that leads to itself",
        "gone.txt": "it is a link that leads to nothing that is there",
        "up": back,
        "deep/top": back,
        "deep/same": back,
        "shortcut": "it is a link to the folder deep; it is not followed",
        "out.txt": "it is a link that leads out of the folder",
    }
    assert done.added == 5
    assert set(await bench.paths("ferry noon")) == {"deep/fine.txt", "again.txt"}
    (deep / "fine.txt").unlink()
    os.mkfifo(deep / "fine.txt")
    assert (await bench.sync()).kept == 2
    assert (await bench.sync(sources=(bench.source(str(bench.folder / "pipe.txt")).id,))).problems[-1].message == (
        "it is a FIFO, not a regular file"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root lists every folder")
async def test_a_folder_that_cannot_be_listed_keeps_its_documents(bench: Bench) -> None:
    await bench.sync()
    (bench.folder / "private").chmod(0)
    done = await bench.sync()
    (bench.folder / "private").chmod(0o700)
    told = "the folder can't be listed: Permission denied"
    assert [(one.path, one.message) for one in done.problems] == [("private/", told), ("private/salaries.md", told)]
    assert (done.removed, done.kept, done.unchanged) == (0, 1, 2)
    assert await bench.paths("salaries") == ["private/salaries.md"]


async def test_a_path_that_is_too_long_is_told(bench: Bench) -> None:
    await bench.sync()
    place = os.open(bench.folder, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("a" * 200, dir_fd=place)
        below = os.open("a" * 200, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below
    os.close(place)
    done = await bench.sync()
    assert [one.message for one in done.problems] == ["the folder can't be listed: File name too long"]
    assert (done.removed, done.unchanged) == (0, 3)


async def test_a_source_that_is_gone_or_empty_keeps_its_documents(bench: Bench) -> None:
    await bench.sync()
    aside = bench.folder.rename(bench.folder.with_name("aside"))
    gone = await bench.sync()
    assert (gone.removed, gone.kept) == (0, 3)
    assert "is gone" in gone.problems[0].message
    bench.folder.mkdir()
    empty = await bench.sync()
    assert (empty.removed, empty.kept) == (0, 3)
    assert "has no documents" in empty.problems[0].message
    assert await bench.paths("lifeboat Halcyon") == ["bylaws.md"]
    assert (await bench.sync(prune=True)).removed == 3
    assert await bench.paths("lifeboat Halcyon") == []
    bench.folder.rmdir()
    aside.rename(bench.folder)
    assert (await bench.sync()).added == 3


async def test_a_changed_model_is_noticed_and_words_still_find(bench: Bench) -> None:
    await bench.sync()
    with bench.base.ledger() as ledger:
        ledger.write_recipe(_other(ledger.recipe))
    bench.base.checked = False
    with pytest.raises(Conflict, match="other vectors"):
        await bench.sync()
    found = await search(bench.base, bench.models, "lifeboat Halcyon", Search())
    assert found.hits[0].document.path == "bylaws.md"
    assert "--rebuild" in found.notes[0]
    fresh = await changed(bench.base.recipe(), bench.models, {"size": 200})
    done = await bench.sync(rebuild=True, recipe=fresh)
    assert done.embedded == done.chunks >= 5
    assert not (await search(bench.base, bench.models, "lifeboat Halcyon", Search())).notes
    assert (await bench.sync()).unchanged == 3
    bench.whole()


async def test_a_rebuild_leaves_one_collection_whoever_had_it_open(bench: Bench) -> None:
    await bench.sync()
    bench.base.close()
    await bench.sync(rebuild=True)
    assert [one.name for one in (bench.base.folder / "vectors").iterdir()] == ["a2"]
    bench.whole()


def _other(made: Recipe) -> Recipe:
    return msgspec.structs.replace(made, probe=bytes(reversed(made.probe)))


async def test_one_writer_at_a_time(bench: Bench) -> None:
    with bench.base.writing(), pytest.raises(Conflict, match="another sync"):
        await bench.sync()


CHILD = """
import asyncio, sys
from dockyard.api import create_app
from dockyard.client import AsyncClient
from dockyard.knowledge.bases import Bases
from dockyard.knowledge.models import ClientModels
from dockyard.knowledge.sync import sync
from dockyard.settings import Settings
async def main():
    settings = Settings(home=sys.argv[1], log_level="error")
    async with AsyncClient(app=create_app(settings, trusted=True)) as client:
        print("begun", flush=True)
        await sync(Bases(settings.home_path).get("harbour"), ClientModels(client), settings)
        print("done", flush=True)
asyncio.run(main())
"""


def killed_after(seconds: float, home: Path) -> None:
    """Begin a sync in a process of its own, and end that so long after it began."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(home)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(seconds)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()


async def test_killed_at_any_moment_it_goes_on(bench: Bench, tmp_path: Path) -> None:
    await bench.sync()
    for number in range(300):
        (bench.folder / f"{number:03}.txt").write_text(f"Boat {number} is moored at ring {number * 7}.")
    (bench.folder / "bylaws.md").write_text(BYLAWS.replace("Halcyon", "Petrel"))
    for wait in (0.0, 0.15, 0.4):
        killed_after(wait, tmp_path / "home")
        bench.whole()
        found = await bench.paths("lifeboat")
        assert found == ["bylaws.md"]
    done = await bench.sync()
    assert done.added + done.unchanged >= 300
    bench.whole()
    assert await bench.paths("Petrel") == ["bylaws.md"]
    assert await bench.paths("Halcyon") == []
    assert not (bench.base.folder / "work.db").exists()
