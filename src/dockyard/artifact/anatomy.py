"""A model as the parts of a transformer that it is: shapes, weights and bytes of each, and its KV cache.

All of it follows from the facts of the headers; nothing is loaded. ``describe`` gives the tree, ``lines`` draws it.
"""

from __future__ import annotations

import math

import msgspec

from dockyard.types import ModelFacts

_UNITS = ("B", "kB", "MB", "GB", "TB")
_COUNTS = ("", "K", "M", "B", "T")
_KV_EXAMPLE = 2048


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One part of the network: ``times`` it repeats, what it ``does``, the shapes of its matrices.

    ``weights`` and ``bytes`` are of all repetitions together; None where no header tells.
    """

    name: str
    does: str = ""
    times: int = 1
    shapes: dict[str, tuple[int, ...]] = {}
    weights: int | None = None
    bytes: int | None = None
    parts: tuple[Part, ...] = ()


class Anatomy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A whole model. ``kv_bytes_per_token`` is at two bytes an element; ``tied`` says that the output head is the
    token embedding, used a second time.
    """

    title: str
    parts: tuple[Part, ...]
    weights: int | None = None
    bytes: int = 0
    tied: bool = False
    kv_bytes_per_token: int = 0


def kv_bytes(facts: ModelFacts, tokens: int, bytes_per_element: float = 2.0) -> int:
    """Bytes of the KV cache after ``tokens`` tokens: keys and values, of every KV head, in every layer.

    2 (K and V) x layers x KV heads x head size x tokens x bytes per element, or the sum over layers where they differ.
    0 where the headers don't tell, or the model keeps no such cache. Windows of sliding attention are not subtracted.
    """
    elements = facts.kv_elements
    if elements is None:
        elements = 2 * (facts.layers or 0) * (facts.kv_heads or 0) * (facts.head_size or 0)
    return math.ceil(elements * tokens * bytes_per_element)


def describe(facts: ModelFacts) -> Anatomy:
    """The parts in the order in which a token meets them."""
    if facts.adapter_rank is not None or facts.format == "peft":
        return Anatomy(
            title=_title(facts), parts=(_adapter(facts),), weights=facts.parameters, bytes=facts.weight_bytes
        )
    tied = bool(facts.weights.get("embedding")) and not facts.weights.get("output") and bool(facts.vocabulary)
    parts = [_embedding(facts)]
    if facts.positional:
        parts.append(_positions(facts))
    if facts.layers:
        parts.append(_blocks(facts))
    if facts.weights.get("output") or (tied and "embed" not in facts.capabilities):
        parts.append(_output(facts, tied))
    if facts.weights.get("other"):
        parts.append(_sized(facts, "other", Part(name="other", does="tensors that fit none of the parts above")))
    return Anatomy(
        title=_title(facts),
        parts=tuple(part for part in parts if part is not None),
        weights=facts.parameters,
        bytes=facts.weight_bytes,
        tied=tied,
        kv_bytes_per_token=kv_bytes(facts, 1),
    )


def lines(anatomy: Anatomy) -> list[str]:
    """The tree as plain text, one part a line, sizes in columns."""
    rows: list[tuple[str, str, str]] = []

    def add(part: Part, indent: str, branch: str) -> None:
        name = f"{part.times} x {part.name}" if part.times > 1 else part.name
        numbers = f"{count(part.weights)} weights, {size(part.bytes)}" if part.weights and part.bytes else ""
        rows.append((indent + branch + name, numbers, part.does))
        deeper = indent + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
        for name, shape in part.shapes.items():
            rows.append((f"{deeper}{'│' if part.parts else ' '}    {name}", " x ".join(map(str, shape)), ""))
        for index, inner in enumerate(part.parts):
            add(inner, deeper, "└─ " if index == len(part.parts) - 1 else "├─ ")

    for index, part in enumerate(anatomy.parts):
        add(part, "", "└─ " if index == len(anatomy.parts) - 1 else "├─ ")
    first = max((len(row[0]) for row in rows), default=0)
    second = max((len(row[1]) for row in rows), default=0)
    drawn = [f"{name:{first}}  {numbers:{second}}  {does}".rstrip() for name, numbers, does in rows]
    if anatomy.kv_bytes_per_token:
        each = anatomy.kv_bytes_per_token
        drawn.append(f"KV cache: {size(each)} a token, {size(each * _KV_EXAMPLE)} for {_KV_EXAMPLE} tokens")
    return [anatomy.title, *drawn]


def count(number: int | None) -> str:
    """A count of weights as people say it: ``134.5M``."""
    return _scaled(number or 0, _COUNTS)


def size(number: int | None) -> str:
    """Bytes in decimal units: ``96.6 MB``."""
    return _scaled(number or 0, _UNITS, " ")


def _scaled(number: float, units: tuple[str, ...], gap: str = "") -> str:
    step = 0
    while number >= 1000 and step < len(units) - 1:
        number, step = number / 1000, step + 1
    text = f"{number:.1f}" if step else f"{number:.0f}"
    return f"{text}{gap}{units[step]}"


