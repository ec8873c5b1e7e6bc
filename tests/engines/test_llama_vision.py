"""Images on llama.cpp: a projector beside a model, of random numbers that are large enough for a picture to count."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import gguf
import msgspec
import numpy as np
import pytest

from dockyard.errors import InvalidRequest
from dockyard.fleet.runner import Runner
from dockyard.types import Message, ModelFiles, Request, Sampling

from .conftest import collect, prepare, said, smol

pytestmark = [pytest.mark.anyio, pytest.mark.model]
WIDTH, INNER, LAYERS, SIDE, PATCH, TEXT_WIDTH = 32, 64, 2, 32, 8, 576
PATCHES = (SIDE // PATCH) ** 2
"""Tokens that an image takes."""


def projector(target: Path) -> Path:
    """A projector as LLaVA has it: a small vision transformer, and two layers into the language model's width."""
    draw = np.random.default_rng(5)
    writer = gguf.GGUFWriter(target, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", True)
    for name, value in (
        ("image_size", SIDE), ("patch_size", PATCH), ("embedding_length", WIDTH), ("feed_forward_length", INNER),
        ("projection_dim", TEXT_WIDTH), ("block_count", LAYERS), ("attention.head_count", 2),
    ):  # fmt: skip
        writer.add_uint32(f"clip.vision.{name}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])

    def matrix(name: str, *shape: int, scale: float = 0.3) -> None:
        writer.add_tensor(f"{name}.weight", draw.normal(0, scale, shape).astype(np.float32))
        if len(shape) == 2 and "embd" not in name:
            writer.add_tensor(f"{name}.bias", np.zeros(shape[0], np.float32))

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(WIDTH, np.float32))

    writer.add_tensor("v.class_embd", draw.normal(0, 0.3, WIDTH).astype(np.float32))
    matrix("v.patch_embd", WIDTH, 3, PATCH, PATCH)
    matrix("v.position_embd", PATCHES + 1, WIDTH)
    norm("v.pre_ln")
    for layer in range(LAYERS):
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            matrix(f"v.blk.{layer}.{part}", WIDTH, WIDTH)
        norm(f"v.blk.{layer}.ln1")
        norm(f"v.blk.{layer}.ln2")
        matrix(f"v.blk.{layer}.ffn_up", INNER, WIDTH)
        matrix(f"v.blk.{layer}.ffn_down", WIDTH, INNER)
    norm("v.post_ln")
    matrix("mm.0", TEXT_WIDTH, WIDTH, scale=0.5)
    matrix("mm.2", TEXT_WIDTH, TEXT_WIDTH, scale=0.1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def picture(red: int, green: int, blue: int) -> str:
    """A data: URL of a PNG in one colour."""

    def block(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes((red, green, blue)) * SIDE) * SIDE
    head = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    whole = b"\x89PNG\r\n\x1a\n" + block(b"IHDR", head) + block(b"IDAT", zlib.compress(rows)) + block(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(whole).decode()


@pytest.fixture(scope="module")
def sighted(starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    path = projector(tmp_path_factory.mktemp("vision") / "mmproj-tiny-f32.gguf")
    return msgspec.structs.replace(smol(starter_gguf), projector=str(path))


@pytest.fixture(scope="module", params=["embedded", "native"])
async def seeing(
    request: pytest.FixtureRequest, sighted: ModelFiles, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Runner]:
    log = tmp_path_factory.mktemp("logs") / "log"
    runner, _ = prepare(sighted, request.param, log, context=512, parallel=2, threads=1)
    await runner.start()
    yield runner
    await runner.stop()


def looking(*urls: str) -> Request:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    turn = Message(role="user", content=[{"type": "text", "text": "What do you see?"}, *parts])
    return Request(id="v", messages=(turn,), sampling=Sampling(max_tokens=12, temperature=0, logprobs=0))


async def test_what_is_in_a_picture_counts(seeing: Runner) -> None:
    red, blue = picture(255, 0, 0), picture(0, 0, 255)
    answers = [await collect(seeing, looking(*urls)) for urls in ((), (red,), (blue,), (red,), (red, blue))]
    texts, usages = [said(chunks) for chunks in answers], [chunks[-1].usage for chunks in answers]
    assert len({texts[0], texts[1], texts[2]}) == 3
    assert texts[1] == texts[3]
    taken = [usage.prompt_tokens for usage in usages if usage is not None]
    assert taken[1] - taken[0] == pytest.approx(PATCHES, abs=2)
    assert taken[4] - taken[1] == taken[1] - taken[0]


@pytest.mark.parametrize(
    "url", ["data:image/png;base64,AAAA", "data:image/png;base64,%%%", "https://example.com/a.png"]
)
async def test_a_picture_that_is_none_is_refused_and_the_next_is_seen(seeing: Runner, url: str) -> None:
    with pytest.raises(InvalidRequest):
        await collect(seeing, looking(url))
    assert said(await collect(seeing, looking(picture(9, 9, 9))))
