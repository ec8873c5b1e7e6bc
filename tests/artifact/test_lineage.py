"""Where artifacts come from, and what is attached to them."""

from __future__ import annotations

import pytest
from artifact_samples import Keep

from dockyard.artifact.lineage import attach, attached, history, lineage_of
from dockyard.artifact.manifest import Lineage, Parent
from dockyard.artifact.store import Store
from dockyard.errors import ModelNotFound


def made_by(operation: str, *parents: Parent, **params: object) -> Lineage:
    return Lineage(parents=parents, operation=operation, version="1", params=params)


def test_a_history_goes_up_through_all_parents(store: Store, keep: Keep) -> None:
    base = keep({"model.gguf": b"base"}, "base")
    data = keep({"train.jsonl": b"{}"}, "data")
    lora = keep(
        {"adapter_model.safetensors": b"lora"},
        "lora",
        lineage=made_by(
            "tune", Parent(digest=base.digest), Parent(digest=data.digest, role="dataset"), rank=8, rate=0.1
        ),
    )
    keep(
        {"model.gguf": b"merged"},
        "merged",
        lineage=made_by("merge", Parent(digest=base.digest), Parent(digest=lora.digest, role="adapter")),
    )
    found = history(store, "merged")
    assert [(each.depth, each.role, each.names[0], each.operation) for each in found] == [
        (0, "", "docker.io/ai/merged:latest", "merge"),
        (1, "base", "docker.io/ai/base:latest", None),
        (1, "adapter", "docker.io/ai/lora:latest", "tune"),
        (2, "dataset", "docker.io/ai/data:latest", None),
    ]
    assert found[2].params == {"rank": 8, "rate": 0.1}
    assert lineage_of(store, "base") == Lineage()


def test_a_parent_that_is_not_here_is_told_by_digest(store: Store, keep: Keep) -> None:
    gone = "sha256:" + "0" * 64
    parent = Parent(digest=gone, reference="hub.local/base:v1")
    keep({"model.gguf": b"x"}, "x", lineage=made_by("quantize", parent, bits=4))
    found = history(store, "x")[1]
    assert (found.digest, found.here, found.names) == (gone, False, ("hub.local/base:v1",))
    with pytest.raises(ModelNotFound):
        history(store, "y")


def test_a_very_long_history_ends(store: Store, keep: Keep) -> None:
    last = keep({"model.gguf": b"0"})
    for number in range(80):
        last = keep({"model.gguf": str(number).encode()}, "x", lineage=made_by("tune", Parent(digest=last.digest)))
    assert len(history(store, "x")) == 65


def test_the_same_lineage_gives_the_same_artifact(store: Store, keep: Keep) -> None:
    one, two = (keep({"model.gguf": b"x"}, lineage=made_by("tune", b=2, a=1)) for _ in range(2))
    other = keep({"model.gguf": b"x"}, lineage=made_by("tune", b=2, a=2))
    assert one.digest == two.digest != other.digest


def test_reports_are_attached_once_and_read_again(store: Store, keep: Keep) -> None:
    model = keep({"model.gguf": b"x"}, "x")
    for _ in range(2):
        report = attach(
            store,
            "x",
            b'{"bleu": 0.5}',
            artifact_type="application/vnd.dockyard.report.v1+json",
            annotations={"suite": "a"},
        )
    attach(store, model.digest, b"sig", artifact_type="application/vnd.example.signature", media_type="text/plain")
    assert len(store.referrers(model.digest)) == 2
    (found,) = store.referrers(model.digest, "application/vnd.dockyard.report.v1+json")
    assert (found.digest, found.annotations) == (report.digest, {"suite": "a"})
    assert attached(store, found) == b'{"bleu": 0.5}'
    with pytest.raises(ModelNotFound):
        attach(store, "none", b"", artifact_type="x/y")
