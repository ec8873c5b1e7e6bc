"""Defaults of an artifact: what they fill in, what they leave alone, and how they are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockyard.artifact.defaults import applied, merged, read
from dockyard.artifact.materialize import model_files
from dockyard.artifact.store import Store
from dockyard.errors import ArtifactError
from dockyard.ops.pack import PackParams, Sources, package
from dockyard.types import Defaults, Message, Request, Sampling

PIRATE = Defaults(system="Arr.", sampling=Sampling(temperature=0.5, stop=("x",)))
HELLO = Message(role="user", content="Hi")


def test_a_request_goes_over_the_defaults() -> None:
    asked = Request(id="1", messages=(HELLO,), sampling=Sampling(temperature=0.0, max_tokens=3))
    got = applied(asked, PIRATE)
    assert got.messages == (Message(role="system", content="Arr."), HELLO)
    assert got.sampling == Sampling(temperature=0.0, max_tokens=3, stop=("x",))


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_system_prompt_of_ones_own_stays_alone(role: str) -> None:
    own = (Message(role=role, content="Be brief."), HELLO)
    assert applied(Request(id="1", messages=own), PIRATE).messages == own


def test_first_turns_come_first() -> None:
    turns = (Message(role="user", content="a"), Message(role="assistant", content="b"))
    got = applied(Request(id="1", messages=(HELLO,)), Defaults(messages=turns))
    assert got.messages == (*turns, HELLO)


def test_raw_prompts_only_get_the_sampling_and_vectors_nothing() -> None:
    raw = applied(Request(id="1", kind="complete", prompt="a"), PIRATE)
    assert (raw.messages, raw.prompt, raw.sampling.temperature) == (None, "a", 0.5)
    embed = Request(id="1", kind="embed", inputs=("a",))
    assert applied(embed, PIRATE) is embed
    assert applied(embed, None) is embed


def test_a_child_keeps_what_it_does_not_change() -> None:
    child = Defaults(system="Shout.", sampling=Sampling(max_tokens=3))
    assert merged(PIRATE, child) == Defaults(
        system="Shout.", sampling=Sampling(temperature=0.5, stop=("x",), max_tokens=3)
    )
    assert merged(PIRATE, None) is PIRATE
    assert merged(None, PIRATE) is PIRATE


def test_an_artifact_carries_its_defaults(starter_gguf: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    package(store, Sources(weights=(starter_gguf,)), reference=store.named("tiny"), link=True)
    package(store, Sources(), PackParams(defaults=PIRATE), base="tiny", reference=store.named("pirate"))
    package(store, Sources(), PackParams(context=64), base="pirate", reference=store.named("small"))
    assert model_files(store, "tiny").defaults is None
    assert model_files(store, "pirate").defaults == PIRATE
    assert model_files(store, "small").defaults == PIRATE
    assert model_files(store, "small").weights[0] != model_files(store, "tiny").weights[0]


def test_an_annotation_that_is_damaged_is_told() -> None:
    assert read({}) is None
    with pytest.raises(ArtifactError, match=r"io\.dockyard\.defaults"):
        read({"io.dockyard.defaults": '{"system": 3}'})
