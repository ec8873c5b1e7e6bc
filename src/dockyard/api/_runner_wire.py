"""Docker Model Runner's shapes: models, errors as plain text, progress lines, and its names for engines and modes."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException

from dockyard import plugins
from dockyard.api._failures import failure
from dockyard.artifact.manifest import Artifact, read_artifact
from dockyard.errors import DockyardError, InvalidRequest, NotFound
from dockyard.types import Mode, Progress

if TYPE_CHECKING:
    from dockyard.artifact.store import Store

log = logging.getLogger(__name__)

MODES: dict[Mode, str] = {"generate": "completion", "embed": "embedding", "rerank": "reranking"}
"""Our words and Model Runner's."""

_BACKENDS = {"llamacpp": "llama.cpp"}
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")

_encode = msgspec.json.encode


def backends() -> dict[str, str]:
    """Model Runner's name for each engine there is, and ours."""
    return {_BACKENDS.get(name, name): name for name in plugins.find("engines")}


def backend_of(engine: str) -> str:
    return _BACKENDS.get(engine, engine)


def engine_of(backend: str) -> str:
    """Our engine that goes by this name. Raises NotFound with the names there are."""
    known = backends()
    if backend not in known:
        raise NotFound(f"there is no backend {backend!r}", hint=f"backends: {', '.join(sorted(known))}")
    return known[backend]


def mode_of(text: str) -> Mode:
    """Raises InvalidRequest for a mode that is none, or that nobody here serves."""
    found = next((mode for mode, name in MODES.items() if name == text), None)
    if found is None:
        raise InvalidRequest(f"there is no mode {text!r}", param="mode", hint=f"modes: {', '.join(MODES.values())}")
    return found


def seconds(text: str) -> float:
    """A duration as Go writes it: "5m", "1h30m", "0", "-1" (for ever; any negative one). Raises InvalidRequest."""
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text)
    try:
        return sign * float(rest) if rest.isascii() else float("x")
    except ValueError:
        pass
    parts = _DURATION.findall(rest)
    if not parts or "".join(number + unit for number, unit in parts) != rest:
        raise InvalidRequest(f"{text!r} is not a duration", param="keep_alive", hint='such as "5m", "0" or "-1"')
    return sign * sum(float(number) * _UNITS[unit] for number, unit in parts)


def told(value: float | None) -> str | None:
    """Seconds as Go writes a duration."""
    if value is None:
        return None
    if value <= 0:
        return str(int(value))
    return f"{value:.0f}s" if value.is_integer() else f"{value:.3f}s"


def failed(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Any failure of a management route: text, as Go's ``http.Error`` writes it, and a header with our own code."""
    found, headers = failure(request, error)
    status = error.status_code if isinstance(error, HTTPException) else found.status
    return Response(
        f"{sentence(found)}\n".encode(),
        status_code=status,
        headers={**headers, "x-dockyard-code": found.code, "x-content-type-options": "nosniff"},
        media_type="text/plain",
    )


def sentence(error: DockyardError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message


def is_model(artifact: Artifact) -> bool:
    return bool(artifact.of("weight", "adapter"))


def model(
    store: Store, digest: str, tags: list[str], created: float, *, headers: bool = False
) -> dict[str, Any] | None:
    """One model as ``GET /models`` has it; None for what is no model. With ``headers``, weights' metadata are read.

    Blocks.
    """
    try:
        artifact = read_artifact(store, digest)
    except DockyardError as error:
        log.warning("%s is left out of the list of models: %s", digest, error)
        return None
    if not is_model(artifact):
        return None
    return described(artifact, store, tags, created, headers=headers)


def described(
    artifact: Artifact, store: Store | None, tags: list[str], created: float, *, headers: bool = False
) -> dict[str, Any]:
    """An artifact in Model Runner's words; ``store`` holds its blobs, if they are here."""
    said = artifact.spec
    weights = artifact.of("weight")
    config: dict[str, Any] = {
        "format": said.format or "",
        "quantization": said.quantization or "",
        "parameters": said.param_size or "",
        "architecture": said.architecture or "",
        "size": binary(sum(layer.descriptor.size for layer in weights)),
    }
    found = dict(said.headers)
    if headers and not found and said.format == "gguf" and store is not None and weights and not weights[0].packed:
        from dockyard.artifact.formats.gguf import metadata

        found = metadata(store.blob_path(weights[0].descriptor.digest))
    if found:
        config[said.format or "gguf"] = found
    if artifact.context is not None:
        config["context_size"] = artifact.context
    return {"id": artifact.digest, "tags": tags, "created": int(created), "config": config}


def binary(size: int) -> str:
    """Bytes as Model Runner writes them: 256.35MiB."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f}{unit}" if unit == "B" else f"{value:.2f}{unit}"
        value /= 1024
    return f"{value:.2f}TiB"


class Lines:
    """Progress as Model Runner's command line reads it, a JSON object a line.

    To readers that did not ask for JSON it is the same, HTML-escaped, as Model Runner does.
    """

    def __init__(self, mode: str, *, escaped: bool) -> None:
        self._mode = mode
        self._escaped = escaped
        self._totals: dict[str, int] = {}

    def progress(self, news: Progress) -> bytes:
        if not news.item:
            note = {"type": "progress", "message": news.message, "mode": self._mode}
            return self._line(note) if news.message else b""
        self._totals[news.item] = news.total
        done = "Uploaded" if self._mode == "push" else "Downloaded"
        return self._line(
            {
                "type": "progress",
                "message": f"{done} {binary(news.current)} of {binary(news.total)}",
                "total": sum(self._totals.values()),
                "layer": {"id": news.item, "size": news.total, "current": news.current},
                "mode": self._mode,
            }
        )

    def success(self, message: str) -> bytes:
        return self._line({"type": "success", "message": message, "mode": self._mode})

    def failure(self, error: DockyardError) -> bytes:
        return self._line({"type": "error", "message": sentence(error), "mode": self._mode})

    def _line(self, fields: dict[str, Any]) -> bytes:
        text = _encode(fields) + b"\n"
        if self._escaped:
            import html

            return html.escape(text.decode()).encode()
        return text
