"""Run directories: what an engine gets to see of an artifact, and that it is always whole."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from artifact_samples import Keep, package_into, tiny_gguf

from dockyard.artifact import media
from dockyard.artifact.digest import of_bytes
from dockyard.artifact.manifest import Content, Manifest, Pack, Spec, docker_v1, encode, read_artifact
from dockyard.artifact.materialize import lay_out, model_files
from dockyard.artifact.reference import parse
from dockyard.artifact.store import Store
from dockyard.errors import ArtifactError, ModelNotFound, UnsafeContent, UnsupportedFormat
from dockyard.types import Descriptor

GGUF = tiny_gguf()


def laid(store: Store, name: str) -> list[str]:
    directory, _ = lay_out(store, read_artifact(store, store.resolve(name).digest))
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def test_a_model_is_laid_out_as_hard_links(store: Store, keep: Keep) -> None:
    described = keep(
        {
            "sub/model.gguf": GGUF,
            "mmproj-model-f32.gguf": GGUF + bytes(32),
            "mmproj-model-f16.gguf": GGUF + bytes(64),
            "chat_template.jinja": b"{{ messages }}",
            "style-lora.gguf": GGUF + bytes(96),
            "LICENSE": b"MIT",
        },
        "x",
        context=4096,
    )
    found = model_files(store, "x")
    assert (found.reference, found.digest, found.format, found.context) == ("x", described.digest, "gguf", 4096)
    (weight,) = map(Path, found.weights)
    assert weight == Path(found.directory) / "sub" / "model.gguf"
    assert weight.samefile(store.blob_path(of_bytes(GGUF)))
    assert found.projector is not None
    assert found.projector.endswith("mmproj-model-f16.gguf")
    assert [Path(each).name for each in found.adapters] == ["style-lora.gguf"]
    assert found.chat_template == "{{ messages }}"
    assert found.facts.architecture == "llama"
    assert store.df().runs < 16384, "a run directory costs no second copy"
    for name in (described.digest, parse("x")):
        assert model_files(store, name).weights == found.weights


def test_the_real_starter_model_is_laid_out(store: Store, starter_gguf: Path) -> None:
    blob = store.add_file(starter_gguf, link=True)
    content = Content(digest=blob.digest, size=blob.size, path="SmolLM2.gguf", role="weight")
    manifest, config = docker_v1(Pack(contents=(content,), spec=Spec(format="gguf"), context=2048))
    store.add_bytes(config)
    store.put_manifest(manifest, reference=parse("smollm2"))
    found = model_files(store, "smollm2")
    assert (found.facts.architecture, found.facts.layers, found.context) == ("llama", 30, 2048)


def test_shards_come_in_order_and_all_of_them(store: Store, keep: Keep) -> None:
    names = [f"m-{number:05}-of-00003.gguf" for number in (3, 1, 2)]
    shards = {name: tiny_gguf(**{"split.count": 3, "split.no": int(name[2:7]) - 1}) for name in names}
    keep(shards, "whole")
    assert [Path(each).name for each in model_files(store, "whole").weights] == sorted(names)
    keep({names[0]: GGUF, names[1]: GGUF + bytes(32)}, "broken")
    with pytest.raises(ArtifactError, match="part 2 of 3"):
        model_files(store, "broken")


@pytest.mark.parametrize("harm", ["remove", "replace", "truncate", "marker", "everything", "garbage"])
def test_a_damaged_run_directory_is_built_again(store: Store, keep: Keep, harm: str) -> None:
    keep({"model.gguf": GGUF, "LICENSE": b"MIT"}, "x")
    home = Path(model_files(store, "x").directory).parent
    licence = home / "files" / "LICENSE"
    if harm == "remove":
        licence.unlink()
    elif harm == "replace":
        licence.unlink()
        licence.write_bytes(b"TIM")
    elif harm == "truncate":
        licence.unlink()
        licence.write_bytes(b"")
    elif harm == "marker":
        (home / "complete.json").unlink()
    elif harm == "everything":
        for path in (licence, home / "files" / "model.gguf"):
            path.unlink()
    else:
        (home / "complete.json").write_bytes(b"?")
    model_files(store, "x")
    assert licence.read_bytes() == b"MIT"
    assert (home / "files" / "model.gguf").read_bytes() == GGUF
    assert [path.name for path in store.run_root.iterdir() if path.name.startswith(".building")] == []


def test_a_run_directory_is_reused(store: Store, keep: Keep) -> None:
    keep({"model.gguf": GGUF}, "x")
    home = Path(model_files(store, "x").directory).parent
    before = home.stat().st_ino
    with store.lease():
        store.has(of_bytes(GGUF))
    model_files(store, "x")
    assert home.stat().st_ino == before


def test_it_goes_with_its_model(store: Store, keep: Keep) -> None:
    keep({"model.gguf": GGUF}, "x")
    other = keep({"model.gguf": GGUF, "LICENSE": b"MIT"}, "y")
    model_files(store, "x")
    model_files(store, "y")
    assert store.delete("x").freed.runs == 1
    assert [path.name for path in store.run_root.iterdir() if path.is_dir()] == [other.digest[7:]]


def test_a_missing_blob_is_named(store: Store, keep: Keep) -> None:
    keep({"model.gguf": GGUF}, "x")
    store.blob_path(of_bytes(GGUF)).unlink()
    with pytest.raises(ArtifactError, match=r"model\.gguf"):
        model_files(store, "x")
    with pytest.raises(ModelNotFound):
        model_files(store, "y")
    assert list(store.run_root.glob(".building*")) == []


MAKER = """
import sys
from pathlib import Path
from dockyard.artifact.materialize import model_files
from dockyard.artifact.store import Store
store = Store(Path(sys.argv[1]))
for _ in range(20):
    found = model_files(store, "x")
    assert Path(found.weights[0]).stat().st_size > 0
    assert len(list(Path(found.directory).iterdir())) == 30
