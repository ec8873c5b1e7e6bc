"""Operations on artifacts: ``run(job) -> entry``, each named by what it depends on, so that nothing is made twice.

    inputs (artifacts, files)  ─┐
    params                      ├─ key ─→ an artifact with this key is in the store: reuse it
    operation, version         ─┘         else run, and the new artifact carries the key and its lineage

Each file here is one operation and binds ``PLUGIN``. Its ``Params`` struct is the whole interface: the fields are the
command line's flags, their ``Meta`` descriptions the documentation, their values part of the key; unknown ones are
errors. Bump ``version`` when the same inputs would give another result. An operation that says what it ``takes`` is a
verb of the command line (``cli/refit.py``); one that has ``predict`` tells its cost beforehand (``ops.planning``).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import msgspec
from filelock import FileLock

from dockyard.artifact.digest import of_bytes
from dockyard.artifact.packing import entry as entry_of
from dockyard.artifact.store import Entry, Store
from dockyard.artifact.writers import Lineage, Parent
from dockyard.errors import ArtifactError, Cancelled, InvalidRequest, NotFound
from dockyard.types import Json, OnProgress, Progress, Reference

KEY = "io.dockyard.key"
"""Annotation of a manifest that an operation made: the key of what it depends on."""


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of each operation's parameters."""


ABANDONED = 7 * 86400
"""Seconds after which what an interrupted job left is deleted."""

P_contra = TypeVar("P_contra", bound=Params, contravariant=True)


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """What an operation starts from: artifacts in roles, and files as blobs of the store (path inside → digest)."""

    artifacts: tuple[Parent, ...] = ()
    files: dict[str, str] = {}


