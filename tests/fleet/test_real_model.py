"""The starter model in the fleet: what was predicted is what it takes, and what does not fit is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dockyard.artifact.packing import pack_files
from dockyard.artifact.store import Store
from dockyard.errors import InsufficientMemory
from dockyard.fleet import Fleet
from dockyard.hardware import Hardware
from dockyard.settings import Settings
from dockyard.types import LoadOptions, Memory, Message, Request, Sampling

pytestmark = [pytest.mark.anyio, pytest.mark.model]
MIB = 1 << 20
TOLERANCE = 0.20


@pytest.fixture
def store(tmp_path: Path, starter_gguf: Path) -> Store:
    store = Store(tmp_path / "store")
    pack_files(store, {starter_gguf.name: starter_gguf}, reference=store.named("smollm2"), link=True)
    return store


def greeting(number: int) -> Request:
    words = (Message(role="user", content=f"Count from {number} to {number + 5}."),)
    return Request(id=f"q{number}", messages=words, sampling=Sampling(max_tokens=16, temperature=0))


async def test_predicted_and_measured_memory_agree(tmp_path: Path, store: Store) -> None:
    fleet = Fleet(Settings(home=str(tmp_path), native_llama=False), store)
    await fleet.start()
    try:
        bare = {"prompt_cache": 0}  # what is kept of conversations is taken as they end
        for options in (
            LoadOptions(context=2048, parallel=1, flags=bare),
            LoadOptions(context=8192, parallel=4, flags=bare),
        ):
            await fleet.preload("smollm2", options)
            lease = await fleet.lease("smollm2")
            async for _ in lease.generate(greeting(1)):
                pass
            row = lease.model
            lease.release()
            assert (row.reference, row.engine, row.context) == ("smollm2", "llamacpp", options.context)
            assert isinstance(row.predicted, Memory)
            assert row.measured is not None
            off = row.measured / row.predicted.total - 1
            print(f"predicted {row.predicted.total // MIB} MiB, measured {row.measured // MIB} MiB, {off:+.1%}")
            assert abs(off) <= TOLERANCE
            assert fleet.schedule.ledger.charged >= row.measured * 0.98
            assert row.load_seconds is not None
    finally:
        await fleet.close()


async def test_half_a_gigabyte_holds_the_starter_but_not_a_long_context(tmp_path: Path, store: Store) -> None:
    box = Hardware(cores=1, memory_total=512 * MIB, memory_available=380 * MIB)
    fleet = Fleet(Settings(home=str(tmp_path), native_llama=False, memory_budget=380 * MIB), store, hardware=box)
    await fleet.start()
    try:
        lease = await fleet.lease("smollm2")
        text = "".join([c.text async for chunks in lease.generate(greeting(3)) for c in chunks])
        assert text
        assert lease.model.predicted.total <= 380 * MIB
        assert (lease.model.measured or 0) <= 380 * MIB
        lease.release()
        with pytest.raises(InsufficientMemory, match=r"KV cache \d+ MiB.*may take 380 MiB"):
            await fleet.preload("smollm2", LoadOptions(context=8192, parallel=16, flags={"kv_tokens": 40960}))
    finally:
        await fleet.close()


async def test_one_model_on_two_engines_answers_a_lone_stream_and_a_crowd(tmp_path: Path, store: Store) -> None:
    pytest.importorskip("openvino_genai", reason="the extra openvino is not installed")
    fleet = Fleet(Settings(home=str(tmp_path), native_llama=False), store)
    await fleet.start()
    used: list[str] = []

    async def client(number: int) -> None:
        lease = await fleet.lease("smollm2", key=f"k{number % 2}")
        try:
            text = "".join([c.text async for chunks in lease.generate(greeting(number)) for c in chunks])
            assert text
            used.append(lease.model.engine)
        finally:
            lease.release()

    try:
        both = LoadOptions(replicas=("llamacpp", "openvino"), context=1024, parallel=4)
        row = await fleet.preload("smollm2", both)
        assert row.engine == "llamacpp"
        await client(0)
        assert used == ["llamacpp"], "the other one is not ready yet, and nobody waits for it"
        async with asyncio.timeout(100):
            while [row.state for row in fleet.models()] != ["ready", "ready"]:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await client(1)
        assert used[1:] == ["llamacpp"]
        await asyncio.gather(*(client(number) for number in range(2, 8)))
        assert used[2:].count("openvino") >= 3
        assert fleet.schedule.ledger.charged <= fleet.schedule.ledger.budget
    finally:
        await fleet.close()
