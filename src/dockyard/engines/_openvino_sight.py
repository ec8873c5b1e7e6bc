"""Images for vision models in IR: found in a conversation, decoded, and told of where they stood in its text."""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from dockyard.errors import EngineUnavailable, InvalidRequest, UnsupportedParameter
from dockyard.types import Json, Message

LANGUAGE = "openvino_language_model.xml"
PARTS = (LANGUAGE, "openvino_text_embeddings_model.xml", "openvino_vision_embeddings_model.xml")
"""The graphs of every vision model that GenAI reads; some families have more."""

TAG = "<ov_genai_image_{}>"
"""What GenAI puts an image's own tokens in the place of, whatever the family calls them."""

_TAGS = re.compile("<ov_genai_image_[0-9]+>")

MOST_PIXELS = 64_000_000


class Sight(NamedTuple):
    """A prompt as a model that sees takes it: text with tags, the images that they stand for, and those's tokens."""

    text: str
    images: tuple[Any, ...]
    tokens: int

    @property
    def pieces(self) -> list[str]:
        """The text before, between and after its images: tokens never span one."""
        return _TAGS.split(self.text) if self.images else [self.text]


def sees(folder: Path) -> bool:
    return (folder / LANGUAGE).is_file()


def tokens_of_an_image(folder: Path) -> int:
    """Tokens that an image takes, where all take the same; 0 where that depends on its size, which GenAI keeps to
    itself."""
    import openvino

    shape = openvino.Core().read_model(folder / PARTS[2]).output(0).get_partial_shape()
    if shape.rank.is_dynamic or len(shape) < 2 or shape[len(shape) - 2].is_dynamic:
        return 0
    return int(shape[len(shape) - 2].get_length())


def look(messages: Sequence[Message]) -> tuple[tuple[Message, ...], list[Any]]:
    """The conversation with a tag for each image, and the images as tensors. Raises InvalidRequest naming the part."""
    images: list[Any] = []
    found = []
    for number, message in enumerate(messages):
        content = message.content
        if isinstance(content, str):
            _plain(content, f"messages[{number}].content")
        elif content is not None:
            texts = [_part(part, f"messages[{number}].content[{place}]", images) for place, part in enumerate(content)]
            message = msgspec.structs.replace(message, content="".join(texts))
        found.append(message)
    return tuple(found), images


def _part(part: Json, where: str, images: list[Any]) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or kind not in ("text", "input_text", "refusal", "image_url"):
        raise UnsupportedParameter(f"this model takes text and images, no part of type {kind!r}", param=where)
    if kind != "image_url":
        return _plain(str(part.get("text") or part.get("refusal") or ""), where)
    inner = part.get("image_url")
    url = inner.get("url") if isinstance(inner, dict) else inner
    if not isinstance(url, str) or not url.startswith("data:"):
        said = url.partition(":")[0][:16] if isinstance(url, str) else type(url).__name__
        raise InvalidRequest(
            f"image_url: only data: URLs are read, not {said}", param=f"{where}.image_url.url", hint="send the bytes"
        )
    images.append(_decoded(url, f"{where}.image_url.url"))
    return TAG.format(len(images) - 1) + "\n"


def _plain(text: str, where: str) -> str:
    if "<ov_genai_image_" in text:
        raise InvalidRequest("a text can't hold the mark that images are put in the place of", param=where)
    return text


def _decoded(url: str, where: str) -> Any:
    """The picture as OpenVINO has it: one of height by width by red, green and blue."""
    import numpy as np
    import openvino

    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise EngineUnavailable(
            f"images are read with Pillow: {error}", hint="pip install 'dockyard[openvino]'"
        ) from error
    try:
        data = base64.b64decode(url.partition(",")[2], validate=True)
        with Image.open(io.BytesIO(data)) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise InvalidRequest(
                    f"the image has {picture.width} x {picture.height} pixels; at most {MOST_PIXELS} are read",
                    param=where,
                )
            pixels = np.asarray(picture.convert("RGB"), dtype=np.uint8)
    except (binascii.Error, UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise InvalidRequest(f"this is no image that can be read: {type(error).__name__}", param=where) from error
    return openvino.Tensor(np.ascontiguousarray(pixels[None]))
