"""The ``dockyard`` command, also as ``python -m dockyard``."""

from __future__ import annotations

import sys


def main() -> None:
    """Where a model will be loaded at once, its worker starts first: it imports what it needs while we do."""
    words = sys.argv[1:]
    if words[:1] == ["serve"] and any(word.partition("=")[0] == "--model" for word in words):
        from dockyard.engines import launch

        launch.prepare("llamacpp")
    from dockyard import cli

    cli.main()


if __name__ == "__main__":
    main()