class Takes(msgspec.Struct, frozen=True, kw_only=True):
    """One input of an operation: an artifact or a file. The first of an operation is an argument, others are flags.

    "data" is a data set, or a file that becomes one. ``many`` lets it be given several times; ``required`` makes its
    absence an error.
    """

    role: str
    help: str
    kind: Literal["artifact", "file", "data"] = "artifact"
    required: bool = False
    many: bool = False


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One run of an operation. ``annotations`` and ``lineage`` belong on the artifact that it makes.

    ``work`` is a folder for files on the way, on the store's disk: it is this job's alone while it runs, outlives an
    interruption or a kill, so that ``run`` may go on from what is in it, and is deleted when the artifact is made.
    """

    store: Store
    inputs: Inputs
    annotations: dict[str, str]
    lineage: Lineage
    work: Path
    reference: Reference | None = None
    on_progress: OnProgress | None = None

    def note(self, sentence: str) -> None:
        """Tell the user something. Raises Cancelled where the work is to stop, as ``step`` does."""
        if self.on_progress is not None:
            self.on_progress(Progress(action="note", message=sentence))

    def step(self, item: str, current: int, total: int, value: float | None = None) -> None:
        """Say that ``item`` is at step ``current`` of ``total``; call it often, since this is where work is stopped.

        ``value`` is its loss, or another figure that a terminal draws as it goes."""
        if self.on_progress is not None:
            self.on_progress(Progress(action="step", item=item, current=current, total=total, value=value))

    def artifact(self, role: str) -> str:
        """The digest of the input in this role. Raises InvalidRequest where it was not given."""
        found = self.artifacts(role)
        if not found:
            raise InvalidRequest(f"{self.lineage.operation} needs an artifact as {role}", param=role)
        return found[0]

    def artifacts(self, role: str) -> list[str]:
        """The digests of all inputs in this role, in their order."""
        return [parent.digest for parent in self.inputs.artifacts if parent.role == role]

    def file(self, role: str) -> Path | None:
        """A file that was given in this role (``Inputs.files`` has it under the role's name or below it), or None."""
        found = [path for path in sorted(self.inputs.files) if path.split("/")[0] == role]
        return self.store.blob_path(self.inputs.files[found[0]]) if found else None


class Operation(Protocol[P_contra]):
    """One verb. ``run`` puts its result into the job's store, with the job's annotations and lineage."""

    name: str
    version: str
    params: type[Any]

    def run(self, job: Job, params: P_contra) -> Entry:
        """Make the artifact. Raises DockyardError; the store is then as before, but for blobs that gc takes."""
        ...


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. ``reused`` says that an artifact with the same key was in the store already."""

    entry: Entry
    key: str
    reused: bool = False


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """A field of a ``Params`` struct as documentation and command lines need it."""

    name: str
    kind: str
    default: Json
    help: str


def execute(
    store: Store,
    operation: Operation[Any],
    inputs: Inputs,
    params: Params,
    *,
    reference: Reference | None = None,
    on_progress: OnProgress | None = None,
) -> Done:
    """Run the operation, or find what it made before from the same inputs; name the result ``reference`` either way."""
    key = key_of(operation, inputs, params)
    if (found := _made(store, key, reference)) is not None:
        return found
    with _workspace(store, key) as work, store.lease():
        if (found := _made(store, key, reference)) is not None:
            return found  # by another process, while this one waited for it
        job = Job(
            store=store,
            inputs=inputs,
            annotations={KEY: key},
            lineage=Lineage(
                parents=inputs.artifacts, operation=operation.name, version=operation.version, params=given(params)
            ),
            work=work,
            reference=reference,
            on_progress=on_progress,
        )
        return Done(entry=operation.run(job, params), key=key)


def _made(store: Store, key: str, reference: Reference | None) -> Done | None:
    digest = find(store, key)
    if digest is None:
        return None
    if reference is not None:
        store.tag(reference, digest)
    return Done(entry=entry_of(store, reference, digest), key=key, reused=True)


@contextmanager
def _workspace(store: Store, key: str) -> Iterator[Path]:
    """The folder of the job with this key, for this process alone."""
    root = store.root.parent / "work"
    root.mkdir(parents=True, exist_ok=True)
    for left in root.iterdir():
        if left.is_dir() and time.time() - left.stat().st_mtime > ABANDONED:
            shutil.rmtree(left, ignore_errors=True)
    folder = root / key.partition(":")[2][:24]
    with FileLock(str(folder.with_suffix(".lock"))).acquire(poll_interval=0.2):
        folder.mkdir(exist_ok=True)
        try:
            yield folder
        except (Cancelled, KeyboardInterrupt):
            raise  # whoever asks again goes on from here
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def key_of(operation: Operation[Any], inputs: Inputs, params: Params) -> str:
    """The digest of all that the result depends on; names and the order of inputs in equal roles don't matter."""
    parts = {
        "operation": operation.name,
        "version": operation.version,
        "params": given(params),
        "artifacts": sorted([parent.role, parent.digest] for parent in inputs.artifacts),
        "files": sorted(map(list, inputs.files.items())),
    }
    return of_bytes(msgspec.json.encode(parts, order="deterministic"))


def find(store: Store, key: str) -> str | None:
    """The digest of the artifact that carries this key, if the store has one; a damaged artifact is none."""
    for entry in store.entries(everything=True):
        try:
            found = store.parsed(entry.descriptor.digest)
        except (ArtifactError, NotFound):
            continue
        if found.annotations.get(KEY) == key:
            return entry.descriptor.digest
    return None


def given(params: Params) -> dict[str, Json]:
    """The parameters that differ from their defaults, as JSON: a new field with a default changes no key."""
    empty = {option.name: option.default for option in options(type(params))}
    return {name: value for name, value in msgspec.to_builtins(params).items() if value != empty[name]}


def refuse_unused(params: Params, names: Iterable[str], why: str) -> None:
    """Raise InvalidRequest for a parameter that was given and would be ignored."""
    for name in names:
        if name in given(params):
            raise InvalidRequest(f"{name} would do nothing: this {why}", param=name, hint=f"leave {name} out")


def options(kind: type[Params]) -> list[Option]:
    """Every field of a ``Params`` struct, in its order."""
    found = []
    for field in msgspec.structs.fields(kind):
        info = msgspec.inspect.type_info(field.type)
        extra = info.extra_json_schema or {} if isinstance(info, msgspec.inspect.Metadata) else {}
        default = None if field.default is msgspec.NODEFAULT else msgspec.to_builtins(field.default)
        found.append(
            Option(name=field.name, kind=_kind(field.type), default=default, help=extra.get("description", ""))
        )
    return found


def read_params(kind: type[Params], values: Mapping[str, Json]) -> Any:
    """A ``Params`` struct from a mapping of JSON values; those that are None were not given.

    Raises InvalidRequest that names the field for an unknown one and for a value of the wrong type.
    """
    try:
        return msgspec.convert({name: value for name, value in values.items() if value is not None}, kind)
    except msgspec.ValidationError as error:
        told, _, where = str(error).partition(" - at `$.")
        name = where.strip("`")
        words = next((one.kind for one in options(kind) if one.name == name), "")
        hint = f"it takes: {words}" if words else None
        raise InvalidRequest(f"{name}: {told}" if name else told, param=name or None, hint=hint) from error


_WORDS = {"int": "integer", "float": "number", "str": "text", "bool": "true | false", "vartuple": "list"}


def _kind(annotation: Any) -> str:
    """A field's type in words: "integer", or the words that it may be."""
    info = msgspec.inspect.type_info(annotation)
    if isinstance(info, msgspec.inspect.Metadata):
        info = info.type
    kinds = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
    words = []
    for each in kinds:
        if isinstance(each, msgspec.inspect.LiteralType):
            words += [str(value) for value in each.values]
        elif not isinstance(each, msgspec.inspect.NoneType):
            plain = type(each).__name__.removesuffix("Type").lower()
            words.append(_WORDS.get(plain, plain))
    return " | ".join(words)
