"""Verbs about Dockyard itself: its version, its settings, its plug-ins."""

from __future__ import annotations

from typing import Annotated

import typer

from dockyard.cli._options import AsJson

PLUGIN_KINDS = ("engines", "guards", "artifact.sources", "artifact.formats", "ops")


def version(as_json: AsJson = False) -> None:
    """Show the version of Dockyard, Python and the parts that matter most when something is reported."""
    import platform
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of

    from dockyard import __version__
    from dockyard.cli._output import show_json

    found = {"dockyard": __version__, "python": platform.python_version(), "system": platform.platform()}
    for part in ("xllamacpp", "litestar", "granian"):
        try:
            found[part] = version_of(part)
        except PackageNotFoundError:
            found[part] = "not installed"
    if as_json:
        return show_json(found)
    for name, value in found.items():
        print(f"{name} {value}")
    return None


def config(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Show only this setting's value.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show every setting, its value and where it came from: default, the file, the environment or a flag."""
    import os

    from dockyard import settings
    from dockyard.cli._output import show_json, show_table
    from dockyard.errors import NotFound

    environ = {n: v for n, v in os.environ.items() if n != "DOCKYARD_HOST" or "://" not in v}
    loaded = settings.load(environ=environ)
    values = {field: getattr(loaded.settings, field) for field, _, _ in settings.names()}
    values["home"] = str(loaded.settings.home_path)
    if values["api_keys"]:
        values["api_keys"] = tuple("…:manage" if key.endswith(":manage") else "…" for key in values["api_keys"])
    if name is not None:
        if name not in values:
            raise NotFound(f"there is no setting {name!r}", hint="`dockyard config` lists all settings")
        return show_json(values[name]) if as_json else print(_plain(values[name]))
    if as_json:
        return show_json(
            [
                {
                    "name": field,
                    "value": values[field],
                    "origin": loaded.origins[field],
                    "default": default,
                    "help": text,
                }
                for field, default, text in settings.names()
            ]
        )
    print(f"file: {settings.config_path()}\n")
    rows = [(field, _plain(values[field]), loaded.origins[field]) for field, _, _ in settings.names()]
    return show_table(("setting", "value", "from"), rows)


def plugins(as_json: AsJson = False) -> int:
    """List what is plugged in, and what is broken and why; the exit code is 1 if anything is broken."""
    from dockyard import plugins as registry
    from dockyard.cli._output import show_json, show_table

    found = [
        {"kind": kind, "name": plugin.name, "origin": plugin.origin, "error": plugin.error}
        for kind in PLUGIN_KINDS
        for plugin in registry.find(kind).values()
    ]
    if as_json:
        show_json(found)
    else:
        rows = [(item["kind"], item["name"], item["origin"], item["error"] or "ok") for item in found]
        show_table(("kind", "name", "from", "state"), rows)
    return int(any(item["error"] for item in found))


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value) or "-"
    return str(value) if value != "" else "-"
