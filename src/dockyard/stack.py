"""The stack file, ``dockyard.yaml``: which models a project serves, and under which names with what around them.

    name: helpdesk
    models:
      small: smollm2                                   # a further name for a model …
      big: {source: hf.co/Org/Repo, context: 8192, preload: true}    # … and how it is to be loaded
    prompts:
      support: prompts/support.yaml                    # a file beside this one, or a reference to an artifact
    routes:
      helpdesk:                                        # answers as a model in every dialect
        backends:
          - {model: small, prompt: "support:v1", weight: 9}
          - {model: small, prompt: "support:v2", weight: 1}
        guards: {deny_patterns: ["(?i)password"]}
        tools: desk
        parameters: {temperature: 0}
    policy: policy.yaml                                # what a model must have to be pulled or loaded here

Unknown keys are refused with their path and what is near. Paths in the file are relative to its folder.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from dockyard.errors import InvalidRequest, NotFound
from dockyard.settings import Settings
from dockyard.types import Json, LoadOptions, Mode, Sampling

FILE = "dockyard.yaml"
MOST_BYTES = 4 << 20

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")]
Unit = Annotated[float, Meta(ge=0, le=1)]


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model by a name of the stack: where it comes from, and how it is loaded; None leaves that to the engine.

    ``source`` is any reference that ``dockyard pull`` takes, with ``adapter`` the one that its requests use.
    ``preload`` loads it at the start.
    """

    source: Annotated[str, Meta(min_length=1)]
    adapter: str = ""
    engine: str | None = None
    mode: Mode = "generate"
    replicas: tuple[str, ...] = ()
    context: Annotated[int, Meta(ge=1)] | None = None
    parallel: Annotated[int, Meta(ge=1)] | None = None
    threads: Annotated[int, Meta(ge=1)] | None = None
    keep_alive: float | None = None
    cpus: Annotated[float, Meta(gt=0)] | None = None
    memory: Annotated[int, Meta(gt=0)] | None = None
    flags: dict[str, Json] = {}
    preload: bool = False

    def options(self) -> LoadOptions | None:
        """What the fleet is told; None where nothing is said."""
        said = LoadOptions(
            engine=self.engine,
            mode=self.mode,
            replicas=self.replicas,
            context=self.context,
            parallel=self.parallel,
            threads=self.threads,
            keep_alive=self.keep_alive,
            cpus=self.cpus,
            memory=self.memory,
            flags=self.flags,
        )
        return None if said == LoadOptions() else said


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sampling for requests that say nothing else."""

    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Unit | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    min_p: Unit | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None

    def under(self, asked: Sampling) -> Sampling:
        """``asked``, with these values where it says nothing."""
        changes = {}
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value not in (None, ()) and getattr(asked, name) in (None, ()):
                changes[name] = value
        return msgspec.structs.replace(asked, **changes) if changes else asked


class Backend(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of those that a route's requests go to; a share of ``weight`` among all weights."""

    model: Annotated[str, Meta(min_length=1)]
    prompt: str = ""
    weight: Annotated[float, Meta(ge=0)] = 1.0
    parameters: Parameters = Parameters()


