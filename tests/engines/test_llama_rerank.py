"""A real reranker on llama.cpp: ms-marco-MiniLM, written as GGUF from the INT8 graph that a package carries."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import gguf
import msgspec
import numpy as np
import pytest

from dockyard.artifact.formats import read_facts
from dockyard.errors import UnsupportedFormat
from dockyard.fleet.prepare import Parts, Prepared
from dockyard.fleet.prepare import prepare as prepared
from dockyard.fleet.runner import Runner
from dockyard.hardware import detect
from dockyard.settings import Settings
from dockyard.types import Kind, LoadOptions, ModelFiles, Request

from .conftest import collect, prepare

pytestmark = [pytest.mark.anyio, pytest.mark.model]
LAYERS, WIDTH, CLS, SEP = 12, 384, 101, 102
QUERY = "How many people live in Berlin?"
TEXTS = (
    "Berlin has a population of 3,520,031 registered inhabitants in an area of 891.82 square kilometers.",
    "New York City is famous for the Metropolitan Museum of Art.",
    "The capital of Germany is known for its culture.",
    "Nobody knows.",
)
TOLERANCE = 0.5
PARTS = (("self.query", "attn_q"), ("self.key", "attn_k"), ("self.value", "attn_v"), ("output.dense", "attn_output"))


def rewritten(graph: Path, target: Path) -> Path:
    """The graph's weights, dequantised, under the names that llama.cpp has for them."""
    onnx = pytest.importorskip("onnx", reason="the graph is read with onnx")
    model = onnx.load(graph).graph
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in model.initializer}

    def plain(name: str) -> np.ndarray:
        return (stored[f"{name}_quantized"].astype(np.float32) - stored[f"{name}_zero_point"]) * stored[f"{name}_scale"]

    products = iter([
        node.input[1].removesuffix("_quantized") for node in model.node if node.op_type == "MatMulInteger"
    ])  # fmt: skip
    writer = _described(target, json.loads((graph.parent / "tokenizer.json").read_text())["model"]["vocab"])

    def norm(name: str, source: str) -> None:
        for part in ("weight", "bias"):
            writer.add_tensor(f"{name}.{part}", stored[f"{source}.LayerNorm.{part}"])

    def linear(name: str, bias: str, half: type = np.float16) -> None:
        writer.add_tensor(f"{name}.weight", np.ascontiguousarray(plain(next(products)).T).astype(half))
        writer.add_tensor(f"{name}.bias", stored[f"{bias}.bias"])

    for name, source in (("token_embd", "word"), ("token_types", "token_type"), ("position_embd", "position")):
        writer.add_tensor(f"{name}.weight", plain(f"bert.embeddings.{source}_embeddings.weight").astype(np.float32))
    norm("token_embd_norm", "bert.embeddings")
    for number in range(LAYERS):
        block, source = f"blk.{number}", f"bert.encoder.layer.{number}"
        for theirs, ours in PARTS:
            linear(f"{block}.{ours}", f"{source}.attention.{theirs}")
        norm(f"{block}.attn_output_norm", f"{source}.attention.output")
        linear(f"{block}.ffn_up", f"{source}.intermediate.dense")
        linear(f"{block}.ffn_down", f"{source}.output.dense")
        norm(f"{block}.layer_output_norm", f"{source}.output")
    linear("cls", "bert.pooler.dense", np.float32)
    linear("cls.output", "classifier", np.float32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _described(target: Path, vocabulary: dict[str, int]) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(target, "bert")
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(4 * WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_head_count(12)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK)
    writer.add_tokenizer_model("bert")
    words = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_token_list([
        word if word.startswith("[") and word.endswith("]") else word[2:] if word.startswith("##") else f"▁{word}"
        for word in words
    ])  # fmt: skip
    writer.add_token_types([
        int(gguf.TokenType.CONTROL if word.startswith("[") and word.endswith("]") else gguf.TokenType.NORMAL)
        for word in words
    ])  # fmt: skip
    writer.add_token_type_count(2)
    for add, token in ((writer.add_bos_token_id, CLS), (writer.add_eos_token_id, SEP), (writer.add_sep_token_id, SEP)):
        add(token)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    writer.add_add_sep_token(False)
    return writer


@pytest.fixture(scope="module")
def ranker(encoders: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    path = rewritten(encoders / "reranker_en" / "model.onnx", tmp_path_factory.mktemp("ranker") / "minilm-f16.gguf")
    return ModelFiles(
        reference="docker.io/ai/minilm:latest", digest="sha256:1", directory=str(path.parent), format="gguf",
        weights=(str(path),), facts=read_facts([path]),
    )  # fmt: skip


@pytest.fixture(scope="module", params=["embedded", "native"])
async def ranking(
    request: pytest.FixtureRequest, ranker: ModelFiles, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Runner]:
    runner, _ = prepare(ranker, request.param, tmp_path_factory.mktemp("logs") / "log", mode="rerank", threads=1)
    await runner.start()
    yield runner
    await runner.stop()


async def scores(runner: Runner, texts: tuple[str, ...]) -> tuple[float, ...]:
    (chunk,) = await collect(runner, Request(id="r", kind="rerank", query=QUERY, inputs=texts))
    assert chunk.result is not None
    assert chunk.usage is not None
    assert chunk.usage.prompt_tokens > 0
    return chunk.result.scores


async def test_scores_are_those_of_the_graph(ranking: Runner, encoders: Path) -> None:
    """llama.cpp reads both texts as sentence A, so the graph is asked in that way too."""
    runtime = pytest.importorskip("onnxruntime", reason="the extra `encoder` is not installed")
    from tokenizers import Tokenizer

    folder = encoders / "reranker_en"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    session = runtime.InferenceSession(folder / "model.onnx")
    expected = []
    for text in TEXTS:
        ids = np.array([tokenizer.encode(QUERY, text).ids], np.int64)
        asked = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        expected.append(float(session.run(None, asked)[0][0, 0]))
    told = await scores(ranking, TEXTS)
    assert told == pytest.approx(expected, abs=TOLERANCE), "the graph rounds activations to eight bits"
    assert max(told) == told[0]


async def test_a_score_does_not_depend_on_the_others(ranking: Runner) -> None:
    together = await scores(ranking, TEXTS)
    alone = [(await scores(ranking, (text,)))[0] for text in TEXTS]
    assert together == pytest.approx(alone, abs=0.02)


def test_a_reranker_makes_no_vectors(ranker: ModelFiles, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormat, match="reranker"):
        prepare(ranker, "embedded", tmp_path / "log", mode="embed")


def test_whoever_asks_is_told_that_its_order_can_differ(ranker: ModelFiles, tmp_path: Path) -> None:
    _, plan = prepare(ranker, "embedded", tmp_path / "log", mode="rerank")
    assert "`encoder` is exact" in plan.caveat
    assert plan.caveat in asked(ranker, "rerank", tmp_path).plans[0].why


def asked(ranker: ModelFiles, kind: Kind | None, home: Path) -> Prepared:
    """What the fleet makes of a request of this kind."""
    return prepared(ranker, LoadOptions(), Settings(home=str(home)), detect(), kind, Parts())


@pytest.mark.parametrize("kind", [None, "rerank", "tokenize", "detokenize"])
def test_what_is_no_text_loads_it_to_rank(ranker: ModelFiles, kind: Kind | None, tmp_path: Path) -> None:
    assert asked(ranker, kind, tmp_path).mode == "rerank"


@pytest.mark.parametrize("kind", ["chat", "complete"])
def test_an_encoder_writes_no_text(ranker: ModelFiles, kind: Kind, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormat, match="it writes no text"):
        asked(ranker, kind, tmp_path)


def test_an_encoder_that_embeds_is_planned(ranker: ModelFiles, tmp_path: Path) -> None:
    facts = msgspec.structs.replace(ranker.facts, capabilities=("embed",))
    embedder = msgspec.structs.replace(ranker, facts=facts)
    assert asked(embedder, "embed", tmp_path).mode == asked(embedder, "tokenize", tmp_path).mode == "embed"
