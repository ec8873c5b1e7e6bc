"""What an encoder's own files say of pooling, normalisation, window and prompts, down to the numbers that come out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from encoder_samples import VECTORS, ask, files, floats, prepare, tiny

from dockyard.engines._encoder_plan import read_flags, recipe, window
from dockyard.errors import ContextOverflow, DockyardError, InvalidRequest, LoadFailed
from dockyard.fleet.runner import Runner
from dockyard.settings import Settings
from dockyard.types import LoadOptions

pytest.importorskip("onnxruntime", reason="the extra `encoder` is not installed")
pytestmark = pytest.mark.anyio

TOKENS = [VECTORS[n] for n in (1, 4, 6, 2)]
"""[CLS] two four [SEP]"""

MEAN = [sum(column) / 4 for column in zip(*TOKENS, strict=True)]
POOLING = "1_Pooling__config"
MODULES = [{"idx": 0, "type": "sentence_transformers.models.Transformer"}]


async def embedded(model: Path, log: Path, text: str = "two four", **options: Any) -> list[float]:
    """What a fresh worker makes of a text, in the company of a shorter and a longer one."""
    runner, _ = prepare(files(model), log, threads=1, **options)
    await runner.start()
    try:
        result = (await ask(runner, kind="embed", inputs=("one", text, "one two three four"))).result
    finally:
        await runner.stop()
    assert result is not None
    return floats(result.vectors[1])


def unit(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector]


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"pooling_mode_cls_token": True}, list(TOKENS[0])),
        ({"pooling_mode_mean_tokens": True}, MEAN),
        ({"pooling_mode_lasttoken": True}, list(TOKENS[3])),
        ({"pooling_mode_max_tokens": True}, [max(column) for column in zip(*TOKENS, strict=True)]),
    ],
)
async def test_pooling_is_the_models_own(tmp_path: Path, stated: dict[str, bool], expected: list[float]) -> None:
    model = tiny(tmp_path / "tiny", modules=MODULES, **{POOLING: stated})
    assert await embedded(model, tmp_path / "log") == pytest.approx(expected)


async def test_without_a_word_of_the_model_it_is_the_normalised_mean(tmp_path: Path) -> None:
    assert await embedded(tiny(tmp_path / "tiny"), tmp_path / "log") == pytest.approx(unit(MEAN))


async def test_flags_overrule_the_model(tmp_path: Path) -> None:
    model = tiny(tmp_path / "tiny", modules=MODULES, **{POOLING: {"pooling_mode_cls_token": True}})
    flags = {"pooling": "last", "normalize": True}
    assert await embedded(model, tmp_path / "log", flags=flags) == pytest.approx(unit(list(TOKENS[3])))


async def test_the_models_prompts_go_in_front(tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "three ", "passage": "one "}}
    runner, _ = prepare(files(tiny(tmp_path / "tiny", config_sentence_transformers=prompts)), tmp_path / "log")
    await runner.start()

    async def count(text: str, kind: str | None) -> int:
        chunk = await ask(runner, kind="embed", inputs=(text,), extra={"input_type": kind} if kind else {})
        assert chunk.usage is not None
        return chunk.usage.prompt_tokens

    assert [await count("two", kind) for kind in (None, "query", "search_query", "search_document", "clustering")] == [
        3, 4, 4, 4, 3,
    ]  # fmt: skip
    with pytest.raises(InvalidRequest, match="input_type"):
        await ask(runner, kind="embed", inputs=("two",), extra={"input_type": 3})
    ranked = (await ask(runner, kind="rerank", query="two", inputs=("two", "one four"))).result
    assert ranked is not None
    assert len(ranked.scores) == 2
    await runner.stop()


async def test_openvino_ir_gives_the_same_numbers(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    model = tiny(tmp_path / "tiny", modules=MODULES, **{POOLING: {"pooling_mode_mean_tokens": True}})
    openvino.save_model(openvino.Core().read_model(model / "model.onnx"), model / "openvino_model.xml", False)
    (model / "model.onnx").unlink()
    assert files(model).format == "openvino"
    assert await embedded(model, tmp_path / "log") == pytest.approx(MEAN, rel=1e-3)


async def test_a_window_as_small_as_stated(tmp_path: Path) -> None:
    model = files(tiny(tmp_path / "tiny", tokenizer_config={"model_max_length": 6}, sentence_bert_config={}))
    runner, plan = prepare(model, tmp_path / "log")
    assert plan.context == 6
    await runner.start()
    await fits_only(runner, 4)
    await runner.stop()


async def fits_only(runner: Runner, words: int) -> None:
    assert (await ask(runner, kind="embed", inputs=("one " * words,))).usage is not None
    with pytest.raises(ContextOverflow):
        await ask(runner, kind="embed", inputs=("one " * (words + 1),))


def test_the_window_is_the_least_that_anybody_states(tmp_path: Path) -> None:
    def of(options: LoadOptions | None = None, context: int = 0, **beside: Any) -> int:
        folder = tmp_path / f"m{len(list(tmp_path.iterdir()))}"
        return window(files(tiny(folder, **beside)), options or LoadOptions(), Settings(context=context))

    config = {"model_type": "bert", "architectures": ["BertModel"], "max_position_embeddings": 300}
    assert of(tokenizer_config={"model_max_length": 1e30}) == 512
    assert of(tokenizer_config={"model_max_length": 1e30}, config=config) == 300
    assert of(config={**config, "model_type": "roberta"}, tokenizer_config={}) == 298
    assert of(sentence_bert_config={"max_seq_length": 128}, config=config, tokenizer_config={}) == 128
    assert of(LoadOptions(context=64), config=config, tokenizer_config={}) == 64
    assert of(context=100_000, config=config, tokenizer_config={}) == 300
    with pytest.raises(InvalidRequest, match="trained on 300") as caught:
        of(LoadOptions(context=301), config=config, tokenizer_config={})
    assert caught.value.param == "context"


def test_a_family_that_is_known_to_pool_otherwise(tmp_path: Path) -> None:
    def pooling(**config: str) -> str:
        folder = tmp_path / f"m{len(list(tmp_path.iterdir()))}"
        model = tiny(folder, config={"architectures": ["BertModel"], **config})
        return recipe(files(model), read_flags({})).pooling

    assert pooling(model_type="bert", _name_or_path="BAAI/bge-m3") == "cls"
    assert pooling(model_type="bert", _name_or_path="intfloat/e5-small") == "mean"
    assert pooling(model_type="qwen3") == "last"


@pytest.mark.parametrize(
    ("beside", "reason"),
    [
        ({"modules": [*MODULES, {"type": "sentence_transformers.models.Dense"}]}, "dense layer"),
        ({POOLING: {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}}, "several poolings"),
        ({"modules": {"not": "a list"}}, "modules.json"),
    ],
)
def test_what_is_not_done_here_is_refused(tmp_path: Path, beside: dict[str, Any], reason: str) -> None:
    with pytest.raises(LoadFailed, match=reason):
        prepare(files(tiny(tmp_path / "tiny", **beside)), tmp_path / "log")


@pytest.mark.parametrize("flags", [{"pooling": "sum"}, {"batch": 0}, {"file": "other.onnx"}, {"threads": 3}])
def test_flags_that_are_wrong(tmp_path: Path, flags: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        prepare(files(tiny(tmp_path / "tiny")), tmp_path / "log", flags=flags)
    assert (caught.value.param or "").startswith("flags")
    assert next(iter(flags)) in str(caught.value) + str(caught.value.hint)


async def test_a_tokenizer_or_graph_that_is_broken_fails_the_load(tmp_path: Path) -> None:
    model = tiny(tmp_path / "tiny")
    for name, content in (("tokenizer.json", "{}"), ("model.onnx", None)):
        found = files(model)
        if content is None:
            (model / name).write_bytes((model / name).read_bytes()[:-30])
        else:
            kept = (model / name).read_text()
            (model / name).write_text(content)
        runner, _ = prepare(found, tmp_path / "log")
        with pytest.raises(DockyardError) as caught:
            await runner.start()
        assert caught.value.code in ("load_failed", "truncated_content", "unsupported_format")
        assert name in caught.value.message
        if content is not None:
            (model / name).write_text(kept)


def test_a_model_without_its_tokenizer(tmp_path: Path) -> None:
    model = tiny(tmp_path / "tiny")
    (model / "tokenizer.json").unlink()
    with pytest.raises(LoadFailed, match=r"no tokenizer\.json"):
        prepare(files(model), tmp_path / "log")


async def test_a_graph_that_wants_more_than_text(tmp_path: Path) -> None:
    runner, _ = prepare(files(tiny(tmp_path / "tiny", inputs=("pixel_values",))), tmp_path / "log")
    with pytest.raises(LoadFailed, match="pixel_values"):
        await runner.start()
