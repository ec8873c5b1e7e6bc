"""A prompt as the text of a file, for those that a program made."""

from __future__ import annotations

import msgspec

from dockyard.prompt.model import Prompt


def as_yaml(prompt: Prompt) -> str:
    """YAML that ``model.read`` reads as the same prompt; only what differs from the defaults, in the table's order."""
    import yaml

    told = msgspec.to_builtins(prompt)
    parameters = {name: value for name, value in (told.get("parameters") or {}).items() if value not in (None, [], ())}
    if parameters:
        told["parameters"] = parameters
    else:
        told.pop("parameters", None)
    return yaml.safe_dump(_plain(told), sort_keys=False, allow_unicode=True, width=100)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