class PromptUse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A prompt of the library that a chat is put into: its ``name`` (``name[:version]``; empty: the route's own) and
    what its variables stand for. ``version`` goes over the one in the name. The rest is known once it was used:
    ``digest``, how the answer holds its reasoning (``shape``), and how many ``samples`` are drawn."""

    name: str = ""
    version: str = ""
    variables: dict[str, Json] = {}
    digest: str = ""
    shape: Literal["plain", "steps", "wrapped"] = "plain"
    samples: int = 1


class Route(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A name that answers as a model: what it is made of.

    Either ``model`` (and ``prompt``) or ``backends``. ``knowledge`` names what chats are grounded in, ``judge`` the
    model that is asked whether it answers them, ``tools`` the profile whose tools the server runs for them. ``guards``
    are settings of guards (``deny_patterns`` …) that hold for this route, beyond the server's own.
    """

    description: str = ""
    model: str = ""
    prompt: str = ""
    backends: tuple[Backend, ...] = ()
    knowledge: tuple[str, ...] | str = ()
    judge: str = ""
    tools: str = ""
    guards: dict[str, Json] = {}
    parameters: Parameters = Parameters()

    def __post_init__(self) -> None:
        if bool(self.model) == bool(self.backends):
            raise ValueError("a route has either `model` or `backends`")
        if self.prompt and self.backends:
            raise ValueError("where there are `backends`, each names its own `prompt`")
        if self.backends and not sum(one.weight for one in self.backends):
            raise ValueError("all weights are 0, so nobody answers")
        if self.judge and not self.knowledge:
            raise ValueError("a `judge` is for a route with `knowledge`")

    def choices(self) -> tuple[Backend, ...]:
        return self.backends or (Backend(model=self.model, prompt=self.prompt),)

    def indexes(self) -> tuple[str, ...]:
        """The names of the knowledge that chats are grounded in."""
        return ((self.knowledge,) if self.knowledge else ()) if isinstance(self.knowledge, str) else self.knowledge

    def choose(self, key: str) -> Backend:
        """The backend of a request; the same for the same ``key``, in the shares of the weights over many."""
        choices = self.choices()
        if len(choices) == 1:
            return choices[0]
        point = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") / 2**64
        point *= sum(one.weight for one in choices)
        for one in choices:
            point -= one.weight
            if point < 0:
                return one
        return next(one for one in reversed(choices) if one.weight)


class Knowledge(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Documents that routes answer from: the ``index`` by name, what it is made of, and with which models.

    With ``sources`` (paths are beside the file) the index is made, or brought up to date, before the stack is served;
    ``options`` are the index's own, checked by whoever makes it. Without, it is one that is there.
    """

    index: str = ""
    sources: tuple[str, ...] = ()
    embedding: str = ""
    rerank: str = ""
    options: dict[str, Json] = {}


class Stack(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file says. ``models`` may be just a reference; ``prompts`` are files or references by name; ``policy``
    is a file, and does what the setting of that name does."""

    name: str = ""
    description: str = ""
    models: dict[Name, Model | str] = {}
    prompts: dict[Name, str] = {}
    knowledge: dict[Name, Knowledge] = {}
    routes: dict[Name, Route] = {}
    policy: str = ""
    folder: str = ""

    def model(self, name: str) -> Model | None:
        """A model of ``models``; None: the name is no name of this stack."""
        found = self.models.get(name)
        return Model(source=found) if isinstance(found, str) else found

    def aliases(self) -> dict[str, str]:
        """What each name stands for in the words of the setting ``aliases``; a route for its weightiest backend."""
        found = {}
        for name in self.models:
            model = self.model(name)
            assert model is not None
            found[name] = f"{model.source}+{model.adapter}" if model.adapter else model.source
        for name, route in self.routes.items():
            found[name] = max(route.choices(), key=lambda one: one.weight).model
        return found

    def options(self) -> dict[str, LoadOptions]:
        """How the model behind a name is to be loaded, for each name of which that is said."""
        found: dict[str, LoadOptions] = {}
        for name, target in [*((one, one) for one in self.models), *self.aliases().items()]:
            model = self.model(target)
            if model is not None and (said := model.options()) is not None:
                found.setdefault(name, said)
        return found

    def sources(self) -> list[str]:
        """The references of all models that the stack names, each once."""
        wanted = [one.model for route in self.routes.values() for one in route.choices()]
        wanted += [route.judge for route in self.routes.values() if route.judge]
        names = [*self.models, *wanted]
        return list(dict.fromkeys(model.source if (model := self.model(one)) else one for one in names))

    def prompt_path(self, name: str) -> Path | None:
        """The file of a prompt that is one; None: the prompt is an artifact."""
        place = self.prompts.get(name, "")
        return Path(self.folder) / place if place.endswith((".yaml", ".yml", ".json")) else None

    def policy_path(self) -> Path | None:
        """The policy's file; None: there is none."""
        return Path(self.folder) / Path(self.policy).expanduser() if self.policy else None


EMPTY = Stack()
_SECTIONS: dict[str, Any] = {"models": Model, "knowledge": Knowledge, "routes": Route}


def of(settings: Settings) -> Stack:
    """The stack that the settings name; an empty one where they name none. Raises as ``load`` does."""
    return load(Path(settings.stack)) if settings.stack else EMPTY


def governed(settings: Settings) -> Settings:
    """The settings with the policy of the stack that they name.

    Raises as ``load`` does, and InvalidRequest where both name one: neither may take the other's place in silence.
    """
    path = of(settings).policy_path()
    if path is None or settings.policy == str(path):
        return settings
    if settings.policy:
        raise InvalidRequest(
            f"the stack {settings.stack} names the policy {path}, the setting `policy` {settings.policy}",
            param="policy",
            hint="name one of them",
        )
    return msgspec.structs.replace(settings, policy=str(path))


def load(path: Path) -> Stack:
    """Read a stack file, or the ``dockyard.yaml`` of a folder.

    Raises NotFound where there is none, and InvalidRequest whose ``param`` is the path of what is wrong.
    """
    path = path / FILE if path.is_dir() else path
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotFound(f"{path}: {error.strerror or error}", param=str(path), hint="name a stack file") from None
    if len(data) > MOST_BYTES:
        raise InvalidRequest(f"{path} has {len(data)} bytes; {MOST_BYTES} is the most", param=str(path))
    found = read(data, str(path))
    return msgspec.structs.replace(found, folder=str(path.parent.absolute()))


def read(data: bytes, origin: str = FILE) -> Stack:
    """The stack that YAML text says; ``origin`` is its name in errors. Raises InvalidRequest."""
    try:
        told = msgspec.yaml.decode(data or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"{origin}: {error}", hint="a stack file is YAML") from None
    told = {} if told is None else told
    if not isinstance(told, dict):
        raise InvalidRequest(f"{origin}: expected sections such as `routes:`, not {type(told).__name__}")
    _known(told, Stack, "", origin, hidden=("folder",))
    for section, kind in _SECTIONS.items():
        entries = told.get(section) or {}
        told[section] = {} if told.get(section) is None else told[section]
        if isinstance(entries, dict):
            for name, entry in entries.items():
                if isinstance(entry, dict):
                    _known(entry, kind, f"{section}.{name}", origin)
                    _convert(entry, kind, f"{section}.{name}", origin)
    told["prompts"] = told.get("prompts") or {}
    stack: Stack = _convert(told, Stack, "", origin)
    _refer(stack, origin)
    return stack


def _convert(value: Json, kind: Any, path: str, origin: str) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        text, _, inside = str(error).partition(" - at `$")
        at = (path + inside.rstrip("`")).lstrip(".")
        text = f"{text[:1].lower()}{text[1:]}"
        raise InvalidRequest(f"{origin}: {at}: {text}" if at else f"{origin}: {text}", param=at or None) from None


def _known(entry: Mapping[str, Json], kind: Any, path: str, origin: str, hidden: Sequence[str] = ()) -> None:
    """Refuse keys that the struct does not have, here and in the structs and lists of structs below."""
    fields = {field.name: field.type for field in msgspec.structs.fields(kind) if field.name not in hidden}
    for name, value in entry.items():
        at = f"{path}.{name}".lstrip(".")
        if name not in fields:
            near = difflib.get_close_matches(str(name), fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there is: {', '.join(fields)}"
            raise InvalidRequest(f"{origin}: {at}: there is no such key", param=at, hint=hint)
        if fields[name] is Parameters and isinstance(value, dict):
            _known(value, Parameters, at, origin)
        elif name == "backends" and isinstance(value, list):
            for number, one in enumerate(value):
                if isinstance(one, dict):
                    _known(one, Backend, f"{at}[{number}]", origin)


def _refer(stack: Stack, origin: str) -> None:
    """What names each other must be there, and no name may mean two things or itself."""
    for name in stack.routes:
        if name in stack.models:
            raise InvalidRequest(
                f"{origin}: routes.{name}: a model is called so too", param=f"routes.{name}", hint="rename one"
            )
    for name, at, wanted in _mentioned(stack):
        if wanted in stack.routes:
            raise InvalidRequest(
                f"{origin}: {at}: {wanted!r} is a route; a route answers from models"
                if wanted != name
                else f"{origin}: {at}: the route names itself",
                param=at,
                hint="name what its backends name",
            )
    for name, route in stack.routes.items():
        for index in route.indexes():
            if index not in stack.knowledge:
                near = difflib.get_close_matches(index, stack.knowledge, n=1)
                raise InvalidRequest(
                    f"{origin}: routes.{name}.knowledge: there is no {index!r} under `knowledge`",
                    param=f"routes.{name}.knowledge",
                    hint=f"did you mean {near[0]!r}?" if near else "add it there",
                )


def _mentioned(stack: Stack) -> Iterator[tuple[str, str, str]]:
    """Each route's name, the path of a model's name in it, and that name."""
    for name, route in stack.routes.items():
        if route.model:
            yield name, f"routes.{name}.model", route.model
        if route.judge:
            yield name, f"routes.{name}.judge", route.judge
        for number, one in enumerate(route.backends):
            yield name, f"routes.{name}.backends[{number}].model", one.model
