"""Arrays in and out of an encoder's network: padding, pooling, normalisation. All arrays are numpy's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from dockyard.engines._encoder_batch import Item
from dockyard.engines._encoder_plan import Pooling
from dockyard.errors import InvalidRequest
from dockyard.types import Json

Shape = Literal["tokens", "vector", "score"]
"""What the network gives for a text: a vector for each token, one vector, or one number."""


INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids", "position_ids"})


def feeds(items: Sequence[Item]) -> dict[str, Any]:
    """All ``INPUTS`` that a network may want, texts padded to the longest at their end."""
    import numpy as np

    longest = max(len(item.ids) for item in items)
    found = {name: np.zeros((len(items), longest), np.int64) for name in INPUTS - {"position_ids"}}
    for row, item in enumerate(items):
        length = len(item.ids)
        found["input_ids"][row, :length] = item.ids
        found["attention_mask"][row, :length] = 1
        found["token_type_ids"][row, :length] = item.types
    found["position_ids"] = np.broadcast_to(np.arange(longest, dtype=np.int64), (len(items), longest)).copy()
    return found


def shape_of(found: tuple[int, ...], ranks: bool) -> Shape | None:
    """What an output of these dimensions is, for two texts of two tokens."""
    if len(found) == 3 and found[:2] == (2, 2):
        return "tokens"
    if len(found) == 2 and found[0] == 2:
        if found[1] == 1:
            return "score"
        return None if ranks else "vector"
    return None


def pooled(output: Any, mask: Any, shape: Shape, pooling: Pooling, normalize: bool) -> list[Any]:
    """A float32 vector for each text; a score is a vector of one."""
    import numpy as np

    found = _pool(output, mask, pooling) if shape == "tokens" else output
    if normalize and shape != "score":
        found = _unit(found)
    return list(found.astype(np.float32, copy=False))


def _pool(found: Any, mask: Any, pooling: Pooling) -> Any:
    import numpy as np

    if pooling == "cls":
        return found[:, 0]
    if pooling == "last":
        return found[np.arange(len(found)), mask.sum(axis=1) - 1]
    present = mask[:, :, None].astype(bool)
    if pooling == "max":
        return np.where(present, found, -np.inf).max(axis=1)
    return np.where(present, found, 0).sum(axis=1) / mask.sum(axis=1, keepdims=True)


def shortened(vectors: list[Any], dimensions: Json) -> list[Any]:
    """The first ``dimensions`` values of each, of length 1. Raises InvalidRequest where there are not so many."""
    import numpy as np

    width = len(vectors[0])
    if not isinstance(dimensions, int) or isinstance(dimensions, bool) or not 1 <= dimensions <= width:
        raise InvalidRequest(
            f"dimensions: {dimensions!r} is not between 1 and this model's {width}", param="dimensions"
        )
    return list(_unit(np.stack(vectors)[:, :dimensions]))


def _unit(vectors: Any) -> Any:
    """Of length 1 each; a zero vector stays what it is."""
    import numpy as np

    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(length == 0, 1, length)).astype(np.float32)
