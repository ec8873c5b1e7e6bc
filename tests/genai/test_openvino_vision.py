"""A vision model in IR: the starter model with its embeddings taken out, and eyes put before it that see colours."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from dockyard.artifact.formats import read_facts
from dockyard.engines import IsolatedEngine, choose, create
from dockyard.engines._openvino_convert import cached
from dockyard.errors import ContextOverflow, InvalidRequest, UnsupportedFormat
from dockyard.hardware import detect
from dockyard.settings import Settings
from dockyard.types import LoadOptions, Message, ModelFiles, Request, Sampling

from .conftest import files_of, run, said, together

pytestmark = pytest.mark.model
WIDTH, SIDE, PATCH = 576, 32, 8
PATCHES = (SIDE // PATCH) ** 2
COLOURS = (2382, 2654, 4461)
"""The starter's tokens for red, green and blue: a patch of such a colour is that word to the language model."""

RED, BLUE = (255, 0, 0), (0, 0, 255)
OPTIONS = LoadOptions(context=512, parallel=4, threads=1, flags={"precision": "f32", "kv_precision": "f32"})
PREPROCESSING = {
    "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": SIDE}, "do_resize": True, "resample": 3,
    "crop_size": {"height": SIDE, "width": SIDE}, "do_center_crop": True,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
}  # fmt: skip


def sighted(starter: Path, whole: Path, folder: Path) -> None:
    """LLaVA's graphs, as an exporter writes them, out of the language model's whole one."""
    import openvino
    from openvino import opset13 as ops

    def save(results: list[Any], parameters: list[Any], name: str, output: str) -> None:
        model = openvino.Model(results, parameters, name)
        model.outputs[0].get_tensor().set_names({output})
        openvino.save_model(model, folder / f"openvino_{name}_model.xml", compress_to_fp16=False)

    core = openvino.Core()
    ids, embeds = _embedding(core.read_model(whole))
    save([ops.result(embeds)], [ids], "text_embeddings", "inputs_embeds")
    words = core.compile_model(folder / "openvino_text_embeddings_model.xml", "CPU")
    colours = np.stack([words([np.array([[token]])])[0][0, 0] for token in COLOURS], axis=1)
    pixels = ops.parameter([-1, 3, SIDE, SIDE], openvino.Type.f32, name="pixel_values")
    pixels.output(0).get_tensor().set_names({"pixel_values"})
    kernel = np.tile(colours[:, :, None, None] / (2 * PATCH**2), (PATCH, PATCH))  # pixels are from -1 to 1
    drawn = ops.convolution(pixels, ops.constant(kernel), [PATCH, PATCH], [0, 0], [0, 0], [1, 1])
    seen = ops.add(drawn, ops.constant(colours.sum(1).reshape(1, WIDTH, 1, 1) / 2))
    rows = ops.reshape(seen, ops.constant(np.array([0, WIDTH, PATCHES])), special_zero=True)
    turned = ops.transpose(rows, ops.constant(np.array([0, 2, 1])))
    save([ops.result(turned)], [pixels], "vision_embeddings", "last_hidden_state")
    _language(core, whole, folder)
    _tokenizer(starter, folder)
    config = {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "vision_config": {},
              "text_config": {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
                              "hidden_size": WIDTH, "vocab_size": 49152, "max_position_embeddings": 8192}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING))


def _embedding(model: Any) -> tuple[Any, Any]:
    """The parameter that takes token ids, and the output that holds their embeddings."""
    ids = next(each for each in model.get_parameters() if "input_ids" in each.output(0).get_names())
    ending = f",{WIDTH}]"
    found = next(
        node for node in model.get_ordered_ops()
        if node.get_type_name() == "Gather" and str(node.get_output_partial_shape(0)).endswith(ending)
    )  # fmt: skip
    return ids, found.output(0)


def _language(core: Any, whole: Path, folder: Path) -> None:
    import openvino
    from openvino import opset13 as ops

    model = core.read_model(whole)
    ids, embeds = _embedding(model)
    given = ops.parameter([-1, -1, WIDTH], openvino.Type.f32, name="inputs_embeds")
    given.output(0).get_tensor().set_names({"inputs_embeds"})
    embeds.replace(given.output(0))
    for user in ids.output(0).get_target_inputs():
        node = user.get_node()
        if node.get_type_name() == "ShapeOf":
            shape = ops.shape_of(given.output(0), output_type=node.get_output_element_type(0))
            first, two, step = (ops.constant(np.array([number])) for number in (0, 2, 1))
            node.output(0).replace(ops.slice(shape, first, two, step).output(0))
    model.add_parameters([given])
    model.remove_parameter(ids)
    model.validate_nodes_and_infer_types()
    openvino.save_model(model, folder / "openvino_language_model.xml", compress_to_fp16=False)


def _tokenizer(starter: Path, folder: Path) -> None:
    """The starter's own, with a token for images in the place of one that it has no use for."""
    import openvino
    from openvino_tokenizers import convert_tokenizer
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    base = AutoTokenizer.from_pretrained(starter.parent, gguf_file=starter.name)
    text = base.backend_tokenizer.to_str().replace("<repo_name>", "<image>")
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(text), eos_token="<|im_end|>")
    made.chat_template = base.chat_template
    for name, model in zip(("tokenizer", "detokenizer"), convert_tokenizer(made, with_detokenizer=True), strict=True):
        openvino.save_model(model, folder / f"openvino_{name}.xml")


