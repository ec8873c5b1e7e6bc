"""Responses, conversations, files and batches, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dockyard.errors import Conflict, InvalidRequest, NotFound
from dockyard.state import IN_MEMORY, State
from dockyard.state._peek import unfinished
from dockyard.state._place import alive, place_of, this_run
from dockyard.state.batches import About, Batch, Batches, Finished
from dockyard.state.conversations import Conversation, Conversations
from dockyard.state.files import File, Files
from dockyard.state.responses import Kept, Responses
from dockyard.state.tables import responses as responses_table

pytestmark = pytest.mark.anyio
AWKWARD = "\x00 \ud83d\ude00 ' \" \\ \u2028".encode("utf-16", "surrogatepass").decode("utf-16")


@pytest.fixture
async def state(url: str) -> AsyncIterator[State]:
    made = State(url)
    await made.open()
    yield made
    await made.close()


def response(id: str, previous: str | None = None, status: str = "completed", **more: Any) -> Kept:
    body = {"id": id, "status": status, "output": [{"id": f"o{id}", "text": AWKWARD}]}
    return Kept(id=id, key="ann", body=body, input=[{"id": f"i{id}"}], previous=previous, **more)


async def test_a_chain_of_responses(state: State, tmp_path: Path) -> None:
    table = Responses(state, tmp_path.name)
    mark = tmp_path.name[-40:]
    ids = [f"{mark}-{n}" for n in range(30)]
    for id, previous in zip(ids, [None, *ids], strict=False):
        await table.add(response(id, previous))
    chain = await table.chain(ids[-1], "ann")
    assert [one.id for one in chain] == ids
    assert chain[0].body["output"][0]["text"] == AWKWARD
    for id, key in ((ids[-1], "bob"), ("none", "ann")):
        with pytest.raises(NotFound):
            await table.chain(id, key)
        with pytest.raises(NotFound):
            await table.get(id, key)
        with pytest.raises(NotFound):
            await table.delete(id, key)
    await table.delete(ids[7], "ann")
    with pytest.raises(NotFound, match=ids[7]):
        await table.chain(ids[-1], "ann")


async def test_what_is_old_goes_and_what_is_built_on_stays(state: State, tmp_path: Path) -> None:
    table = Responses(state, tmp_path.name)
    mark, now = tmp_path.name[-40:], time.time()
    await table.add(response(f"{mark}-old", expires=now - 1))
    await table.add(response(f"{mark}-base", expires=now - 1))
    await table.prolong([f"{mark}-base"], now + 100)
    with pytest.raises(NotFound):
        await table.get(f"{mark}-old", "ann")
    assert await table.sweep() >= 1
    assert (await table.get(f"{mark}-base", "ann")).expires == pytest.approx(now + 100)


async def test_a_response_ends_once(state: State, tmp_path: Path) -> None:
    table = Responses(state, tmp_path.name)
    id = tmp_path.name[-40:]
    await table.add(response(id, status="queued"))
    assert await table.change(id, {"id": id, "status": "in_progress"})
    assert await table.change(id, {"id": id, "status": "completed"}, b"events")
    assert not await table.change(id, {"id": id, "status": "failed"})
    found = await table.get(id, "ann")
    assert (found.status, found.events) == ("completed", b"events")


async def test_what_a_dead_server_left_is_told_as_failed(state: State, tmp_path: Path) -> None:
    table, other = Responses(state, tmp_path.name), Responses(state, "elsewhere")
    mark = tmp_path.name[-40:]
    for place, name in ((table, "mine"), (table, "dead"), (other, "other")):
        await place.add(response(f"{mark}-{name}", status="in_progress"))
    async with state.transaction() as connection:
        for name in ("dead", "other"):
            gone = responses_table.update().where(responses_table.c.id == f"{mark}-{name}").values(run="1:0.00")
            await connection.execute(gone)
    assert await table.settle() == 1
    found = await table.get(f"{mark}-dead", "ann")
    assert (found.status, found.body["error"]["code"]) == ("failed", "server_error")
    assert (await table.get(f"{mark}-mine", "ann")).status == "in_progress"
    assert (await table.get(f"{mark}-other", "ann")).status == "in_progress"


async def test_items_of_a_conversation(state: State, tmp_path: Path) -> None:
    table = Conversations(state)
    id = tmp_path.name[-40:]
    await table.add(Conversation(id=id, key="ann", metadata={"a": AWKWARD}))
    await table.append(id, "ann", [{"id": str(n)} for n in range(7)])
    with pytest.raises(Conflict):
        await table.append(id, "ann", [{"id": "new"}, {"id": "3"}])
    assert [item["id"] for item in await table.items(id, "ann")] == list("0123456")
    page = await table.page(id, "ann", limit=3, after="5", newest_first=True)
    assert ([item["id"] for item in page.rows], page.more) == (["4", "3", "2"], True)
    with pytest.raises(InvalidRequest):
        await table.page(id, "ann", limit=3, after="new", newest_first=True)
    assert (await table.describe(id, "ann", {"b": "c"})).metadata == {"b": "c"}
    await table.remove(id, "ann", "3")
    with pytest.raises(NotFound):
        await table.item(id, "ann", "3")
    for attempt in (
        table.get(id, "bob"),
        table.items(id, "bob"),
        table.delete(id, "bob"),
        table.remove(id, "bob", "1"),
    ):
        with pytest.raises(NotFound):
            await attempt
    await table.delete(id, "ann")
    with pytest.raises(NotFound):
        await table.items(id, "ann")


async def test_files_expire_with_their_contents(state: State, tmp_path: Path) -> None:
    table = Files(state, tmp_path.name, tmp_path / "files")
    mark, now = tmp_path.name[-40:], time.time()
    for name, expires in (("a", None), ("b", now - 1), ("c", now + 100)):
        table.part(f"{mark}-{name}").write_bytes(b"content")
        await table.add(
            File(id=f"{mark}-{name}", key="ann", name=AWKWARD[4:], purpose="batch", bytes=7, expires=expires)
        )
    page = await table.page("ann", purpose="batch", limit=10, after=None, newest_first=False)
    assert [file.id[-1] for file in page.rows] == ["a", "c"]
    with pytest.raises(NotFound):
        await table.get(f"{mark}-b", "ann")
    assert await table.sweep() == 1
    assert sorted(path.name[-1] for path in (tmp_path / "files").iterdir()) == ["a", "c"]
    elsewhere = Files(state, "elsewhere", tmp_path / "files")
    with pytest.raises(NotFound):
        await elsewhere.get(f"{mark}-a", "ann")
    await table.delete(f"{mark}-a", "ann")
    assert [path.name[-1] for path in (tmp_path / "files").iterdir()] == ["c"]


def batch(id: str, **more: Any) -> Batch:
    now = time.time()
    return Batch(
        id=id, key="ann", endpoint="/v1/x", input="file", created=now, expires=now + 100, about=About(), **more
    )


def line(id: str, number: int, *, ok: bool = True, body: bytes | None = None) -> Finished:
    return Finished(batch=id, line=number, ok=ok, body=body or f"{number}".encode())


async def test_each_line_is_kept_once_and_in_order(state: State, tmp_path: Path) -> None:
    table = Batches(state, tmp_path.name, Files(state, tmp_path.name, tmp_path))
    id = tmp_path.name[-40:]
    await table.add(batch(id, status="in_progress", total=1300))
    rows = [line(id, number, ok=number % 10 != 0) for number in range(1, 1301)]
    await asyncio.gather(*(table.record(rows[start::4]) for start in range(4)))
    await table.record([line(id, 5, body=b"late"), line(id, 6, ok=False, body=b"late")])
    found = await table.get(id)
    assert (found.completed, found.failed) == (1170, 130)
    assert await table.done(id) == set(range(1, 1301))
    good = [int(body) for part in [rows async for rows in table.lines(id, ok=True)] for body in part]
    assert good == [number for number in range(1, 1301) if number % 10]


async def test_a_batch_ends_once_with_its_files(state: State, tmp_path: Path) -> None:
    files = Files(state, tmp_path.name, tmp_path)
    table = Batches(state, tmp_path.name, files)
    id = tmp_path.name[-40:]
    await table.add(batch(id))
    assert [one.id for one in await table.open()] == [id]
    assert await table.reads("file") == id
    assert await table.change(id, ("validating",), "in_progress", total=2, model="m", times={"in_progress_at": 1})
    assert not await table.change(id, ("validating",), "in_progress")
    await table.record([line(id, 1)])
    made = File(id=f"{id}-out", key="ann", name="o", purpose="batch_output", bytes=1)
    assert await table.finish(id, ("in_progress",), "completed", [made], output=made.id, times={"completed_at": 2})
    assert not await table.finish(id, ("in_progress",), "completed", [made])
    found = await table.get(id, "ann")
    assert (found.status, found.about.output, found.about.model) == ("completed", made.id, "m")
    assert found.about.times == {"in_progress_at": 1, "completed_at": 2}
    assert (await files.get(made.id, "ann")).bytes == 1
    assert await table.done(id) == set()
    assert await table.open() == []
    assert await table.reads("file") is None
    with pytest.raises(NotFound):
        await table.get(id, "bob")


async def test_pages_of_batches_join_to_the_whole(state: State, tmp_path: Path) -> None:
    table = Batches(state, tmp_path.name, Files(state, tmp_path.name, tmp_path))
    mark = tmp_path.name[-40:]
    ids = [f"{mark}-{n:02d}" for n in range(11)]
    for id in ids:
        await table.add(msgspec.structs.replace(batch(id), created=float(int(id[-2:]) // 3)))
    for limit in (1, 2, 5, 11, 20):
        seen: list[str] = []
        after = None
        while True:
            page = await table.page("ann", limit=limit, after=after)
            seen += [one.id for one in page.rows]
            if not page.more:
                break
            after = seen[-1]
        assert seen == ids[::-1]
    with pytest.raises(InvalidRequest):
        await table.page("ann", limit=2, after="none")


async def test_memory_is_one_transaction_at_a_time() -> None:
    state = State(IN_MEMORY)
    await state.open()
    try:
        table = Responses(state, "memory")
        await asyncio.gather(*(table.add(response(f"r{n}")) for n in range(50)))
        assert (await table.get("r49", "ann")).id == "r49"
    finally:
        await state.close()


async def test_whether_batches_wait_is_seen_without_sqlalchemy(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'state.db'}"
    assert unfinished(url)
    state = State(url)
    await state.open()
    table = Batches(state, "here", Files(state, "here", tmp_path))
    assert not unfinished(url)
    await table.add(batch("b"))
    assert unfinished(url)
    await table.change("b", ("validating",), "failed")
    assert not unfinished(url)
    await state.close()
    assert unfinished("postgresql://nobody@nowhere/x")


def test_a_home_and_a_process_are_known_again(tmp_path: Path) -> None:
    assert place_of(tmp_path / "a") == place_of(tmp_path / "a") != place_of(tmp_path / "b")
    assert alive(this_run())
    assert not alive("1:0.00")
    assert not alive("odd")
