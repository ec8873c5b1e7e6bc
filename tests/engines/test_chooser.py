"""Which engine serves what, and what is said when none can."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dockyard import plugins
from dockyard.engines import Engine, choose, create
from dockyard.errors import EngineUnavailable, InvalidRequest, UnsupportedFormat
from dockyard.hardware import Hardware
from dockyard.settings import Settings
from dockyard.types import LoadOptions, ModelFacts, ModelFiles

MACHINE = Hardware(cores=2, memory_total=8 << 30, memory_available=6 << 30)
SETTINGS = Settings(native_llama=False)

THIRD_PARTY = """
from dockyard.engines import LoadPlan

class Onnx:
    name, serves, isolated, extra = "onnx", frozenset({"chat"}), True, "onnx"
    formats = frozenset({"onnx", "gguf", "unknown"})

    def refuses(self, files, hardware):
        return "onnxruntime is not installed" if files.format == "onnx" else None

    def plan(self, files, options, settings, hardware):
        return LoadPlan(engine="onnx", context=1, parallel=1)
"""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    return path


def model(path: Path, format_: str = "gguf") -> ModelFiles:
    facts = msgspec.convert({"format": format_, "architecture": "llama"}, ModelFacts)
    return ModelFiles(
        reference="hub/ai/x:1", digest="sha256:0", directory=str(path.parent), format=facts.format,
        weights=(str(path),), facts=facts,
    )  # fmt: skip


@pytest.fixture
def third_party(tmp_path: Path) -> Iterator[None]:
    """A distribution as pip would install it: one good engine, one broken, one that takes a built-in's name."""
    site = tmp_path / "site"
    info = site / "third_party-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "third_party_engine.py").write_text(THIRD_PARTY)
    (site / "third_party_broken.py").write_text("import no_such_module_here\nPLUGIN = None\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[dockyard.engines]\nonnx = third_party_engine:Onnx\nbroken = third_party_broken:PLUGIN\n"
        "llamacpp = third_party_engine:Onnx\n"
    )
    sys.path.insert(0, str(site))
    plugins.forget()
    yield
    sys.path.remove(str(site))
    plugins.forget()
    for name in ("third_party_engine", "third_party_broken"):
        sys.modules.pop(name, None)


def test_built_in_engines_are_found_by_file_name_and_none_is_broken() -> None:
    found = plugins.find("engines")
    assert set(found) >= {"echo", "echo-worker", "llamacpp"}
    assert {name: plugin.error for name, plugin in found.items() if plugin.error} == {}
    assert all(not name.startswith("_") and name not in ("frames", "worker") for name in found)


def test_every_engine_tells_its_own_name() -> None:
    for name in plugins.find("engines"):
        engine: Engine = create(name)
        assert engine.name == name
        assert engine.serves


def test_listing_engines_imports_nothing_heavy() -> None:
    import subprocess

    script = (
        "import sys; from dockyard import plugins, engines;"
        "[engines.create(n) for n in plugins.find('engines')];"
        "assert not {'xllamacpp', 'psutil', 'httpx', 'litestar', 'sqlalchemy'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_gguf_goes_to_llamacpp(weights: Path) -> None:
    chosen = choose(model(weights), LoadOptions(), SETTINGS, MACHINE)
    assert (chosen.engine.name, chosen.why) == ("llamacpp", "llamacpp serves gguf")


def test_none_can_says_each_engines_reason(weights: Path) -> None:
    with pytest.raises(UnsupportedFormat) as caught:
        choose(model(weights, "safetensors"), LoadOptions(), SETTINGS, MACHINE)
    assert "hub/ai/x:1 (safetensors)" in caught.value.message
    assert "llamacpp: it reads gguf, not safetensors" in caught.value.message
    with pytest.raises(UnsupportedFormat, match="does not serve 'image'"):
        choose(model(weights), LoadOptions(), SETTINGS, MACHINE, "image")


def test_missing_weights_are_a_reason(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormat, match="weight files are missing"):
        choose(model(tmp_path / "gone.gguf"), LoadOptions(), SETTINGS, MACHINE)


def test_an_engine_can_be_named(weights: Path) -> None:
    assert choose(model(weights), LoadOptions(engine="llamacpp"), SETTINGS, MACHINE).why == "llamacpp was asked for"
    with pytest.raises(InvalidRequest, match="no engine 'llama'") as caught:
        choose(model(weights), LoadOptions(engine="llama"), SETTINGS, MACHINE)
    assert "llamacpp" in (caught.value.hint or "")
    with pytest.raises(UnsupportedFormat, match="engine 'llamacpp' can't serve"):
        choose(model(weights, "onnx"), LoadOptions(engine="llamacpp"), SETTINGS, MACHINE)


@pytest.mark.usefixtures("third_party")
def test_engines_of_other_packages_join_in(weights: Path) -> None:
    found = plugins.find("engines")
    assert (found["onnx"].origin, found["onnx"].error) == ("third-party", None)
    assert found["llamacpp"].origin == "dockyard"
    assert "no_such_module_here" in (found["broken"].error or "")
    preferred = choose(model(weights), LoadOptions(), Settings(engine="onnx", native_llama=False), MACHINE)
    assert (preferred.engine.name, preferred.why) == ("onnx", "onnx serves gguf and preferred by settings")
    # Dockyard's own come first, whatever the others are called.
    assert choose(model(weights), LoadOptions(), SETTINGS, MACHINE).engine.name == "llamacpp"
    assert choose(model(weights, "unknown"), LoadOptions(), SETTINGS, MACHINE).engine.name == "onnx"


@pytest.mark.usefixtures("third_party")
def test_a_broken_engine_is_shown_not_hidden(weights: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"broken.*no_such_module_here"):
        create("broken")
    with pytest.raises(UnsupportedFormat, match="no_such_module_here"):
        choose(model(weights, "safetensors"), LoadOptions(), SETTINGS, MACHINE)


@pytest.mark.usefixtures("third_party")
def test_a_missing_extra_names_the_install_line(weights: Path) -> None:
    with pytest.raises(EngineUnavailable, match="onnxruntime is not installed") as caught:
        choose(model(weights, "onnx"), LoadOptions(), SETTINGS, MACHINE)
    assert caught.value.hint == "pip install 'dockyard[onnx]'"