@pytest.fixture(scope="module")
def model(starter_gguf: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    pytest.importorskip("openvino_genai", reason="the extra `openvino` is not installed")
    pytest.importorskip("PIL", reason="Pillow is not installed")
    whole = cached(files_of(starter_gguf), home / "cache" / "openvino") / "openvino_model.xml"
    folder = tmp_path_factory.mktemp("llava")
    sighted(starter_gguf, whole, folder)
    weights = sorted(path for path in folder.glob("*.xml") if "tokenizer" not in path.name)
    facts = read_facts([*weights, *(path.with_suffix(".bin") for path in weights)])
    return ModelFiles(
        reference="docker.io/ai/llava:latest", digest="sha256:llava", directory=str(folder), format="openvino",
        weights=tuple(map(str, weights)), facts=facts,
    )  # fmt: skip


@pytest.fixture(scope="module")
def seeing(model: ModelFiles, home: Path) -> Iterator[IsolatedEngine]:
    made = create("openvino")
    settings = Settings(home=str(home))
    made.load(model, made.plan(model, OPTIONS, settings, detect()))
    yield made
    made.close()


def picture(*colours: tuple[int, int, int], side: int = 48) -> str:
    from PIL import Image

    found = io.BytesIO()
    whole = Image.new("RGB", (side * len(colours), side))
    for number, colour in enumerate(colours):
        whole.paste(colour, (side * number, 0, side * (number + 1), side))
    whole.save(found, "PNG")
    return "data:image/png;base64," + base64.b64encode(found.getvalue()).decode()


def looking(*urls: str, text: str = "What colour is it?") -> Request:
    parts: list[Any] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    turn = Message(role="user", content=[*parts, {"type": "text", "text": text}])
    return Request(id="v", messages=(turn,), sampling=Sampling(max_tokens=12, temperature=0, ignore_eos=True))


def test_what_is_in_a_picture_counts(seeing: IsolatedEngine) -> None:
    red, blue = picture(RED), picture(BLUE)
    answers = [run(seeing, looking(*urls)) for urls in ((), (red,), (blue,), (red,), (red, blue), (blue, red))]
    texts = [said(chunks) for chunks in answers]
    assert len({texts[0], texts[1], texts[2]}) == 3
    assert texts[1] == texts[3], "the second picture of the same text was not taken for the first"
    taken = [chunks[-1].usage.prompt_tokens for chunks in answers if chunks[-1].usage is not None]
    new_line = 1
    assert [taken[1] - taken[0], taken[4] - taken[1]] == [PATCHES + new_line] * 2
    assert taken[1] == taken[2]
    assert "red" in texts[1].lower()


def test_without_a_picture_it_answers_as_the_language_model_does(
    seeing: IsolatedEngine, starter_gguf: Path, home: Path
) -> None:
    plain = create("openvino")
    files = files_of(starter_gguf)
    plain.load(files, plain.plan(files, OPTIONS, Settings(home=str(home)), detect()))
    try:
        assert said(run(seeing, looking())) == said(run(plain, looking()))
    finally:
        plain.close()


def test_pictures_and_texts_at_once_are_each_its_own(seeing: IsolatedEngine) -> None:
    asked = [looking(picture(RED)), looking(), looking(picture(BLUE)), looking(picture(RED, BLUE))] * 2
    alone = [said(run(seeing, request)) for request in asked[:4]]
    assert together(seeing, asked) == alone * 2


@pytest.mark.parametrize(
    "url",
    ["data:image/png;base64,AAAA", "data:image/png;base64,%%%", "https://example.com/a.png", "file:///etc/passwd"],
)
def test_what_is_no_picture_is_refused_by_its_place(seeing: IsolatedEngine, url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        run(seeing, looking(picture(RED), url))
    assert (caught.value.param or "").startswith("messages[0].content[1]")


def test_a_text_can_not_speak_of_pictures_that_are_not_there(seeing: IsolatedEngine) -> None:
    for text in ("<ov_genai_image_0>", "<image>"):
        with pytest.raises(InvalidRequest):
            run(seeing, looking(text=f"What is {text}?"))
    assert said(run(seeing, looking(picture(RED))))


def test_pictures_count_against_the_context(seeing: IsolatedEngine) -> None:
    with pytest.raises(ContextOverflow):
        run(seeing, looking(*[picture(RED)] * 32))


def test_what_a_model_that_sees_does_not_go_with(model: ModelFiles, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="sees"):
        create("openvino").plan(model, LoadOptions(flags={"prompt_lookup": 4}), Settings(home=str(tmp_path)), detect())
    assert "vision" in model.facts.capabilities
    (Path(model.directory) / "openvino_text_embeddings_model.xml").rename(tmp_path / "away.xml")
    without = tuple(path for path in model.weights if "text_embeddings" not in path)
    files = msgspec.structs.replace(model, weights=without)
    try:
        with pytest.raises(UnsupportedFormat, match="openvino_text_embeddings_model"):
            choose(files, LoadOptions(engine="openvino"), Settings(home=str(tmp_path)), detect())
    finally:
        (tmp_path / "away.xml").rename(Path(model.directory) / "openvino_text_embeddings_model.xml")
