"""What holds for all formats: pickles, unknown files, and that every reader keeps its contract."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import pytest
from header_writers import safetensors_bytes, tiny_gguf

from dockyard import plugins
from dockyard.artifact.formats import FormatReader, detect, expand, is_pickle, read_facts, weight_files
from dockyard.errors import NotFound, UnsafeContent, UnsupportedFormat


def _torch_zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("weights.pt", b""),
        ("model.pth", b""),
        ("model.ckpt", b""),
        ("vectorizer.joblib", b""),
        ("Weights.PKL", b""),
        ("pytorch_model.bin", b""),
        ("pytorch_model-00001-of-00002.bin", b""),
        ("adapter_model.bin", b""),
        ("renamed.bin", pickle.dumps({"a": 1}, protocol=4)),
        ("renamed", pickle.dumps([1, 2], protocol=2)),
        ("renamed.model", _torch_zip()),
    ],
)
def test_pickles_are_refused_by_name_even_beside_good_weights(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    tiny_gguf(tmp_path / "model.gguf")
    with pytest.raises(UnsafeContent) as caught:
        read_facts([tmp_path])
    assert name in caught.value.message
    assert caught.value.hint


def test_a_pickle_that_would_run_code_does_not(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "sprung",))  # type: ignore[return-value]

    (tmp_path / "blob").write_bytes(pickle.dumps(Trap(), protocol=4))
    with pytest.raises(UnsafeContent):
        read_facts([tmp_path / "blob"])
    assert not (tmp_path / "sprung").exists()


def test_raw_numbers_are_no_pickle(tmp_path: Path) -> None:
    for name in ("merges.txt", "tokenizer.model", "data.bin", "notes"):
        (tmp_path / name).write_bytes(b"\x80\xff plain")
        assert not is_pickle(tmp_path / name)
    (tmp_path / "ir.bin").write_bytes(pickle.dumps({}))
    (tmp_path / "ir.xml").write_text("<net/>")
    assert not is_pickle(tmp_path / "ir.bin")


def test_files_of_no_known_format_are_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UnsupportedFormat, match=r"notes\.txt"):
        read_facts([tmp_path])
    assert detect(tmp_path) == "unknown"
    assert weight_files([tmp_path]) == ("unknown", [])


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="absent"):
        read_facts([tmp_path / "absent.gguf"])


def test_folders_are_searched_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b/x.txt", "a.txt", ".git/config", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "b" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert [str(path.relative_to(tmp_path)) for path in expand([tmp_path, tmp_path / "a.txt"])] == ["a.txt", "b/x.txt"]


def test_of_two_formats_the_larger_counts(tmp_path: Path) -> None:
    tiny_gguf(tmp_path / "model.gguf")
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes({"w": ("F32", (2,), 8)}))
    assert detect(tmp_path) == "gguf"


def test_every_reader_keeps_the_contract(tmp_path: Path) -> None:
    found = plugins.find("artifact.formats")
    assert set(found) == {"gguf", "safetensors", "onnx", "openvino", "peft"}
    for name, plugin in found.items():
        reader = plugin.load()
        assert plugin.error is None
        assert reader.name == name  # type: ignore[attr-defined]
        assert callable(reader.weights)  # type: ignore[attr-defined]
        assert callable(reader.read)  # type: ignore[attr-defined]
        claimed: FormatReader = reader  # type: ignore[assignment]
        assert claimed.weights([tmp_path / "README.md"]) == []
