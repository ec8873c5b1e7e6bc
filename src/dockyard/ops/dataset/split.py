"""Cutting records into parts so that examples about the same prompt stay together, the same way for the same seed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from dockyard.errors import InvalidRequest
from dockyard.ops.dataset.near import plain
from dockyard.ops.dataset.records import Record, prompt_of


def split(records: Sequence[Record], shares: Mapping[str, float], seed: int) -> dict[str, list[Record]]:
    """Parts by name: each share of the records (0 to 1) in the order of ``shares``, and the rest as "train".

    Records whose prompt is the same are in the same part. The order inside a part is the file's. Raises InvalidRequest
    where a part would be empty.
    """
    groups: dict[str, list[int]] = {}
    for place, record in enumerate(records):
        groups.setdefault(plain(prompt_of(record)), []).append(place)
    order = sorted(groups.values())
    random.Random(seed).shuffle(order)  # noqa: S311 - a split, not a secret
    parts: dict[str, list[int]] = {}
    for name, share in shares.items():
        if share <= 0:
            continue
        wanted = round(share * len(records))
        taken: list[int] = []
        while order and len(taken) < wanted:
            taken += order.pop()
        parts[name] = taken
    parts["train"] = [place for group in order for place in group]
    for name, places in parts.items():
        if not places:
            raise InvalidRequest(
                f"the part {name!r} would be empty: {len(records)} records with {len(groups)} different prompts",
                param=name,
                hint="give more records, or split another share",
            )
    return {name: [records[place] for place in sorted(places)] for name, places in parts.items()}
