"""``/api/create``: a model of another one, or of files sent before, with a character of its own.

The weights are shared with what it was made from. System prompt, first turns and parameters become the artifact's
defaults, which hold for every dialect; a ``num_ctx`` becomes the window that it advises.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from dockyard.api._ollama_wire import Maybe, Options, Turn, ignored, messages, passed, plain, sampling
from dockyard.artifact import media
from dockyard.artifact.safety import contained
from dockyard.artifact.store import Store
from dockyard.artifact.writers import Parent
from dockyard.errors import InvalidRequest, NotFound, UnsupportedParameter
from dockyard.types import Defaults, Json, OnProgress, Progress, Sampling

GO = (".Prompt", ".Messages", ".System", ".Response")
"""What only Ollama's own templates mention."""


class CreateRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of ``/api/create``: ``files`` and ``adapters`` map a file's name to the digest of its blob."""

    model: Maybe | None = None
    name: Maybe | None = None
    from_: Maybe | None = msgspec.field(name="from", default=None)
    files: dict[str, str] | None = None
    adapters: dict[str, str] | None = None
    template: Annotated[str, Meta(description="A Jinja chat template.")] | None = None
    license: str | list[str] | None = None
    system: str | None = None
    parameters: Options | None = None
    messages: list[Turn] | None = None
    stream: bool | None = True
    quantize: str | None = None
    quantization: str | None = None
    modelfile: Json = None


def check(asked: CreateRequest) -> None:
    """Raises InvalidRequest for what can't be made here."""
    if not (asked.model or asked.name):
        raise InvalidRequest("'model' is required", param="model")
    for name, hint in (
        ("quantize", "pull a model that is quantised already"),
        ("quantization", "pull a model that is quantised already"),
        ("modelfile", "send its parts: `from`, `system`, `parameters`, `template` …"),
    ):
        if getattr(asked, name):
            raise UnsupportedParameter(f"{name!r} is not supported", param=name, hint=hint)
    if not asked.from_ and not asked.files:
        raise InvalidRequest("'from' or 'files' is required", param="from")
    if asked.template and any(word in asked.template for word in GO):
        raise UnsupportedParameter(
            "'template' is one of Go; chat templates here are Jinja, as models bring them",
            param="template",
            hint="leave it out to keep the model's own",
        )
    options = asked.parameters
    unusable = [*passed(options), *ignored(options)]
    if unusable:
        raise UnsupportedParameter(f"parameters: {unusable[0]!r} can't be kept with a model", param="parameters")


def create(store: Store, asked: CreateRequest, tell: OnProgress) -> None:
    """Make the artifact and name it. Raises ModelNotFound for ``from``, NotFound for a blob that was not sent."""
    from dockyard.ops import Inputs, execute
    from dockyard.ops.pack import PLUGIN, PackParams

    target = store.named(plain(asked.model or asked.name or ""))
    options = asked.parameters
    kept = Defaults(
        system=asked.system or None,
        messages=messages(asked.messages or []),
        sampling=sampling(options) if options else Sampling(),
    )
    params = PackParams(
        defaults=kept if kept != Defaults() else None, context=options.num_ctx if options is not None else None
    )
    with store.lease():
        parents: tuple[Parent, ...] = ()
        if asked.from_:
            parents = (Parent(digest=store.resolve(asked.from_).digest, role="base", reference=asked.from_),)
            tell(Progress(message=f"using existing model {asked.from_}"))
        files = _files(store, asked)
        if parents and not files and params == PackParams():
            store.tag(target, parents[0].digest)
            return
        execute(store, PLUGIN, Inputs(artifacts=parents, files=files), params, reference=target, on_progress=tell)


def _files(store: Store, asked: CreateRequest) -> dict[str, str]:
    found: dict[str, str] = {}

    def take(path: str, digest: str, param: str) -> None:
        path = contained(path, param)
        if not store.has(digest):
            raise NotFound(
                f"{param}: blob {digest} was not sent", param=param, hint="POST it to /api/blobs/DIGEST first"
            )
        found[path] = digest

    for name, digest in (asked.files or {}).items():
        take(name, digest, "files")
    for name, digest in (asked.adapters or {}).items():
        if media.role_of_path(name) != "adapter":
            name = f"lora-{name}" if name.endswith(".gguf") else f"adapters/created/{name}"
        take(name, digest, "adapters")
    licences = [asked.license] if isinstance(asked.license, str) else asked.license or []
    for number, text in enumerate(licences):
        found[f"LICENSE{f'-{number + 1}' * bool(number)}"] = store.add_bytes(text.encode()).digest
    if asked.template:
        found["chat_template.jinja"] = store.add_bytes(asked.template.encode()).digest
    return found
