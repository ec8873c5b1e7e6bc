"""Shell completion of model names; it must be quick and must never fail."""

from __future__ import annotations


def model_names(incomplete: str) -> list[str]:
    """Names in the store that begin so; none at all if the store can't be read."""
    try:
        from dockyard.artifact.reference import familiar
        from dockyard.cli._connect import open_store

        named = {familiar(entry.reference) for entry in open_store().entries() if entry.reference is not None}
    except Exception:  # noqa: BLE001 - a message would garble the line that the user is typing
        return []
    return sorted(name for name in named if name.startswith(incomplete))
