"""What there is, in Ollama's words: ``/api/tags``, ``/api/show``, ``/api/ps``, ``/api/version``."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Request, get, head, post
from litestar.handlers import HTTPRouteHandler

from dockyard import __version__
from dockyard.api._decode import BodyReader
from dockyard.api._ollama_wire import Maybe, plain
from dockyard.api._openai import refuse
from dockyard.api._site import Site
from dockyard.api.openai_models import ECHO, short
from dockyard.artifact.manifest import Artifact, read_artifact
from dockyard.artifact.media import is_model
from dockyard.errors import DockyardError, InvalidRequest
from dockyard.types import Defaults, Json, LoadedModel, ModelFacts, ModelFiles, Reference, Sampling

SPOKEN = "0.12.6"
"""The version of Ollama whose API this is; clients refuse servers that look too old to them."""
NEVER = "2318-01-01T00:00:00Z"
"""What Ollama's own server says of models that stay."""
_WORDS = {"chat": "completion", "complete": "completion", "infill": "insert", "embed": "embedding"}
_OPTIONS = {
    "max_tokens": "num_predict",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "seed": "seed",
    "repetition_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "stop": "stop",
}


class ShowRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of ``/api/show``; ``name`` is the older word for ``model``."""

    model: Maybe | None = None
    name: Maybe | None = None
    verbose: bool | None = None
    system: str | None = None
    template: str | None = None
    options: dict[str, Json] | None = None


def handlers(site: Site) -> list[HTTPRouteHandler]:
    guards = [site.require("infer")]
    reader = BodyReader(ShowRequest)

    @get("/api/version", guards=guards, tags=["Ollama"], summary="Versions", sync_to_thread=False)
    def version() -> dict[str, str]:
        return {"version": SPOKEN, "dockyard": __version__}

    @get("/api/tags", guards=guards, tags=["Ollama"], summary="Models that can be asked")
    async def tags() -> dict[str, Any]:
        return {"models": await asyncio.to_thread(_tags, site)}

    @get("/api/ps", guards=guards, tags=["Ollama"], summary="Loaded models")
    async def ps() -> dict[str, Any]:
        rows = [row for row in site.fleet.models() if row.state in ("ready", "loading", "draining")]
        return {"models": await asyncio.to_thread(lambda: [_loaded(site, row) for row in rows])}

    @post("/api/show", guards=guards, tags=["Ollama"], summary="All about a model", status_code=200)
    async def show(request: Request[Any, Any, Any]) -> dict[str, Any]:
        asked, _ = reader.read(await request.body())
        refuse(asked, dict.fromkeys(("system", "template", "options"), "create a model that has it"))
        name = named(asked.model or asked.name)
        if name == ECHO:
            return _described(site, name, None, None)
        return await asyncio.to_thread(_show, site, name)

    @head(["/api/version", "/api/tags"], guards=guards, tags=["Ollama"], summary="Whether anybody is here",
          sync_to_thread=False)  # fmt: skip
    def alive() -> None:
        """Clients knock like this before they ask."""

    return [version, tags, ps, show, alive]


def named(name: str | None) -> str:
    """The model that a body names. Raises InvalidRequest where it does not."""
    if not name:
        raise InvalidRequest("'model' is required", param="model")
    return plain(name)


def tagged(site: Site, reference: Reference) -> str:
    """A model's short name, with its tag even where that is ``latest``."""
    name = short(site, reference)
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _tags(site: Site) -> list[dict[str, Any]]:
    found = []
    for entry in site.store.entries():
        if entry.reference is None or not is_model(entry.descriptor.artifact_type):
            continue
        name = tagged(site, entry.reference)
        found.append(
            {
                "name": name,
                "model": name,
                "modified_at": _time(entry.created),
                "size": entry.size,
                "digest": entry.descriptor.digest.partition(":")[2],
                "details": _details(_artifact(site, entry.descriptor.digest)),
            }
        )
    bare = {"modified_at": _time(0.0), "size": 0, "digest": "", "details": _details(None)}
    return [*found, *({"name": name, "model": name, **bare} for name in (*site.stack.aliases(), ECHO))]


def _loaded(site: Site, row: LoadedModel) -> dict[str, Any]:
    names = site.store.names(row.digest) if row.digest.startswith("sha256:") else []
    name = tagged(site, names[0]) if names else row.reference
    stored = _artifact(site, row.digest) if row.digest.startswith("sha256:") else None
    return {
        "name": name,
        "model": name,
        "size": row.measured or row.predicted.total,
        "digest": row.digest.removeprefix("sha256:") if stored is not None else "",
        "details": _details(stored),
        "expires_at": _time(row.expires_at) if row.expires_at is not None else NEVER,
        "size_vram": 0,
        "context_length": row.context,
    }


