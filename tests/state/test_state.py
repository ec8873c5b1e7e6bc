"""Keys and usage, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from dockyard.errors import Conflict, NotFound, SettingsError
from dockyard.state import State
from dockyard.types import Call, Principal, Request, Usage

pytestmark = pytest.mark.anyio


def finished(model: str = "m", key: str = "bob") -> Call:
    usage = Usage(prompt_tokens=5, completion_tokens=2, cached_tokens=1)
    call = Call(request=Request(id="r"), model=model, dialect="test", usage=usage)
    call.principal = Principal(name=key)
    return call


async def test_keys_are_made_listed_and_revoked(url: str) -> None:
    state = State(url)
    await state.open()
    try:
        key, secret = await state.create_key(
            "bob", scopes=frozenset({"infer", "manage"}), models=("smol*",), requests_per_minute=5, expires_in=60
        )
        assert secret.startswith("dky_")
        assert len(secret) > 40
        assert secret not in str(key)
        with pytest.raises(Conflict, match="bob"):
            await state.create_key("bob")
        (stored,) = await state.keys()
        assert stored.principal == Principal(name="bob", scopes=frozenset({"infer", "manage"}), models=("smol*",))
        assert stored.requests_per_minute == 5
        assert stored.expires == pytest.approx(time.time() + 60, abs=20)
        await state.revoke_key("bob")
        with pytest.raises(NotFound):
            await state.revoke_key("bob")
        assert await state.list_keys() == []
    finally:
        await state.close()


async def test_usage_is_summed_by_key_and_model(url: str) -> None:
    state = State(url)
    await state.open()
    try:
        begun = time.time()
        for _ in range(3):
            state.record(finished(), "ok", 0.5)
        state.record(finished(), "engine_error", 0.5)
        state.record(finished(key="eve"), "ok", 0.25)
        bob, eve = await state.usage(since=begun - 1)
        assert (bob.key, bob.requests, bob.failed, bob.prompt_tokens, bob.cached_tokens) == ("bob", 4, 1, 20, 4)
        assert (eve.key, eve.requests, eve.seconds) == ("eve", 1, pytest.approx(0.25))
        assert await state.usage(since=begun + 3600) == []
    finally:
        await state.close()


async def test_many_rows_arrive_all_and_once(url: str) -> None:
    state = State(url)
    await state.open()
    try:
        begun = time.time()
        for _ in range(2357):
            state.record(finished(key="many"), "ok", 0.5)
        (row,) = [row for row in await state.usage(since=begun - 1) if row.key == "many"]
        assert (row.requests, row.prompt_tokens, row.seconds) == (2357, 2357 * 5, pytest.approx(2357 / 2))
    finally:
        await state.close()


async def test_two_servers_may_open_one_database_at_once(url: str) -> None:
    states = [State(url) for _ in range(3)]
    await asyncio.gather(*(state.open() for state in states))
    for state in states:
        await state.close()


async def test_rows_survive_a_quick_end(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    for _ in range(3):
        state = State(url)
        await state.open()
        for _ in range(3000):
            state.record(finished(), "ok", 0.1)
        await asyncio.sleep(0)
        await state.close()
        await state.close()
    state = State(url)
    await state.open()
    (row,) = await state.usage()
    await state.close()
    assert row.requests == 9000


async def test_a_slow_database_costs_rows_not_answers(tmp_path: Path) -> None:
    state = State(f"sqlite:///{tmp_path / 'state.db'}")
    for _ in range(50_010):
        state.record(finished(), "ok", 0.1)
    assert state.dropped == 10


@pytest.mark.parametrize(
    "text",
    ["nonsense", "mysql://u:secretpw@h/d", "sqlite:////proc/nowhere/x.db", "postgresql://u:secretpw@127.0.0.1:1/d"],
)
async def test_an_unusable_database_is_named_without_its_password(text: str) -> None:
    if "postgres" in text:
        pytest.importorskip("asyncpg")
    with pytest.raises(SettingsError) as refused:
        await State(text).open()
    assert "secretpw" not in refused.value.message


def test_the_look_without_sqlalchemy_knows_the_newest_revision() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    from dockyard.state import _engine, _peek

    config = Config()
    config.set_main_option("script_location", str(_engine.MIGRATIONS))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_current_head() == _peek.NEWEST


async def test_keys_are_known_before_the_database_is_connected_to(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'state.db'}"
    first = State(url)
    await first.open()
    key, _ = await first.create_key("ann", scopes=frozenset({"infer"}), models=("smollm2",), requests_per_minute=7)
    await first.close()
    second = State(url)
    await second.open()
    try:
        (found,) = await second.keys()
        assert (found.digest, found.requests_per_minute) == (key.digest, 7)
        assert (found.principal.name, found.principal.models) == ("ann", ("smollm2",))
        await second.revoke_key("ann")
        assert await second.keys() == []
    finally:
        await second.close()


def test_a_damaged_database_is_left_to_the_connection(tmp_path: Path) -> None:
    from dockyard.state import _peek

    path = tmp_path / "state.db"
    assert _peek.stored_keys(f"sqlite+aiosqlite:///{path}") is None
    path.write_bytes(b"not a database, but long enough to be mistaken for one" * 20)
    assert _peek.stored_keys(f"sqlite+aiosqlite:///{path}") is None
    assert _peek.stored_keys("postgresql://u:p@localhost/x") is None
