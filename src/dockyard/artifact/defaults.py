"""What an artifact is to be served with: a system prompt, turns that come first, sampling.

Kept as JSON in the annotation ``io.dockyard.defaults`` of a manifest, so that a model with another character shares the
weights of the one it was made from.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from dockyard.artifact import media
from dockyard.errors import ArtifactError
from dockyard.types import Defaults, Message, Request, Sampling


def read(annotations: Mapping[str, str]) -> Defaults | None:
    """The defaults that a manifest's annotations state. Raises ArtifactError where they can't be read."""
    text = annotations.get(media.DEFAULTS)
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=Defaults)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ArtifactError(f"the annotation {media.DEFAULTS} can't be read: {error}") from error


def merged(under: Defaults | None, over: Defaults | None) -> Defaults | None:
    """``under`` with all that ``over`` states."""
    if under is None or over is None:
        return over or under
    return Defaults(
        system=under.system if over.system is None else over.system,
        messages=over.messages or under.messages,
        sampling=_filled(over.sampling, under.sampling),
        extra={**under.extra, **over.extra},
    )


def applied(request: Request, defaults: Defaults | None) -> Request:
    """The request with the defaults of its model for what it leaves open."""
    if defaults is None or request.kind not in ("chat", "complete"):
        return request
    messages = request.messages
    if messages is not None:
        messages = (*defaults.messages, *messages)
        if defaults.system and not any(each.role in ("system", "developer") for each in messages):
            messages = (Message(role="system", content=defaults.system), *messages)
    sampling, extra = _filled(request.sampling, defaults.sampling), {**defaults.extra, **request.extra}
    return msgspec.structs.replace(request, messages=messages, sampling=sampling, extra=extra)


def _filled(over: Sampling, under: Sampling) -> Sampling:
    """``over`` with what only ``under`` states."""
    empty = Sampling()
    gaps = {
        name: value
        for name in Sampling.__struct_fields__
        if getattr(over, name) == getattr(empty, name) != (value := getattr(under, name))
    }
    return msgspec.structs.replace(over, **gaps) if gaps else over