def _show(site: Site, name: str) -> dict[str, Any]:
    from dockyard.artifact.materialize import model_files

    files = model_files(site.store, name, only_look=True)
    return _described(site, name, read_artifact(site.store, files.digest), files)


def _described(site: Site, name: str, artifact: Artifact | None, files: ModelFiles | None) -> dict[str, Any]:
    facts = files.facts if files is not None else ModelFacts(format="unknown", capabilities=("chat",))
    kept = (files.defaults if files is not None else None) or Defaults()
    template = (files.chat_template if files is not None else None) or facts.chat_template or ""
    parameters = _parameters(kept.sampling, files.context if files is not None else None)
    created = next((e.created for e in site.store.entries() if files and e.descriptor.digest == files.digest), 0.0)
    found: dict[str, Any] = {
        "modelfile": _modelfile(name, template, kept, parameters),
        "parameters": parameters,
        "template": template,
        "details": _details(artifact, facts),
        "model_info": _info(facts),
        "capabilities": _capabilities(facts, template),
        "modified_at": _time(created),
    }
    if kept.system is not None:
        found["system"] = kept.system
    if kept.messages:
        found["messages"] = [{"role": each.role, "content": each.content} for each in kept.messages]
    licence = _licence(site, artifact) or facts.licence
    return {**found, "license": licence} if licence else found


def _artifact(site: Site, digest: str) -> Artifact | None:
    try:
        return read_artifact(site.store, digest)
    except DockyardError:
        return None


def _details(artifact: Artifact | None, facts: ModelFacts | None = None) -> dict[str, Any]:
    spec = artifact.spec if artifact is not None else None
    family = (spec.architecture if spec else None) or (facts.architecture if facts else None) or ""
    parents = artifact.lineage.parents if artifact is not None and artifact.lineage is not None else ()
    return {
        "parent_model": next((parent.reference or parent.digest for parent in parents if parent.role == "base"), ""),
        "format": (spec.format if spec else None) or "",
        "family": family,
        "families": [family] if family else [],
        "parameter_size": (spec.param_size if spec else None) or "",
        "quantization_level": (spec.quantization if spec else None) or "",
    }


def _info(facts: ModelFacts) -> dict[str, Json]:
    """What GGUF's headers call these facts."""
    family = facts.architecture or "unknown"
    found = {
        "general.architecture": facts.architecture,
        "general.basename": facts.name,
        "general.parameter_count": facts.parameters,
        f"{family}.context_length": facts.context,
        f"{family}.embedding_length": facts.embedding,
        f"{family}.block_count": facts.layers,
        f"{family}.feed_forward_length": facts.feed_forward,
        f"{family}.attention.head_count": facts.heads,
        f"{family}.attention.head_count_kv": facts.kv_heads,
        f"{family}.rope.freq_base": facts.rope_base,
        f"{family}.expert_count": facts.experts,
        f"{family}.vocab_size": facts.vocabulary,
        "tokenizer.ggml.model": facts.tokenizer,
    }
    return {name: value for name, value in found.items() if value is not None}


def _capabilities(facts: ModelFacts, template: str) -> list[str]:
    found = dict.fromkeys(_WORDS.get(word, word) for word in facts.capabilities)
    if "completion" in found and ("<think>" in template or "enable_thinking" in template):
        found["thinking"] = None
    return list(found)


def _parameters(sampling: Sampling, context: int | None) -> str:
    lines = [f"num_ctx {context}"] if context else []
    for field, option in _OPTIONS.items():
        value = getattr(sampling, field)
        values = value if isinstance(value, tuple) else (value,)
        lines += [f"{option} {msgspec.json.encode(one).decode()}" for one in values if one is not None]
    return "\n".join(lines)


def _modelfile(name: str, template: str, kept: Defaults, parameters: str) -> str:
    lines = [f"FROM {name}"]
    if template:
        lines.append(f'TEMPLATE """{template}"""')
    if kept.system is not None:
        lines.append(f'SYSTEM """{kept.system}"""')
    lines += [f"PARAMETER {line}" for line in parameters.splitlines()]
    lines += [f"MESSAGE {each.role} {each.content}" for each in kept.messages]
    return "\n".join(lines) + "\n"


def _licence(site: Site, artifact: Artifact | None) -> str | None:
    layers = artifact.of("licence") if artifact is not None else ()
    texts = [
        site.store.read(each.descriptor.digest, 1 << 20).decode("utf-8", "replace")
        for each in layers
        if not each.packed and each.descriptor.size <= 1 << 20
    ]
    return "\n".join(texts) or None


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
