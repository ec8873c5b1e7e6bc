"""``dockyard synthesize``: the verb made from the operation, with this process as the server where there is none."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """The command, made when the verb is used."""
    if name != "synthesize":
        raise AttributeError(name)
    from dockyard.cli.refit import verb
    from dockyard.ops.synthesize import Synthesize

    return verb(Synthesize(_app))


def _app() -> Any:
    from dockyard.api import create_app
    from dockyard.cli._connect import read_settings

    return create_app(read_settings(), trusted=True)
