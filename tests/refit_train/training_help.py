"""A store with a tiny model and data sets, made once for the folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_models import COLOURS, NUMBERS, WORDS, keep_model, questions

from dockyard.artifact.store import Store
from dockyard.artifact.writers import Parent
from dockyard.ops import Done, Inputs, execute, read_params
from dockyard.ops.data import DataParams, create
from dockyard.types import OnProgress

pytest.importorskip("torch", reason="needs the refit extra")
pytest.importorskip("trl", reason="needs the refit extra")

Run = Callable[..., Done]


def lines(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def fill(store: Store, folder: Path) -> Store:
    """The model as ``tiny``; data sets ``questions``, ``texts``, ``pairs`` and ``prompts``."""
    folder.mkdir(parents=True, exist_ok=True)
    keep_model(store, folder / "tiny")
    keep_model(store, folder / "small", "small", seed=1, layers=1)
    pairs = [{"prompt": f"what is {word}", "chosen": "red", "rejected": "green"} for word in WORDS]
    sets = {
        "questions": (questions(folder / "questions.jsonl"), DataParams(validation=0.2)),
        "texts": (lines(folder / "texts.jsonl", *({"text": " ".join(WORDS[n:] * 3)} for n in range(8))), None),
        "pairs": (lines(folder / "pairs.jsonl", *pairs), DataParams(validation=0.3)),
        "prompts": (lines(folder / "prompts.jsonl", *({"prompt": f"say {n}", "answer": n} for n in NUMBERS)), None),
        "unpaired": (
            lines(
                folder / "unpaired.jsonl",
                *({"prompt": f"a {n}", "completion": c, "label": c == "red"} for n in NUMBERS for c in COLOURS[:2]),
            ),
            None,
        ),
    }
    for name, (path, params) in sets.items():
        create(store, [path], params, reference=store.named(name))
    return store


@pytest.fixture(scope="package")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("refit")
    return fill(Store(folder / "home" / "store"), folder / "made")


def do(
    store: Store, operation: Any, roles: dict[str, str], on_progress: OnProgress | None = None, **params: Any
) -> Done:
    """Run an operation on artifacts by name, quickly: one thread, short examples."""
    parts = tuple(Parent(digest=store.resolve(name).digest, role=role) for role, name in roles.items())
    given = {"steps": 6, "length": 64, "threads": 1, **params}
    return execute(
        store, operation, Inputs(artifacts=parts), read_params(operation.params, given), on_progress=on_progress
    )


@pytest.fixture
def run(shelf: Store) -> Run:
    """``do`` on the folder's store."""

    def started(operation: Any, roles: dict[str, str], **params: Any) -> Done:
        return do(shelf, operation, roles, **params)

    return started
