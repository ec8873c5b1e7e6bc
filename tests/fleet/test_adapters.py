"""Adapters by name: whose they are, what they are called, and when a model must be loaded anew for one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from fleet_script import REQUEST, Script, Stage

from dockyard.artifact.packing import pack_files
from dockyard.artifact.reference import parse
from dockyard.artifact.store import Store
from dockyard.artifact.writers import Lineage, Parent
from dockyard.errors import InvalidRequest, ModelNotFound
from dockyard.fleet import Fleet, Parts
from dockyard.fleet.prepare import model_files
from dockyard.hardware import Hardware
from dockyard.settings import Settings
from dockyard.types import Adapter, LoadOptions, ModelFiles

pytestmark = pytest.mark.anyio
GIB = 1 << 30


class Shop:
    """A store with small models and adapters in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.store = Store(home / "store")

    def model(self, name: str, *, parent: str | None = None) -> str:
        file = self.home / f"{name.replace(':', '-')}.safetensors"
        _safetensors(file, {"model.layers.0.self_attn.q_proj.weight": [4, 4]}, name)
        lineage = _of(parent) if parent else None
        entry = pack_files(self.store, {file.name: file}, reference=parse(name), lineage=lineage)
        return entry.descriptor.digest

    def adapter(self, name: str, *, parent: str | None = None, says: str | None = None) -> str:
        folder = self.home / f"adapter-{name.replace('/', '-').replace(':', '-')}"
        folder.mkdir()
        tensors = {f"base_model.model.model.layers.0.self_attn.q_proj.lora_{side}.weight": [2, 4] for side in "AB"}
        _safetensors(folder / "adapter_model.safetensors", tensors, name)
        config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": says}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        files = {path.name: path for path in folder.iterdir()}
        entry = pack_files(self.store, files, reference=parse(name), lineage=_of(parent) if parent else None)
        return entry.descriptor.digest


def _of(parent: str) -> Lineage:
    return Lineage(parents=(Parent(digest=parent),), operation="tune", version="1")


def _safetensors(path: Path, shapes: dict[str, list[int]], note: str) -> None:
    head, offset = {"__metadata__": {"note": note}}, 0
    for name, shape in shapes.items():
        size = 4 * shape[0] * shape[1]
        head[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(offset))


class AdapterStage(Stage):
    """``at_load``: an engine that must know its adapters when it loads a model."""

    at_load = False

    def plan(self, name: str, files: ModelFiles, options: LoadOptions, settings: Settings, hardware: Hardware):
        found = super().plan(name, files, options, settings, hardware)
        paths = [offer.path for offer in files.offers] if self.at_load else []
        return msgspec.structs.replace(found, details={"offers": paths})


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@asynccontextmanager
async def fleet_of(shop: Shop, *, at_load: bool = False, **settings: object) -> AsyncIterator[tuple[Fleet, Stage]]:
    stage = AdapterStage({"base": Script(), "base:small": Script(), "other": Script()})
    stage.at_load = at_load
    parts = Parts(files=model_files, choose=stage.choose, engine=stage.engine, runner=stage.runner)
    box = Hardware(cores=2, memory_total=GIB, memory_available=GIB)
    fleet = Fleet(Settings(home=str(shop.home), **settings), shop.store, hardware=box, parts=parts)
    await fleet.start()
    try:
        yield fleet, stage
    finally:
        await fleet.close(drain=0.0)


async def used(fleet: Fleet, name: str) -> tuple[str, Adapter | None]:
    """The model that serves a name, and the adapter that it is told of."""
    lease = await fleet.lease(name)
    try:
        return lease.model.reference, lease.adapter
    finally:
        lease.release()


async def test_an_adapter_is_found_by_its_base_and_by_itself(shop: Shop) -> None:
    base = shop.model("base")
    digest = shop.adapter("hub.local/team/lawyer", parent=base)
    async with fleet_of(shop) as (fleet, stage):
        for name in ("base:lawyer", "hub.local/team/lawyer", "ai/base:lawyer", "base:latest:lawyer"):
            model, adapter = await used(fleet, name)
            assert model == "base"
            assert adapter is not None
            assert (adapter.name, adapter.digest, adapter.scale) == ("lawyer", digest, 1.0)
            assert (Path(adapter.path) / "adapter_config.json").is_file()
        assert await used(fleet, "base") == ("base", None)
        assert len(stage.runners) == 1, "they share one loaded base"
        assert [offer.name for offer in stage.of("base").files.offers] == ["lawyer"]
        assert fleet.identity("base") == base
        assert fleet.identity("base:lawyer") == f"{base}+{digest}"