"""


def test_many_processes_may_lay_out_one_model_at_once(store: Store, keep: Keep) -> None:
    keep({"model.gguf": GGUF, **{f"notes-{number}.md": b"x" * (number + 1) for number in range(29)}}, "x")
    running = [
        subprocess.Popen([sys.executable, "-c", MAKER, str(store.root)], stderr=subprocess.PIPE) for _ in range(4)
    ]
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()


def image(store: Store, layers: list[tuple[str, str | None, bytes]], name: str = "x") -> Descriptor:
    """An artifact with layers of (media type, path, content)."""
    described = []
    for kind, path, data in layers:
        blob = store.add_bytes(data, media_type=kind)
        notes = {media.FILEPATH: path} if path else {}
        described.append(Descriptor(media_type=kind, digest=blob.digest, size=blob.size, annotations=notes))
    config = store.add_bytes(b"{}", media_type=media.MODELPACK_CONFIG)
    manifest = Manifest(media_type=media.OCI_MANIFEST, config=config, layers=tuple(described))
    return store.put_manifest(encode(manifest), reference=parse(name))


def tar(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name.replace("__", "/"))
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


RAW = "application/vnd.cncf.model.weight.v1.raw"
KIT = "application/vnd.kitops.modelkit.model.v1.tar"


def test_packed_layers_are_unpacked_into_it(store: Store) -> None:
    image(store, [(KIT, None, tar(**{"weights__model.gguf": GGUF, "weights__README.md": b"hi"}))])
    found = model_files(store, "x")
    assert found.weights == (f"{found.directory}/weights/model.gguf",)
    assert laid(store, "x") == ["weights/README.md", "weights/model.gguf"]
    readme = Path(found.directory) / "weights" / "README.md"
    readme.write_bytes(b"ho")
    os.utime(readme, (1, 1))
    model_files(store, "x")
    assert readme.read_bytes() == b"hi"


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ([(RAW, "pytorch_model.bin", b"\x80\x02}q\x00.")], r"pytorch_model\.bin"),
        ([(RAW, "a/model.pt", b"anything")], r"a/model\.pt"),
        ([(RAW, "model.bin", b"PK\x03\x04....")], r"model\.bin"),
        ([(KIT, None, tar(**{"in__model.ckpt": b"x"}))], r"in/model\.ckpt"),
        ([(KIT, None, tar(**{"pytorch_model.bin": b"\x80\x04x"}))], r"pytorch_model\.bin"),
    ],
)
def test_a_pickle_among_the_weights_is_refused_by_name(store: Store, layers: Any, says: str) -> None:
    image(store, layers)
    with pytest.raises(UnsafeContent, match=says):
        model_files(store, "x")
    assert list(store.run_root.glob("[0-9a-f]*/files")) == []


def test_a_pickle_that_is_no_weight_is_left_out(store: Store) -> None:
    doc = "application/vnd.cncf.model.doc.v1.raw"
    image(store, [(RAW, "model.gguf", GGUF), (doc, "training_args.bin", b"\x80\x02x"), (doc, "x.pkl", b"x")])
    assert laid(store, "x") == ["model.gguf"]


def test_openvino_weights_beside_their_xml_are_no_pickle(store: Store) -> None:
    xml = b'<?xml version="1.0"?><net name="m" version="11"><layers></layers><edges></edges></net>'
    names = ["openvino_tokenizer", "openvino_model", "openvino_detokenizer"]
    layers = [(RAW, f"{name}.bin", name.encode()) for name in names]
    layers += [(RAW, f"{name}.xml", xml) for name in names]
    image(store, [*layers, (RAW, "config.json", b'{"model_type": "llama"}')])
    found = model_files(store, "x")
    assert found.format == "openvino"
    assert Path(found.weights[0]).name == "openvino_model.xml"
    assert (Path(found.directory) / "openvino_model.bin").read_bytes() == b"openvino_model"


@pytest.mark.parametrize(
    "layers",
    [
        [(RAW, "a", b"1"), (RAW, "a", b"2")],
        [(RAW, "a", b"1"), (RAW, "a/b", b"2")],
        [(RAW, "a/b", b"1"), (RAW, "a", b"2")],
        [(KIT, None, tar(a=b"1")), (RAW, "a", b"2")],
        [(RAW, "a", b"2"), (KIT, None, tar(a=b"1"))],
    ],
)
def test_layers_that_claim_one_place_are_refused(store: Store, layers: Any) -> None:
    image(store, layers)
    with pytest.raises(UnsafeContent, match=r"\ba\b"):
        lay_out(store, read_artifact(store, store.resolve("x").digest))


def test_an_artifact_without_weights_is_refused_with_what_it_holds(store: Store, keep: Keep) -> None:
    keep({"README.md": b"hi"}, "x")
    with pytest.raises(UnsupportedFormat, match=r"README\.md"):
        model_files(store, "x")


def test_a_template_must_be_text(store: Store, keep: Keep) -> None:
    keep({"model.gguf": GGUF, "chat_template.jinja": b"\xff\xfe"}, "x")
    with pytest.raises(ArtifactError, match="UTF-8"):
        model_files(store, "x")


def test_an_adapter_alone_is_its_own_weights(store: Store) -> None:
    header = json.dumps({"base.q.lora_A.weight": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]}}).encode()
    weights = len(header).to_bytes(8, "little") + header + bytes(32)
    config = json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q"]}).encode()
    package_into(store, {"adapter_model.safetensors": weights, "adapter_config.json": config}, "lora")
    found = model_files(store, "lora")
    assert (found.format, Path(found.weights[0]).name, found.adapters) == ("peft", "adapter_model.safetensors", ())


def test_facts_are_noted_beside_the_files_and_read_again_if_the_note_is_bad(store: Store, keep: Keep) -> None:
    keep({"model.gguf": GGUF}, "x")
    first = model_files(store, "x")
    (note,) = store.run_root.rglob("facts.json")
    note.write_bytes(b"{")
    assert model_files(store, "x") == first
    assert b"llama" in note.read_bytes(), "a bad note is replaced"
