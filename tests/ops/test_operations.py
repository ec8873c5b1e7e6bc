"""The contract of operations: params are flags, documentation and key; the same key is not run twice."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from msgspec import Meta

from dockyard import plugins
from dockyard.artifact.packing import pack_files
from dockyard.artifact.store import Entry, Store
from dockyard.artifact.writers import Parent
from dockyard.errors import InvalidRequest
from dockyard.ops import Inputs, Job, Params, execute, find, given, key_of, options, read_params
from dockyard.ops.pack import PackParams


class ShoutParams(Params, frozen=True):
    times: Annotated[int, Meta(ge=1, description="How often.")] = 1
    loud: bool = False


class Shout:
    """An operation that counts its runs."""

    name, version, params = "shout", "1", ShoutParams

    def __init__(self) -> None:
        self.runs = 0

    def run(self, job: Job, params: ShoutParams) -> Entry:
        self.runs += 1
        text = "".join(job.store.read(digest).decode() for digest in job.inputs.files.values())
        blob = job.store.add_bytes((text.upper() * params.times).encode())
        return pack_files(
            job.store,
            {"out.txt": job.store.blob_path(blob.digest)},
            reference=job.reference,
            lineage=job.lineage,
            annotations=job.annotations,
            check=False,
        )


@pytest.fixture
def inputs(store: Store) -> Inputs:
    return Inputs(files={"in.txt": store.add_bytes(b"hi").digest})


def test_the_same_key_is_not_run_twice(store: Store, inputs: Inputs) -> None:
    shout = Shout()
    first = execute(store, shout, inputs, ShoutParams(times=2), reference=store.named("a"))
    second = execute(store, shout, inputs, ShoutParams(times=2), reference=store.named("b"))
    third = execute(store, shout, inputs, ShoutParams(times=3))
    assert (first.reused, second.reused, third.reused, shout.runs) == (False, True, False, 2)
    assert first.entry.descriptor.digest == second.entry.descriptor.digest == store.resolve("b").digest
    assert str(second.entry.reference) == str(store.named("b"))
    assert find(store, first.key) == first.entry.descriptor.digest


def test_the_key_is_of_all_that_matters_and_nothing_else(store: Store, inputs: Inputs) -> None:
    shout, params = Shout(), ShoutParams()
    key = key_of(shout, inputs, params)
    assert key == key_of(Shout(), inputs, ShoutParams(times=1))
    a, b = Parent(digest="sha256:aa", role="base"), Parent(digest="sha256:bb", role="base")
    assert key_of(shout, Inputs(artifacts=(a, b)), params) == key_of(shout, Inputs(artifacts=(b, a)), params)
    named = Parent(digest="sha256:aa", role="base", reference="x")
    assert key_of(shout, Inputs(artifacts=(a,)), params) == key_of(shout, Inputs(artifacts=(named,)), params)
    others = {
        key_of(shout, inputs, ShoutParams(loud=True)),
        key_of(shout, Inputs(files={"other.txt": inputs.files["in.txt"]}), params),
        key_of(shout, Inputs(artifacts=(a,)), params),
        key_of(shout, Inputs(artifacts=(Parent(digest="sha256:aa", role="adapter"),)), params),
    }
    newer = Shout()
    newer.version = "2"
    assert len({key, key_of(newer, inputs, params), *others}) == 6


def test_a_result_that_was_removed_is_made_again(store: Store, inputs: Inputs) -> None:
    shout = Shout()
    done = execute(store, shout, inputs, ShoutParams(), reference=store.named("a"))
    store.delete("a")
    inputs = Inputs(files={"in.txt": store.add_bytes(b"hi").digest})
    again = execute(store, shout, inputs, ShoutParams(), reference=store.named("a"))
    assert (again.reused, again.entry.descriptor.digest) == (False, done.entry.descriptor.digest)


def test_a_damaged_artifact_is_no_result(store: Store, inputs: Inputs) -> None:
    shout = Shout()
    done = execute(store, shout, inputs, ShoutParams(), reference=store.named("a"))
    manifest = store.blob_path(done.entry.descriptor.digest)
    manifest.chmod(0o644)
    manifest.write_bytes(b"{}")
    assert find(Store(store.root), done.key) is None


def test_params_are_their_own_documentation() -> None:
    found = {option.name: option for option in options(ShoutParams)}
    assert (found["times"].kind, found["times"].default, found["times"].help) == ("integer", 1, "How often.")
    assert given(ShoutParams()) == {}
    assert given(ShoutParams(times=2)) == {"times": 2}
    kinds = {option.name: option.kind for option in options(PackParams)}
    assert kinds["format"] == "docker-v0.1 | docker-v0.2 | modelpack"
    assert kinds["context"] == "integer"


@pytest.mark.parametrize(
    ("values", "param"), [({"times": 0}, "times"), ({"times": "x"}, "times"), ({"unknown": 1}, None)]
)
def test_wrong_params_are_named(values: dict[str, object], param: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_params(ShoutParams, values)
    assert caught.value.param == param
    assert next(iter(values)) in caught.value.message
    assert read_params(ShoutParams, {"times": 2, "loud": None}) == ShoutParams(times=2)


def test_every_operation_keeps_the_contract(tmp_path: Path) -> None:
    found = plugins.find("ops")
    assert "pack" in found
    for plugin in found.values():
        operation = plugin.load()
        assert plugin.error is None
        params = operation.params  # type: ignore[attr-defined]
        assert issubclass(params, Params)
        assert all(option.help for option in options(params)), "each field says what it does"
        assert operation.name  # type: ignore[attr-defined]
        assert operation.version  # type: ignore[attr-defined]


def test_a_word_that_is_none_of_a_fields_is_answered_with_those_that_are() -> None:
    from dockyard.ops.quantize import QuantizeParams

    with pytest.raises(InvalidRequest) as caught:
        read_params(QuantizeParams, {"to": "openvino-int9"})
    assert caught.value.param == "to"
    assert "openvino-int8 | " in (caught.value.hint or "")