async def test_the_request_carries_the_adapter(shop: Shop) -> None:
    shop.adapter("lawyer", parent=shop.model("base"))
    async with fleet_of(shop) as (fleet, stage):
        lease = await fleet.lease("base:lawyer")
        async for _ in lease.generate(REQUEST):
            pass
        lease.release()
        (request,) = stage.of("base").requests
        assert request.adapter is not None
        assert request.adapter.name == "lawyer"


async def test_a_tag_of_the_base_wins_over_an_adapter_of_that_name(shop: Shop) -> None:
    base = shop.model("base")
    small = shop.model("base:small", parent=base)
    shop.adapter("small", parent=base)
    async with fleet_of(shop) as (fleet, _):
        assert await used(fleet, "base:small") == ("base:small", None)
        assert fleet.identity("base:small") == small
        model, adapter = await used(fleet, "base:small:small")
        assert model == "base:small"
        assert adapter is not None, "what was made of the base takes the base's adapters"


async def test_an_adapter_without_lineage_belongs_to_the_model_it_names(shop: Shop) -> None:
    shop.model("base")
    shop.model("other")
    shop.adapter("poet", says="Some/Base")
    async with fleet_of(shop) as (fleet, _):
        assert (await used(fleet, "poet"))[0] == "base"
        with pytest.raises(InvalidRequest, match="poet is an adapter of Some/Base, not of other"):
            await fleet.lease("other:poet")


async def test_names_that_are_nothing_tell_what_is_near(shop: Shop) -> None:
    base = shop.model("base")
    shop.adapter("lawyer", parent=base)
    shop.adapter("orphan", says="Nobody/Here")
    async with fleet_of(shop) as (fleet, _):
        with pytest.raises(ModelNotFound, match="neither a tag nor an adapter 'lawer'") as caught:
            await fleet.lease("base:lawer")
        assert "base:lawyer" in (caught.value.hint or "")
        with pytest.raises(ModelNotFound, match="nothing"):
            await fleet.lease("nothing:lawyer")
        with pytest.raises(InvalidRequest, match="orphan is an adapter for Nobody/Here"):
            await fleet.lease("orphan")


async def test_aliases_lead_to_models_and_to_adapters_with_a_weight(shop: Shop) -> None:
    shop.adapter("lawyer", parent=shop.model("base"))
    aliases = ("gpt-4o=base", "legal=gpt-4o+lawyer*0.5", "loop=loop", "said=echo")
    async with fleet_of(shop, aliases=aliases) as (fleet, _):
        assert await used(fleet, "gpt-4o") == ("base", None)
        model, adapter = await used(fleet, "legal")
        assert model == "base"
        assert adapter is not None
        assert adapter.scale == 0.5
        assert fleet.identity("said") == "builtin:echo"
        with pytest.raises(ModelNotFound):
            await fleet.lease("loop")
    with pytest.raises(InvalidRequest, match="NAME=MODEL"):
        async with fleet_of(shop, aliases=("nonsense",)):
            pass


@pytest.mark.parametrize("at_load", [False, True])
async def test_an_adapter_that_comes_later_needs_no_restart_of_the_server(shop: Shop, at_load: bool) -> None:
    base = shop.model("base")
    async with fleet_of(shop, at_load=at_load) as (fleet, stage):
        assert await used(fleet, "base") == ("base", None)
        shop.adapter("lawyer", parent=base)
        model, adapter = await used(fleet, "base:lawyer")
        assert model == "base"
        assert adapter is not None
        await used(fleet, "base")
        await used(fleet, "base:lawyer")
        assert len(stage.runners) == (2 if at_load else 1), "only an engine that loads them itself is loaded anew"
