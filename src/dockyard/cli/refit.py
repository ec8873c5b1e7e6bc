"""Verbs that change models: ``convert``, ``quantize``, ``prune``, ``merge`` and whatever other operation is listed in
the table of verbs with this module. Arguments and flags are made from what the operation takes and from its ``Params``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dockyard.cli._complete import model_names

if TYPE_CHECKING:
    from dockyard.artifact.store import Store
    from dockyard.ops import Done, Inputs, Option, Takes
    from dockyard.ops.planning import Plan
    from dockyard.settings import Settings

PLAIN: dict[str, Any] = {"integer": int, "number": float, "true | false": bool}


def __getattr__(name: str) -> Any:
    """The command of an operation, made when the verb is used."""
    from dockyard import plugins

    found = plugins.find("ops").get(name)
    if found is None:
        raise AttributeError(name)
    return verb(found.load())


def verb(operation: Any) -> Callable[..., Any]:
    """A function that Typer can make a command of."""
    from dockyard.ops import options

    first, *others = operation.takes
    flags = {option.name: _flag(option) for option in options(operation.params)}
    shown = [
        _parameter(first.role, *_argument(first)),
        _parameter(
            "name",
            Annotated[str | None, typer.Argument(metavar="NAME", help="The name to give to what is made.")],
            None,
        ),
        *(_parameter(each.role, *_input(each)) for each in others),
        *(_parameter(name, annotation, default) for name, (annotation, default) in flags.items()),
        _parameter("dry_run", Annotated[bool, typer.Option("--dry-run", help="Say what it would cost.")], False),
        _parameter("as_json", Annotated[bool, typer.Option("--json", help="Print JSON.")], False),
    ]

    def command(**values: Any) -> int:
        given = {name: values[name] for name in flags}
        places = {each.role: values[each.role] for each in operation.takes}
        return _run(operation, places, given, values["name"], dry_run=values["dry_run"], as_json=values["as_json"])

    command.__name__ = operation.name
    command.__doc__ = inspect.getdoc(operation)
    command.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]  # as inspect's documentation has it
    command.__annotations__ = {each.name: each.annotation for each in shown}
    return command


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _argument(takes: Takes) -> tuple[Any, Any]:
    argument = typer.Argument(metavar=takes.role.upper(), help=takes.help, autocompletion=model_names)
    return Annotated[str, argument], inspect.Parameter.empty


def _input(takes: Takes) -> tuple[Any, Any]:
    metavar = {"file": "FILE", "data": "DATA"}.get(takes.kind, "MODEL")
    option = typer.Option(f"--{takes.role.replace('_', '-')}", metavar=metavar, help=takes.help)
    if takes.many:
        return Annotated[list[str] | None, option], None
    return (
        (Annotated[str, option], inspect.Parameter.empty) if takes.required else (Annotated[str | None, option], None)
    )


def _flag(option: Option) -> tuple[Any, Any]:
    name = f"--{option.name.replace('_', '-')}"
    numbers = all(word.isdigit() for word in option.kind.split(" | "))
    kind = int if numbers else PLAIN.get(option.kind, str)
    default = f" [default: {option.default}]" if option.default not in (None, "", False, ()) else ""
    text = f"{option.help}{default}"
    if kind is bool:
        return Annotated[bool | None, typer.Option(f"{name}/--no-{name[2:]}", help=text)], None
    words = " " if option.kind in ("text", "list", *PLAIN) else option.kind.replace(" | ", "|")
    metavar = words.strip() or {"integer": "N", "number": "X", "list": "TEXT,…"}.get(option.kind, "TEXT")
    return Annotated[kind | None, typer.Option(name, metavar=metavar, help=text)], None


def _run(
    operation: Any, places: dict[str, Any], given: dict[str, Any], name: str | None, *, dry_run: bool, as_json: bool
) -> int:
    from dockyard.cli._connect import open_store, read_settings
    from dockyard.cli._progress import progress
    from dockyard.ops import execute, read_params
    from dockyard.ops.planning import check, plan

    settings = read_settings()
    store = open_store(settings)
    params = read_params(operation.params, _values(operation.params, given))
    reference = store.named(name) if name else None
    with store.lease():
        inputs = _inputs(operation, places, store, settings, quiet=as_json)
        if dry_run:
            return _show_plan(plan(store, operation, inputs, params), as_json=as_json)
        check(store, operation, inputs, params)
        with progress(quiet=as_json) as show:
            done = execute(store, operation, inputs, params, reference=reference, on_progress=show)
    _show_done(done, store, as_json=as_json)
    return 0


def _values(kind: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Flags as values for ``read_params``: what is neither text nor a number is JSON, or words with commas between."""
    import msgspec

    from dockyard.ops import options

    found = {}
    for option in options(kind):
        value = given[option.name]
        if isinstance(value, str) and option.kind == "list":
            value = [part.strip() for part in value.split(",") if part.strip()]
        elif isinstance(value, str) and option.kind in ("struct", "dict"):
            value = msgspec.json.decode(value)
        found[option.name] = value
    return found


