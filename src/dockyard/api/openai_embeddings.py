"""``POST /v1/embeddings``: OpenAI's embeddings, whole vectors or their first dimensions."""

from __future__ import annotations

import base64
import math
import struct
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from dockyard.api import _openai
from dockyard.api._decode import BodyReader
from dockyard.api._endpoint import Unstreamed
from dockyard.api._further import Described, Routes
from dockyard.api._site import Site
from dockyard.errors import EngineError, InvalidRequest
from dockyard.types import Call, Chunk, Json, Request, Result, Usage

MOST_INPUTS = 2048

_encode = msgspec.json.encode


class EmbeddingRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body: ``input`` is text, token ids, or a list of either."""

    model: _openai.ModelName
    input: str | list[Json]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=1 << 20)] | None = None
    # No effect here: accepted because clients send it.
    user: str | None = None


class Embeddings:
    """Reads requests for embeddings."""

    def __init__(self) -> None:
        self._reader = BodyReader(EmbeddingRequest)

    def read(self, body: bytes) -> EmbeddingAsked:
        asked, _ = self._reader.read(body)
        _openai.check_model(asked.model)
        return EmbeddingAsked(asked)


class EmbeddingAsked(Unstreamed):
    """A request for embeddings and the writing of its answer. It is never streamed."""

    def __init__(self, asked: EmbeddingRequest) -> None:
        inputs = _openai.texts(asked.input, "input", MOST_INPUTS)
        request = Request(id=_openai.new_id("embd-"), kind="embed", inputs=tuple(inputs))
        self.calls = [Call(request=request, model=asked.model, dialect="openai-embeddings")]
        self._asked = asked

    def whole(self, batches: list[list[Chunk]], usage: Usage, extra: dict[str, Any] | None) -> bytes:
        vectors = _openai.result_of(batches, Result()).vectors
        if len(vectors) != len(self.calls[0].request.inputs):
            raise EngineError(f"the engine made {len(vectors)} vectors", hint="its log may say why")
        wanted = self._asked.dimensions
        if wanted is not None:
            vectors = tuple(shortened(vector, wanted) for vector in vectors)
        write = base64_of if self._asked.encoding_format == "base64" else numbers
        answer: dict[str, Any] = {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": write(one)} for index, one in enumerate(vectors)
            ],
            "model": self.calls[0].model,
            "usage": {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.prompt_tokens},
        }
        if extra is not None:
            answer["dockyard"] = extra
        return _encode(answer)


def numbers(vector: bytes) -> tuple[float, ...]:
    """The components of a vector of little-endian float32."""
    return struct.unpack(f"<{len(vector) // 4}f", vector)


def base64_of(vector: bytes) -> str:
    return base64.b64encode(vector).decode()


def shortened(vector: bytes, wanted: int) -> bytes:
    """The first ``wanted`` dimensions at length one again. Raises InvalidRequest where there are fewer."""
    width = len(vector) // 4
    if wanted > width:
        raise InvalidRequest(f"this model's vectors have {width} dimensions", param="dimensions")
    kept = numbers(vector[: 4 * wanted])
    length = math.hypot(*kept)
    return struct.pack(f"<{wanted}f", *(one / length for one in kept)) if length else vector[: 4 * wanted]


def routes(site: Site) -> Routes:
    from dockyard.api._openai_endpoints import endpoints

    path = "/v1/embeddings"
    described = Described(body=EmbeddingRequest, summary="Turn texts into vectors", tag="OpenAI")
    return Routes(hot={path: endpoints(site)["/embeddings"]}, described={path: described})
