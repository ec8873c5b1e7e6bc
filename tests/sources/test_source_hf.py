"""Pulls from Hugging Face, against a server that answers as it does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hugging_face import COMMIT, Hub
from source_samples import CONFIG, gguf, read, safetensors

from dockyard.artifact.sources._names import choose_gguf, choose_projector, gguf_groups, quantization, shard_of
from dockyard.artifact.sources.hf import Item, Wish, select
from dockyard.artifact.store import Store
from dockyard.artifact.transfer import pull
from dockyard.errors import (
    Cancelled,
    DigestMismatch,
    InvalidReference,
    ModelNotFound,
    SourceError,
    SourceUnreachable,
    UnsafeContent,
    UnsupportedFormat,
)
from dockyard.settings import Settings
from dockyard.types import Progress

Q4, Q8, F16 = gguf("q4", 300_000), gguf("q8", 5000), gguf("f16", 5000)
REPOS = {
    "Org/Model-GGUF": {
        "Model-Q8_0.gguf": Q8,
        "Model-Q4_K_M.gguf": Q4,
        "mmproj-Model-F16.gguf": F16,
        "mmproj-Model-Q8_0.gguf": gguf("mmproj", 4000),
        "split/Model-Q2_K-00001-of-00002.gguf": gguf("one", 4000, (0, 2)),
        "split/Model-Q2_K-00002-of-00002.gguf": gguf("two", 4000, (1, 2)),
        "README.md": b"# Model",
        "LICENSE": b"Apache-2.0",
        ".gitattributes": b"x",
    },
    "Org/Plain-GGUF": {"a-IQ2_XS.gguf": gguf("a"), "b-Q5_K_S.gguf": gguf("b")},
    "Org/Safe": {
        "model.safetensors": safetensors(),
        "config.json": CONFIG,
        "tokenizer.json": b"{}",
        "pytorch_model.bin": b"\x80\x02pickle",
        "onnx/model.onnx": b"x" * 3000,
        "LICENSE.md": b"MIT",
    },
    "Org/Pickles": {"pytorch_model.bin": b"\x80\x02" + b"x" * 3000, "config.json": CONFIG},
    "Org/Nothing": {"README.md": b"# empty"},
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with Hub({name: dict(files) for name, files in REPOS.items()}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def test_the_default_variant_with_projector_and_licence(hub: Hub, store: Store, settings: Settings) -> None:
    entry = pull(store, "hf.co/Org/Model-GGUF", settings)
    assert str(entry.reference) == "hf.co/org/model-gguf:latest"
    artifact, files = read(store, entry)
    assert files == {
        "Model-Q4_K_M.gguf": Q4,
        "mmproj-Model-F16.gguf": F16,
        "README.md": b"# Model",
        "LICENSE": b"Apache-2.0",
    }
    assert {layer.path: layer.role for layer in artifact.layers}["mmproj-Model-F16.gguf"] == "projector"
    assert artifact.manifest.annotations["io.dockyard.source"] == f"hf.co/Org/Model-GGUF@{COMMIT}"
    assert artifact.about.revision == COMMIT
    assert artifact.about.licenses == ("apache-2.0",)
    again = pull(Store(store.root.parent / "again"), f"huggingface.co/Org/Model-GGUF@{COMMIT}", settings)
    assert again.descriptor.digest == entry.descriptor.digest


@pytest.mark.parametrize("asked", ["Q8_0", "q8_0", "Model-Q8_0.gguf"])
def test_a_variant_in_any_case(hub: Hub, store: Store, settings: Settings, asked: str) -> None:
    entry = pull(store, f"hf.co/Org/Model-GGUF:{asked}", settings)
    assert "Model-Q8_0.gguf" in read(store, entry)[1]
    assert store.resolve(f"hf.co/Org/Model-GGUF:{asked}").digest == entry.descriptor.digest


def test_shards_come_together(hub: Hub, store: Store, settings: Settings) -> None:
    files = read(store, pull(store, "hf.co/Org/Model-GGUF:Q2_K@v1", settings))[1]
    assert [path for path in files if path.startswith("split/")] == [
        "split/Model-Q2_K-00001-of-00002.gguf",
        "split/Model-Q2_K-00002-of-00002.gguf",
    ]


def test_an_unknown_variant_lists_what_there_is(hub: Hub, store: Store, settings: Settings) -> None:
    with pytest.raises(ModelNotFound, match="Q3_K_L") as caught:
        pull(store, "hf.co/Org/Model-GGUF:Q3_K_L", settings)
    assert caught.value.hint == "it has Q2_K, Q4_K_M, Q8_0"
    assert store.entries() == []


def test_without_the_usual_variant_the_first_is_taken(hub: Hub, store: Store, settings: Settings) -> None:
    assert list(read(store, pull(store, "hf.co/Org/Plain-GGUF", settings))[1]) == ["a-IQ2_XS.gguf"]


def test_a_safetensors_repository_comes_without_its_pickles(hub: Hub, store: Store, settings: Settings) -> None:
    hub.page = 2
    files = read(store, pull(store, "hf.co/Org/Safe", settings))[1]
    assert sorted(files) == ["LICENSE.md", "config.json", "model.safetensors", "tokenizer.json"]
    with pytest.raises(ModelNotFound, match="no GGUF"):
        pull(store, "hf.co/Org/Safe:Q4_0", settings)


def test_an_openvino_repository_is_chosen_by_its_graphs() -> None:
    paths = [
        "openvino_model.xml",
        "openvino_model.bin",
        "openvino_tokenizer.xml",
        "openvino_tokenizer.bin",
        "config.json",
    ]
    found = select([Item(path=path) for path in [*paths, "training_args.bin"]], Wish("Org/IR", None, "main"))
    assert [item.path for item in found] == paths


def test_pickles_are_refused_by_name(hub: Hub, store: Store, settings: Settings) -> None:
    with pytest.raises(UnsafeContent, match=r"pytorch_model\.bin"):
        pull(store, "hf.co/Org/Pickles", settings)
    assert hub.cdn_seen == []
    with pytest.raises(UnsupportedFormat):
        pull(store, "hf.co/Org/Nothing", settings)


def test_the_token_goes_to_the_endpoint_only(
    hub: Hub, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "hf_secret"
    with pytest.raises(SourceError, match="401") as caught:
        pull(store, "hf.co/Org/Plain-GGUF", settings)
    assert "HF_TOKEN" in (caught.value.hint or "")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.large = 100
    pull(store, "hf.co/Org/Plain-GGUF", settings)
    assert hub.cdn_seen
    assert all("Authorization" not in headers for headers in hub.cdn_seen)


def test_a_broken_download_goes_on(hub: Hub, store: Store, settings: Settings) -> None:
    hub.cut = 2
    assert read(store, pull(store, "hf.co/Org/Model-GGUF", settings))[1]["Model-Q4_K_M.gguf"] == Q4
    assert any(headers.get("Range", "").startswith("bytes=100000-") for headers in hub.cdn_seen)


@pytest.mark.parametrize("path", ["Model-Q4_K_M.gguf", "README.md"])
def test_bytes_that_are_not_the_commits_are_refused(hub: Hub, store: Store, settings: Settings, path: str) -> None:
    right = hub.repos["Org/Model-GGUF"][path]
    hub.swap[path] = right[:-1] + b"?"
    with pytest.raises(DigestMismatch):
        pull(store, "hf.co/Org/Model-GGUF", settings)
    assert store.entries() == []
    hub.swap.clear()
    pull(store, "hf.co/Org/Model-GGUF", settings)


def test_paths_that_escape_are_refused(hub: Hub, store: Store, settings: Settings) -> None:
    hub.repos["Org/Plain-GGUF"] = {"../../evil.gguf": gguf("evil")}
    with pytest.raises(UnsafeContent, match="leaves"):
        pull(store, "hf.co/Org/Plain-GGUF", settings)


def test_unknown_repositories_and_revisions(hub: Hub, store: Store, settings: Settings) -> None:
    with pytest.raises(ModelNotFound, match="Org/Unknown"):
        pull(store, "hf.co/Org/Unknown", settings)
    with pytest.raises(ModelNotFound, match="revision 'v9'"):
        pull(store, "hf.co/Org/Model-GGUF@v9", settings)
    for text in ("hf.co/Org", "hf.co/Org/Repo/more", "hf.co/../x", "hf.co/Org/Repo@../../x"):
        with pytest.raises(InvalidReference):
            pull(store, text, settings)


def test_gone_but_here_already(hub: Hub, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = pull(store, "hf.co/Org/Plain-GGUF", settings)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert pull(store, "hf.co/Org/Plain-GGUF", settings).descriptor.digest == entry.descriptor.digest
    with pytest.raises(SourceUnreachable):
        pull(store, "hf.co/Org/Model-GGUF", settings)


def test_a_pull_that_is_cancelled(hub: Hub, store: Store, settings: Settings) -> None:
    def stop(news: Progress) -> None:
        if news.current:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        pull(store, "hf.co/Org/Model-GGUF", settings, on_progress=stop)
    pull(store, "hf.co/Org/Model-GGUF", settings)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("Model-Q4_K_M.gguf", "Q4_K_M"),
        ("model.q8_0.gguf", "Q8_0"),
        ("Q4_K_M/Model-00001-of-00003.gguf", "Q4_K_M"),
        ("Model-IQ2_XXS-00001-of-00003.gguf", "IQ2_XXS"),
        ("Model-BF16.gguf", "BF16"),
        ("model-fp16.gguf", "FP16"),
        ("Model-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("Model-7B.gguf", None),
        ("ggml-model.gguf", None),
    ],
)
def test_quantisation_of_names(path: str, expected: str | None) -> None:
    assert quantization(path) == expected


def test_names_of_shards() -> None:
    assert shard_of("m-00002-of-00003") == ("m", 2, 3)
    assert shard_of("m-00004-of-00003") == ("m-00004-of-00003", 0, 0)
    assert shard_of("m") == ("m", 0, 0)
    incomplete = ["m-Q8_0-00001-of-00002.gguf", "x-Q4_0.gguf", "mmproj-F16.gguf"]
    assert list(gguf_groups(incomplete)) == ["x-Q4_0.gguf"]
    assert choose_gguf(incomplete, "Q8_0") == []
    assert choose_projector(["a.gguf", "mmproj-q8_0.gguf", "mmproj-model-f16.gguf", "mmproj-BF16.gguf"]) == (
        "mmproj-model-f16.gguf"
    )
    assert choose_projector(["a.gguf"]) is None
