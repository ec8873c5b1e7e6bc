"""Files and folders as sources, and how a text finds its source."""

from __future__ import annotations

from pathlib import Path

import pytest
from source_samples import CONFIG, gguf, read, safetensors

from dockyard.artifact.sources import choose
from dockyard.artifact.store import Store
from dockyard.artifact.transfer import pull
from dockyard.errors import InvalidReference, NotFound, UnsafeContent
from dockyard.settings import Settings


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("smollm2", "oci"),
        ("localhost:5000/x@sha256:" + "0" * 64, "oci"),
        ("hf.co/Org/Repo:Q4_0", "hf"),
        ("huggingface.co/Org/Repo", "hf"),
        ("pypi:thing==1", "pypi"),
        ("./x.gguf", "file"),
        ("/models/x", "file"),
        ("file:x.gguf", "file"),
        ("~/x", "file"),
    ],
)
def test_each_text_has_its_source(text: str, name: str) -> None:
    assert choose(text).name == name


def test_nothing_is_no_name() -> None:
    with pytest.raises(InvalidReference):
        choose(" ")


def test_a_file(store: Store, settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "My Model.Q4_0.gguf"
    path.write_bytes(gguf())
    for text in (str(path), f"file:{path}", f"file://{path}"):
        entry = pull(store, text, settings)
        assert str(entry.reference) == "localhost/my-model-q4-0:latest"
        assert read(store, entry)[1] == {path.name: gguf()}
    path.write_bytes(b"changed")
    assert read(store, entry)[1] == {path.name: gguf()}


def test_a_folder_without_hidden_files(store: Store, settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "Llama"
    (folder / "sub").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("secret")
    (folder / "model.safetensors").write_bytes(safetensors())
    (folder / "config.json").write_bytes(CONFIG)
    (folder / "sub" / "LICENSE").write_text("MIT")
    entry = pull(store, str(folder), settings)
    assert str(entry.reference) == "localhost/llama:latest"
    assert sorted(read(store, entry)[1]) == ["config.json", "model.safetensors", "sub/LICENSE"]


def test_shards_come_together(store: Store, settings: Settings, tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"m-0000{number}-of-00002.gguf").write_bytes(gguf(f"shard{number}", split=(number - 1, 2)))
    entry = pull(store, str(tmp_path / "m-00001-of-00002.gguf"), settings)
    assert str(entry.reference) == "localhost/m:latest"
    assert len(read(store, entry)[1]) == 2
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    with pytest.raises(NotFound, match="00002-of-00002"):
        pull(store, str(tmp_path / "m-00001-of-00002.gguf"), settings)


def test_pickles_and_absent_paths(store: Store, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"\x80\x02")
    with pytest.raises(UnsafeContent, match=r"model\.pt"):
        pull(store, str(tmp_path / "model.pt"), settings)
    with pytest.raises(NotFound, match="no file or folder"):
        pull(store, str(tmp_path / "absent.gguf"), settings)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="no files"):
        pull(store, str(tmp_path / "empty"), settings)
    assert store.entries() == []