def _title(facts: ModelFacts) -> str:
    known = [
        facts.architecture or "unknown architecture",
        f"{count(facts.parameters)} weights" if facts.parameters else None,
        facts.quantization,
        size(facts.weight_bytes) if facts.weight_bytes else None,
        f"context {facts.context}" if facts.context else None,
        facts.licence,
    ]
    return " · ".join(part for part in known if part)


def _sized(facts: ModelFacts, key: str, part: Part) -> Part:
    return msgspec.structs.replace(part, weights=facts.weights.get(key), bytes=facts.tensors.get(key))


def _shape(*sides: int | None) -> tuple[int, ...] | None:
    return tuple(side for side in sides if side is not None) if all(sides) else None


def _shapes(**named: tuple[int, ...] | None) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in named.items() if shape is not None}


def _embedding(facts: ModelFacts) -> Part:
    does = f"each of {facts.vocabulary} tokens becomes a vector" if facts.vocabulary else "inputs become vectors"
    if facts.embedding:
        does += f" of {facts.embedding}"
    shapes = _shapes(table=_shape(facts.vocabulary, facts.embedding))
    return _sized(facts, "embedding", Part(name="token embedding", does=does, shapes=shapes))


def _positions(facts: ModelFacts) -> Part:
    how = {
        "rope": "rotary: queries and keys are turned by an angle that grows with the position",
        "m-rope": "rotary in sections: time, height and width turn separate parts of queries and keys",
        "alibi": "attention is lowered in proportion to the distance of two tokens",
        "learned": "a learned vector for each position is added",
        "relative": "a learned bias for each range of distances is added to attention",
        "none": "none: order comes from the recurrence",
    }.get(facts.positional or "", facts.positional or "")
    if facts.rope_base:
        how += f" (base {facts.rope_base:g})"
    return Part(name="positional encoding", does=how)


def _blocks(facts: ModelFacts) -> Part:
    parts = (_attention(facts), _feed_forward(facts), _norms(facts))
    inside = ("attention", "feed-forward", "norm")
    return Part(
        name="transformer block",
        does="adds what attention and feed-forward found to each token's vector",
        times=facts.layers or 1,
        weights=sum(facts.weights.get(key, 0) for key in inside) or None,
        bytes=sum(facts.tensors.get(key, 0) for key in inside) or None,
        parts=tuple(part for part in parts if part is not None),
    )


def _attention(facts: ModelFacts) -> Part:
    width, heads, kv_heads, head = facts.embedding, facts.heads, facts.kv_heads, facts.head_size
    queries = heads * head if heads and head else None
    keys = kv_heads * head if kv_heads and head else None
    does = ""
    if heads and head:
        does = f"{heads} query heads of {head}"
        if kv_heads and kv_heads != heads:
            does += f" share {kv_heads} key and value head{'s' * (kv_heads > 1)}"
    shapes = _shapes(
        query=_shape(width, queries), key=_shape(width, keys), value=_shape(width, keys), output=_shape(queries, width)
    )
    name = f"self-attention ({facts.attention})" if facts.attention else "self-attention"
    return _sized(facts, "attention", Part(name=name, does=does, shapes=shapes))


def _feed_forward(facts: ModelFacts) -> Part | None:
    width, inner = facts.embedding, facts.feed_forward
    if not inner or not width:
        return _sized(facts, "feed-forward", Part(name="feed-forward")) if "feed-forward" in facts.weights else None
    does = f"widens {width} to {inner} and back, for each token alone"
    if facts.experts:
        does += f"; {facts.experts} experts, of which a router picks some"
    matrices = round(facts.weights.get("feed-forward", 0) / (facts.layers or 1) / (facts.experts or 1) / width / inner)
    gate = _shape(width, inner) if matrices == 3 else None
    shapes = _shapes(gate=gate, up=_shape(width, inner), down=_shape(inner, width))
    return _sized(facts, "feed-forward", Part(name="feed-forward", does=does, shapes=shapes))


def _norms(facts: ModelFacts) -> Part | None:
    if "norm" not in facts.weights:
        return None
    return _sized(
        facts, "norm", Part(name="normalisation", does="keeps the scale of the vectors; before or after each part")
    )


def _output(facts: ModelFacts, tied: bool) -> Part:
    if tied:
        does = "scores every token: the token embedding, used a second time"
        return Part(name="output head", does=does, shapes=_shapes(tied=_shape(facts.embedding, facts.vocabulary)))
    shapes = _shapes(head=_shape(facts.embedding, facts.vocabulary)) if "embed" not in facts.capabilities else {}
    return _sized(facts, "output", Part(name="output head", does="scores every token of the vocabulary", shapes=shapes))


def _adapter(facts: ModelFacts) -> Part:
    does = f"adds a product of two thin matrices to {', '.join(facts.adapter_targets) or 'some matrices'}"
    if facts.base:
        does += f" of {facts.base}"
    name = f"{facts.architecture or 'adapter'}, rank {facts.adapter_rank}" if facts.adapter_rank else "adapter"
    if facts.adapter_alpha is not None:
        name += f", alpha {facts.adapter_alpha:g}"
    return Part(name=name, does=does, weights=facts.parameters, bytes=facts.weight_bytes)
