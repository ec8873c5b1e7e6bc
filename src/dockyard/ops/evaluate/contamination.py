"""Whether a model may have seen the items: they are looked for in data that it is known to be trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dockyard.artifact.store import Store
from dockyard.errors import ModelNotFound, NotFound
from dockyard.ops.dataset.artifact import file_items, open_dataset
from dockyard.ops.dataset.overlap import WINDOW, Watch
from dockyard.ops.dataset.records import fields_of
from dockyard.ops.evaluate.result import Contamination
from dockyard.ops.evaluate.suite import Loaded
from dockyard.scorers import Item

UNCHECKED = "not checked: what the model was trained on is not known here"


def look(loaded: Loaded, store: Store, data: Sequence[str]) -> Contamination:
    """Look for the suite's items in files and data sets of the store, by n-grams of 13 words (Brown et al., 2020).

    Raises NotFound, InvalidRequest for data that can't be read.
    """
    if not data:
        return Contamination(note=UNCHECKED)
    watch = Watch([_texts(item) for item in loaded.items])
    found: set[int] = set()
    for name in data:
        for fields in file_items(Path(name)) if Path(name).is_file() else _trained(store, name):
            found |= watch.hits(" ".join(fields))
    seen = tuple(loaded.items[place].id for place in sorted(found))
    note = f"{len(seen)} of {len(loaded.items)} items share {WINDOW} words in a row with {', '.join(data)}"
    if watch.short:
        note += f"; too short to be looked for: {len(watch.short)}"
    return Contamination(checked=tuple(data), note=note, items=seen)


def _trained(store: Store, name: str) -> list[list[str]]:
    """The texts of a data set's part "train", or of all there is without one."""
    try:
        parts = open_dataset(store, name).parts
    except ModelNotFound:
        raise NotFound(f"{name} is neither a file nor a data set in the store", param=name) from None
    return [fields_of(record) for record in parts.get("train") or [each for part in parts.values() for each in part]]


def _texts(item: Item) -> list[str]:
    """What is asked first, then the answers."""
    asked = item.prompt
    if not isinstance(asked, str):
        asked = " ".join(str(turn.get("content") or "") for turn in asked if turn.get("role") == "user")
    return [asked or item.text, *item.references, *item.choices]