def _inputs(operation: Any, places: dict[str, Any], store: Store, settings: Settings, *, quiet: bool) -> Inputs:
    from dockyard.artifact.manifest import Parent
    from dockyard.cli._connect import fetch_missing
    from dockyard.errors import NotFound
    from dockyard.ops import Inputs
    from dockyard.ops.data import create
    from dockyard.ops.dataset.records import SUFFIXES

    artifacts, files = [], {}
    for takes in operation.takes:
        told = places[takes.role]
        for number, value in enumerate(told if isinstance(told, list) else [told] if told else []):
            if takes.kind == "file":
                path = Path(value)
                if not path.is_file():
                    raise NotFound(f"{path}: there is no such file", param=takes.role)
                files[f"{takes.role}/{number}{path.suffix}"] = store.add_file(path).digest
            else:
                if takes.kind == "data" and (Path(value).is_file() or value.endswith(SUFFIXES)):
                    digest = create(store, [value]).entry.descriptor.digest
                else:
                    if takes.kind == "data":
                        _refuse_folder(value, store)
                    fetch_missing(value, settings, quiet=quiet)
                    digest = store.resolve(value).digest
                names = store.names(digest)
                artifacts.append(Parent(digest=digest, role=takes.role, reference=str(names[0]) if names else None))
    return Inputs(artifacts=tuple(artifacts), files=files)


def _refuse_folder(value: str, store: Store) -> None:
    """Raise InvalidRequest for a folder of this machine, unless a data set is called so."""
    from dockyard.errors import InvalidReference, InvalidRequest, ModelNotFound

    if not Path(value).is_dir():
        return
    try:
        store.resolve(value)
    except (InvalidReference, ModelNotFound):
        hint = 'give a file of JSONL, CSV or Parquet; a document is a line {"text": "…"} of one'
        raise InvalidRequest(f"{value} is a folder, not a data set", param="data", hint=hint) from None


def _show_plan(found: Plan, *, as_json: bool) -> int:
    from dockyard.cli._output import note, show_json, size

    if as_json:
        show_json(found)
    elif found.made is not None:
        print(f"{found.operation}: the store has it already: {found.made}")
    elif found.cost is None:
        print(f"{found.operation}: no prediction")
    else:
        cost = found.cost
        print(f"memory  {size(cost.memory)} of {size(found.memory_available)} free")
        print(f"disk    {size(cost.disk)} of {size(found.disk_available)} free")
        print(f"time    about {max(cost.minutes, 0.1):.1f} minutes")
        for sentence in cost.notes:
            print(f"note    {sentence}")
    if found.refusal and not as_json:
        note(f"error: it does not fit: {found.refusal}")
    return 6 if found.refusal else 0


def _show_done(done: Done, store: Store, *, as_json: bool) -> None:
    from dockyard.cli._output import show_json, size

    entry = done.entry
    digest = entry.descriptor.digest
    if as_json:
        attached = [
            {"digest": each.digest, "type": each.artifact_type, "annotations": each.annotations}
            for each in store.referrers(digest)
        ]
        name = str(entry.reference) if entry.reference else None
        found = {"reference": name, "digest": digest, "size": entry.size, "reused": done.reused, "attached": attached}
        return show_json(found)
    name = f"{entry.reference} " if entry.reference else ""
    return print(f"{name}{digest} {size(entry.size)}{' (it was here already)' if done.reused else ''}")
