"""Preferences, rewards, distillation and fresh transformers, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from training_help import Run, do

from dockyard.artifact.materialize import model_files
from dockyard.artifact.store import Store
from dockyard.artifact.writers import Parent
from dockyard.errors import InvalidRequest, UnsupportedFormat
from dockyard.ops import Inputs, execute
from dockyard.ops._checkpoint import open_checkpoint
from dockyard.ops.align import PLUGIN as ALIGN
from dockyard.ops.align import AlignParams
from dockyard.ops.distill import PLUGIN as DISTILL
from dockyard.ops.pretrain import PLUGIN as PRETRAIN
from dockyard.ops.training import sft
from dockyard.ops.training.examples import Encoding, encode
from dockyard.ops.training.foresee import length_of
from dockyard.ops.training.rewards import from_file, named

PAIRS = {"base": "tiny", "data": "pairs"}


def points(store: Store, digest: str, name: str) -> list[float]:
    folder = Path(model_files(store, digest).directory)
    kept = json.loads((folder / "training" / "training.json").read_text())
    return [point["value"] for point in kept["points"] if point["name"] == name]


@pytest.mark.parametrize(("method", "learn"), [("dpo", "lora"), ("dpo", "full"), ("kto", "lora")])
def test_preferences_are_learnt(method: str, learn: str, run: Run, shelf: Store) -> None:
    rate = 2e-3 if learn == "full" else 1e-2
    data = {"base": "tiny", "data": "unpaired" if method == "kto" else "pairs"}
    digest = run(ALIGN, data, method=method, learn=learn, steps=8, learning_rate=rate).entry.descriptor.digest
    if method == "dpo":
        assert points(shelf, digest, "rewards/margins")[-1] > 0
        assert points(shelf, digest, "eval_rewards/accuracies")[-1] > 0.9
    losses = points(shelf, digest, "loss")
    assert losses[-1] < losses[0]


def test_a_reward_model_rewards_answers(run: Run, shelf: Store) -> None:
    done = run(ALIGN, PAIRS, method="reward", steps=10, learning_rate=2e-2)
    digest = done.entry.descriptor.digest
    assert points(shelf, digest, "eval_accuracy")[-1] > 0.9
    shelf.tag(shelf.named("judge"), digest)
    made = run(ALIGN, {"base": "tiny", "data": "prompts", "reward": "judge"}, method="grpo", steps=2, answer=4)
    assert len(points(shelf, made.entry.descriptor.digest, "reward")) == 2
    with pytest.raises(UnsupportedFormat, match="no reward model"):
        run(ALIGN, {"base": "tiny", "data": "prompts", "reward": "small"}, method="rloo", answer=4)


def test_rewards_are_raised(shelf: Store, tmp_path: Path) -> None:
    """A reward that random answers often get: the share of letters."""
    code = tmp_path / "rewards.py"
    code.write_text(
        "def reward_letters(prompts, completions, **columns):\n"
        "    return [sum(c.isalpha() for c in text) / max(1, len(text)) for text in completions]\n"
    )
    inputs = Inputs(
        artifacts=tuple(
            Parent(digest=shelf.resolve(n).digest, role=r) for r, n in (("base", "tiny"), ("data", "prompts"))
        ),
        files={"code/0.py": shelf.add_file(code).digest},
    )
    params = AlignParams(
        method="rloo",
        steps=12,
        batch=8,
        answers=8,
        answer=6,
        length=64,
        learning_rate=3e-2,
        beta=0.0,
        threads=1,
        rank=8,
    )
    digest = execute(shelf, ALIGN, inputs, params).entry.descriptor.digest
    rewards = points(shelf, digest, "reward")
    assert sum(rewards[-3:]) > sum(rewards[:3])


def test_named_rewards() -> None:
    def of(name: str, text: str, **columns: Any) -> float:
        return named(name)(prompts=["q"], completions=[text], **{key: [value] for key, value in columns.items()})[0]

    assert (of("answer", "It is red.", answer="Red"), of("answer", "reddish", answer="red")) == (1.0, 0.0)
    assert (of("json", '{"a": 1}'), of("json", "{a")) == (1.0, 0.0)
    assert (of("length:4", "a b c d"), of("length:4", "a b"), of("length:4", "a " * 20)) == (1.0, 0.5, 0.0)
    assert (of("regex:^a.c$", "abc"), of("regex:^a.c$", "x")) == (1.0, 0.0)
    assert named("json")(prompts=["q"], completions=[[{"role": "assistant", "content": "1"}]]) == [1.0]
    for wrong in ("magic", "length:x", "regex:("):
        with pytest.raises(InvalidRequest):
            named(wrong)


def test_files_of_rewards_are_checked(tmp_path: Path) -> None:
    code = tmp_path / "rewards.py"
    for text, reason in (
        ("x = 1", "no function"),
        ("def reward_a(", "fails: SyntaxError"),
        ("1/0", "ZeroDivisionError"),
    ):
        code.write_text(text)
        with pytest.raises(InvalidRequest, match=reason):
            from_file(code)
    code.write_text("def reward_a(p, c, **k): return [1]\ndef reward_b(p, c, **k): return [1 / 0 for _ in c]\n")
    first, second = from_file(code)
    with pytest.raises(InvalidRequest, match="1 numbers for 2 answers"):
        first(["a", "b"], ["c", "d"])
    with pytest.raises(InvalidRequest, match="reward_b fails"):
        second(["a"], ["b"])


@pytest.mark.parametrize(
    ("data", "params", "reason"),
    [
        ("questions", {}, "dpo learns from preference"),
        ("prompts", {"method": "grpo"}, "needs to know what is good"),
        ("prompts", {"method": "grpo", "rewards": ["json"], "answers": 3}, "do not divide"),
        ("prompts", {"method": "rloo", "rewards": ["json"], "learn": "full"}, "a second time"),
        ("prompts", {"method": "rloo", "rewards": ["magic"]}, "no reward"),
        ("pairs", {"rewards": ["json"]}, "rewards would do nothing"),
        ("pairs", {"learn": "full", "rank": 4}, "rank would do nothing"),
        ("unpaired", {"method": "kto", "patience": 2}, "no held-out examples"),
        ("pairs", {"length": 300}, "do not fit the window"),
    ],
)
def test_what_can_not_be_aligned_is_refused(data: str, params: dict[str, Any], reason: str, run: Run) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        run(ALIGN, {"base": "tiny", "data": data}, **params)


# distillation


def divergence(store: Store, student: str) -> float:
    """Mean KL(teacher ‖ student) over the texts, in nats."""
    import torch

    teacher, small = open_checkpoint(store, "tiny"), open_checkpoint(store, student)
    records = [{"text": "what is the colour of number one two three"}]
    ids = torch.tensor([encode(teacher.tokenizer, "text", records, Encoding(length=64)).examples[0]["input_ids"]])
    with torch.no_grad():
        wanted, said = (torch.log_softmax(each.model(ids).logits.float(), -1) for each in (teacher, small))
    return float((wanted.exp() * (wanted - said)).sum(-1).mean())


@pytest.mark.parametrize(("method", "data"), [("logits", "texts"), ("on-policy", "questions")])
def test_a_student_comes_nearer_to_its_teacher(method: str, data: str, run: Run, shelf: Store) -> None:
    roles = {"base": "small", "teacher": "tiny", "data": data}
    params = {"method": method, "steps": 12, "learning_rate": 5e-3, "answer": 8, "length": 64}
    params |= {"share": 1.0} if method == "logits" else {}
    digest = run(DISTILL, roles, **params).entry.descriptor.digest
    losses = points(shelf, digest, "loss")
    assert min(losses[-3:]) < losses[0]
    if method == "logits":
        assert divergence(shelf, digest) < 0.8 * divergence(shelf, "small")


def test_a_reward_that_nothing_asks_is_refused(run: Run) -> None:
    with pytest.raises(InvalidRequest, match="dpo asks no rewards"):
        run(ALIGN, {"base": "tiny", "data": "pairs", "reward": "tiny"}, steps=1)


def test_examples_longer_than_a_window_are_refused(run: Run) -> None:
    with pytest.raises(InvalidRequest, match="do not fit the window of"):
        run(DISTILL, {"base": "small", "teacher": "tiny", "data": "texts"}, length=300)


@pytest.mark.parametrize(
    ("operation", "roles"),
    [(ALIGN, {"base": "tiny", "data": "pairs"}), (DISTILL, {"base": "small", "teacher": "tiny", "data": "texts"})],
)
def test_examples_are_as_long_as_the_window_where_no_length_is_said(
    operation: Any, roles: dict[str, str], run: Run, shelf: Store
) -> None:
    assert length_of(shelf, AlignParams(), shelf.resolve("tiny").digest) == 256
    run(operation, roles, length=None, steps=1)


def test_another_tokenizer_is_refused(run: Run, shelf: Store) -> None:
    fresh = run(PRETRAIN, {"base": "tiny", "data": "texts"}, steps=2, layers=1, width=32, vocabulary=300)
    shelf.tag(shelf.named("stranger"), fresh.entry.descriptor.digest)
    with pytest.raises(InvalidRequest, match="different tokenizers") as caught:
        run(DISTILL, {"base": "stranger", "teacher": "tiny", "data": "texts"})
    assert "synthesize" in str(caught.value.hint)


# from nothing


def test_a_fresh_transformer_learns(run: Run, shelf: Store) -> None:
    shape = {"layers": 2, "width": 64, "heads": 4, "kv_heads": 2, "window": 128}
    done = run(PRETRAIN, {"base": "tiny", "data": "texts"}, steps=20, learning_rate=1e-2, **shape)
    digest = done.entry.descriptor.digest
    losses = points(shelf, digest, "loss")
    assert losses[-1] < losses[0] - 1.0
    facts = model_files(shelf, digest).facts
    assert (facts.layers, facts.embedding, facts.kv_heads, facts.context) == (2, 64, 2, 128)
    start = open_checkpoint(shelf, digest)
    examples = encode(start.tokenizer, "text", [{"text": "what is the colour"}], Encoding(length=64)).examples
    assert sft.mean_loss(sft.losses(start.model, examples)) < losses[0]


def test_a_fresh_one_may_be_left_untrained(run: Run, shelf: Store) -> None:
    first, second = (
        run(PRETRAIN, {"base": "tiny", "data": "texts"}, steps=0, layers=1, width=32, heads=heads) for heads in (1, 2)
    )
    assert first.entry.descriptor.digest != second.entry.descriptor.digest
    assert model_files(shelf, first.entry.descriptor.digest).facts.layers == 1
    with pytest.raises(InvalidRequest, match="heads"):
        do(shelf, PRETRAIN, {"base": "tiny", "data": "texts"}, steps=0, width=32, heads=3)
