"""Tuning: what is learnt and what is kept, the same result however often it was stopped, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import tokenizer, write_model
from training_help import Run, do, fill, lines

from dockyard.artifact.lineage import history
from dockyard.artifact.materialize import model_files
from dockyard.artifact.store import Store
from dockyard.artifact.writers import Parent
from dockyard.cli import call
from dockyard.errors import Cancelled, Conflict, InvalidRequest
from dockyard.ops import Done, Inputs, execute, pack
from dockyard.ops._checkpoint import open_checkpoint
from dockyard.ops.data import create
from dockyard.ops.merge import PLUGIN as MERGE
from dockyard.ops.merge import MergeParams
from dockyard.ops.training import sft
from dockyard.ops.training.adapters import weight_bytes
from dockyard.ops.training.examples import IGNORED, Encoding, encode
from dockyard.ops.training.nf4 import LOOKED_AT, round_together, texts_to_look_at, to_four_bits
from dockyard.ops.training.options import TrainParams
from dockyard.ops.tune import PLUGIN as TUNE
from dockyard.types import Progress

ROLES = {"base": "tiny", "data": "questions"}


def told(store: Store, done: Done) -> dict[str, Any]:
    """What a run keeps of itself."""
    folder = Path(model_files(store, done.entry.descriptor.digest).directory)
    assert (folder / "training" / "loss.svg").read_text().startswith("<svg")
    found: dict[str, Any] = json.loads((folder / "training" / "training.json").read_text())
    return found


@pytest.mark.parametrize("method", ["lora", "rslora", "dora", "qlora", "full"])
def test_each_method_learns(method: str, run: Run, shelf: Store) -> None:
    rate = 3e-3 if method == "full" else 2e-2
    done = run(TUNE, ROLES, method=method, steps=12, learning_rate=rate, evaluate_every=6)
    kept = told(shelf, done)
    losses = [point["value"] for point in kept["points"] if point["name"] == "loss"]
    assert len(losses) == kept["steps"] == 12
    assert losses[-1] < losses[0] - 0.3
    assert kept["held_out_loss"] < losses[0]
    assert (kept["learnt_weights"] < kept["weights"] / 4) is (method != "full")
    made = model_files(shelf, done.entry.descriptor.digest)
    assert made.format == ("safetensors" if method == "full" else "peft")
    roles = {each.role for each in history(shelf, done.entry.descriptor.digest)}
    assert {"base", "data"} <= roles


def test_the_loss_is_told_as_it_goes(shelf: Store) -> None:
    news: list[Progress] = []
    kept = told(shelf, do(shelf, TUNE, ROLES, news.append, seed=77))
    losses = [point["value"] for point in kept["points"] if point["name"] == "loss"]
    assert [each.value for each in news if each.value is not None] == pytest.approx(losses, rel=1e-5)


def test_an_adapter_is_what_was_learnt(run: Run, shelf: Store) -> None:
    from peft import PeftModel

    done = run(TUNE, ROLES, method="lora", steps=12, learning_rate=2e-2, evaluate_every=6)
    start = open_checkpoint(shelf, "tiny")
    examples = encode(start.tokenizer, "completion", [{"prompt": "what is", "completion": "red"}], Encoding(length=64))
    before = sft.mean_loss(sft.losses(start.model, examples.examples))
    folder = Path(model_files(shelf, done.entry.descriptor.digest).weights[0]).parent
    after = sft.mean_loss(sft.losses(PeftModel.from_pretrained(start.model, folder), examples.examples))
    assert after < before - 0.3
    config = json.loads((folder / "adapter_config.json").read_text())
    assert str(shelf.root.parent) not in json.dumps(config)


def test_a_run_that_is_stopped_ends_as_one_that_is_not(tmp_path: Path) -> None:
    given = {"steps": 10, "checkpoint_every": 2, "evaluate_every": 4, "dropout": 0.2, "seed": 3}
    digests = []
    for name, stops in (("whole", ()), ("stopped", (3, 7))):
        store = fill(Store(tmp_path / name / "store"), tmp_path / name)
        for stop in stops:

            def show(news: Progress, stop: int = stop) -> None:
                if news.action == "step" and news.current == stop:
                    raise Cancelled("stopped")

            with pytest.raises(Cancelled):
                do(store, TUNE, ROLES, show, **given)
        digests.append(do(store, TUNE, ROLES, **given).entry.descriptor.digest)
        assert list((store.root.parent / "work").glob("*/")) == []
    assert digests[0] == digests[1]


def test_a_half_written_checkpoint_and_the_last_are_passed_over(tmp_path: Path) -> None:
    from dockyard.ops.training.loop import last_checkpoint

    for number, state in ((2, '{"global_step": 2}'), (10, '{"global_step"'), (20, '{"global_step": 20}')):
        (tmp_path / f"checkpoint-{number}").mkdir()
        (tmp_path / f"checkpoint-{number}" / "trainer_state.json").write_text(state)
    (tmp_path / "checkpoint-12").mkdir()
    found = last_checkpoint(tmp_path, TrainParams(steps=20))
    assert found is not None
    assert found.name == "checkpoint-2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2"]


def test_early_stop_keeps_the_best(run: Run, shelf: Store) -> None:
    kept = told(shelf, run(TUNE, ROLES, steps=40, learning_rate=0.5, evaluate_every=2, patience=2, warmup=0.0))
    assert kept["stopped_early"]
    held = [point["value"] for point in kept["points"] if point["name"] == "eval_loss"]
    assert len(held) < 20
    assert kept["held_out_loss"] == pytest.approx(min(held), rel=0.05)


def test_raw_text_is_learnt_whole(run: Run, shelf: Store) -> None:
    kept = told(shelf, run(TUNE, {"base": "tiny", "data": "texts"}, method="full", learning_rate=1e-2, steps=8))
    losses = [point["value"] for point in kept["points"] if point["name"] == "loss"]
    assert losses[-1] < losses[0]
    words = tokenizer()
    texts = [{"text": "red green"}, {"text": "blue"}]
    packed = encode(words, "text", texts, Encoding(length=64, pack=True)).examples
    assert len(packed) == 1
    assert words.decode(packed[0]["input_ids"]) == "red green<|im_end|>blue<|im_end|>"
    assert len(encode(words, "text", texts, Encoding(length=64)).examples) == 2


# what is learnt of an example


def learnt(words: Any, record: dict[str, Any], **how: Any) -> str:
    (example,) = encode(
        words, "messages" if "messages" in record else "completion", [record], Encoding(length=128, **how)
    ).examples
    return str(words.decode([label for label in example["labels"] if label != IGNORED]))


def test_answers_alone_are_learnt() -> None:
    words = tokenizer()
    turns = [
        {"role": "system", "content": "one"},
        {"role": "user", "content": "what is red"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "and"},
        {"role": "assistant", "content": "three"},
    ]
    assert learnt(words, {"messages": turns}) == "two<|im_end|>\nthree<|im_end|>\n"
    assert learnt(words, {"prompt": "what", "completion": "red"}) == "red<|im_end|>\n"
    assert learnt(words, {"prompt": "what ", "completion": "red"}, chat=False) == "red<|im_end|>"
    assert learnt(words, {"prompt": "what ", "completion": "red"}, chat=False, everything=True) == "what red<|im_end|>"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (
            "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}",
            "no assistant",
        ),
        ("{% for m in messages %}{{ raise_exception('no') }}{% endfor %}", "refuses"),
        (None, "no chat template"),
    ],
)
def test_a_template_without_answers_is_refused(template: str | None, reason: str) -> None:
    words = tokenizer()
    words.chat_template = template
    with pytest.raises(InvalidRequest, match=reason):
        learnt(words, {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]})


def test_a_template_that_hides_earlier_thoughts_is_learnt_from_its_last_turn() -> None:
    words = tokenizer()
    words.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{{ m['content'].split('|')[-1] if not loop.last else m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    turns = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "red|two"},
        {"role": "user", "content": "y"},
        {"role": "assistant", "content": "green|three"},
    ]
    assert learnt(words, {"messages": turns}) == "green|three<|im_end|>\n"


def test_long_examples_are_cut_and_counted() -> None:
    words = tokenizer()
    records = [{"prompt": "red " * 60, "completion": "two"}, {"prompt": "what", "completion": "three " * 60}]
    found = encode(words, "completion", records, Encoding(length=32))
    assert (len(found.examples), found.cut, found.unusable) == (1, 2, 1)
    with pytest.raises(InvalidRequest, match="no answer begins within 32 tokens"):
        encode(words, "completion", records[:1], Encoding(length=32))


# the loss, and the trap


def test_the_loss_is_the_models_own() -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                                         num_attention_heads=4))  # fmt: skip
    ids = torch.randint(0, 97, (3, 40))
    labels = ids.clone()
    labels[:, :11] = IGNORED
    inputs = {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}
    own = model(**inputs).loss
    own.backward()
    wanted = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    was, sft.ROWS = sft.ROWS, 16
    try:
        total, count = sft.summed(model, inputs)
    finally:
        sft.ROWS = was
    (total / count).backward()
    assert torch.allclose(total / count, own, rtol=1e-5)
    for name, weight in model.named_parameters():
        assert torch.allclose(weight.grad, wanted[name], rtol=1e-3, atol=1e-6), name


def test_gradients_of_a_packed_base_are_right_after_an_evaluation(shelf: Store) -> None:
    """On CPUs with AVX512-BF16 bitsandbytes repacks 4-bit layers at an evaluation, and then has no backward pass."""
    import torch

    model = to_four_bits(open_checkpoint(shelf, "tiny", dtype="bfloat16").model, "bfloat16")
    layers = [module for module in model.modules() if type(module).__name__ == "Linear4bit"]
    assert len(layers) == 14
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)
    ids = torch.arange(40).reshape(1, 40)

    def gradient() -> Any:
        states = model.get_input_embeddings()(ids).detach().requires_grad_(True)
        model.train()
        model(inputs_embeds=states).logits.float().pow(2).sum().backward()
        return states.grad.flatten().float()

    before = gradient()
    model.eval()
    with torch.no_grad():
        model(input_ids=ids)
    assert float(torch.cosine_similarity(before, gradient(), dim=0)) > 0.999


def test_a_packed_base_is_less_than_half(shelf: Store) -> None:
    model = open_checkpoint(shelf, "tiny").model
    head = model.get_input_embeddings().weight
    whole = weight_bytes(model) - head.numel() * head.element_size()
    packed = weight_bytes(to_four_bits(model, "float32")) - head.numel() * head.element_size()
    assert packed < whole / 4


def test_rounding_errors_make_up_for_each_other(shelf: Store) -> None:
    """On the texts that a base in four bits was rounded by it is nearer to the whole one than with each number at its
    nearest; and the same texts give the same numbers."""
    import torch

    texts = [list(range(at, at + 60)) for at in range(0, 180, 20)]

    def away(*looked_at: list[int]) -> tuple[float, Any]:
        whole = open_checkpoint(shelf, "tiny").model
        packed = to_four_bits(open_checkpoint(shelf, "tiny").model, "float32", looked_at)
        total = 0.0
        with torch.no_grad():
            for ids in texts:
                told = [model(input_ids=torch.tensor([ids])).logits for model in (whole, packed)]
                total += float((told[0] - told[1]).pow(2).sum())
        return total, [module.weight.data for module in packed.modules() if type(module).__name__ == "Linear4bit"]

    nearest, _ = away()
    together, first = away(*texts)
    _, second = away(*texts)
    assert together < 0.8 * nearest
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_nothing_seen_leaves_each_number_at_its_nearest() -> None:
    import torch
    from bitsandbytes.nn import Linear4bit, Params4bit

    torch.manual_seed(0)
    weight = torch.randn(8, 128)
    layer = Linear4bit(128, 8, bias=False, compress_statistics=True, quant_type="nf4")
    layer.weight = Params4bit(weight.clone(), requires_grad=False, quant_type="nf4", compress_statistics=True)
    packed = layer.to("cpu").weight
    layer.support_avx512bf16_for_cpu = False
    before = packed.data.clone()
    round_together(packed, weight, torch.zeros(128, 128))
    assert torch.equal(packed.data, before)
    inputs = torch.randn(200, 6) @ torch.randn(6, 128)
    wanted, plain = inputs @ weight.T, layer(inputs)
    round_together(packed, weight, inputs.T @ inputs)
    assert float((layer(inputs) - wanted).norm()) < 0.6 * float((plain - wanted).norm())


def test_rows_that_are_no_multiple_of_a_block_stay_whole() -> None:
    """bitsandbytes' kernel for CPUs would give other numbers back than it was given."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=97, **shape))
    whole = {name: module.weight.clone() for name, module in model.named_modules() if hasattr(module, "weight")}
    to_four_bits(model, "float32", [[1, 2, 3, 4]])
    inputs = {64: torch.randn(50, 64), 96: torch.randn(50, 96)}
    kinds = set()
    for name, module in model.model.layers.named_modules():
        if hasattr(module, "in_features"):
            kinds.add((type(module).__name__, module.in_features))
            given = inputs[module.in_features]
            with torch.no_grad():
                told, wanted = module(given), given @ whole[f"model.layers.{name}"].T
            assert float((told - wanted).norm() / wanted.norm()) < 0.15, name
    assert kinds == {("Linear4bit", 64), ("Linear", 96)}


def test_few_examples_are_looked_at_and_the_same_ones() -> None:
    examples = [{"input_ids": [place] * 100} for place in range(200)]
    found = texts_to_look_at(examples, seed=3)
    assert sum(map(len, found)) == -(-LOOKED_AT // 100) * 100
    assert found == texts_to_look_at(examples, seed=3) != texts_to_look_at(examples, seed=4)
    assert texts_to_look_at(examples[:2], seed=3) in ([[0] * 100, [1] * 100], [[1] * 100, [0] * 100])


def test_merging_into_other_weights_is_told(run: Run, shelf: Store) -> None:
    made = {name: run(TUNE, ROLES, steps=1, seed=78, method=name) for name in ("lora", "full")}
    for name, done in made.items():
        shelf.tag(shelf.named(name), done.entry.descriptor.digest)
    for base, others in (("tiny", 0), ("full", 1)):
        news: list[Progress] = []
        parts = tuple(
            Parent(digest=shelf.resolve(one).digest, role=role) for role, one in (("base", base), ("adapter", "lora"))
        )
        execute(shelf, MERGE, Inputs(artifacts=parts), MergeParams(), on_progress=news.append)
        assert sum("was trained on docker.io/ai/tiny:latest" in each.message for each in news) == others


# refused before work


def test_an_unknown_module_is_refused(run: Run) -> None:
    with pytest.raises(InvalidRequest, match="no linear module 'wq'") as caught:
        run(TUNE, ROLES, target="q_proj,wq")
    assert "v_proj" in str(caught.value.hint)


def test_examples_longer_than_the_window_are_refused(run: Run) -> None:
    with pytest.raises(InvalidRequest, match="257 tokens do not fit the window of") as caught:
        run(TUNE, ROLES, length=257)
    assert (caught.value.param, caught.value.hint) == ("length", "--length 256, or less")
    run(TUNE, ROLES, length=256, steps=1)


def test_data_that_an_evaluation_has_is_refused(shelf: Store, tmp_path: Path) -> None:
    held = lines(tmp_path / "held.jsonl", {"question": "what is the colour of three one"})
    create(shelf, [lines(held, {"text": "what is the colour of three one"})], reference=shelf.named("held"))
    with pytest.raises(Conflict, match="are in the evaluation too"):
        do(shelf, TUNE, {**ROLES, "evaluation": "held"})


def test_data_of_another_kind_is_refused(run: Run) -> None:
    with pytest.raises(InvalidRequest, match="no answer to imitate") as caught:
        run(TUNE, {"base": "tiny", "data": "pairs"})
    assert "align" in str(caught.value.hint)


def test_a_loss_that_is_no_number_stops_the_run(run: Run) -> None:
    with pytest.raises(InvalidRequest, match="come apart"):
        run(TUNE, ROLES, method="full", learning_rate=1e30, warmup=0.0, clip=1e30)


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKYARD_HOME", str(tmp_path / "home"))
    store = Store(tmp_path / "home" / "store")
    pack.package(store, pack.Sources(weights=(write_model(tmp_path / "m"),)), reference=store.named("tiny"))
    data = str(lines(tmp_path / "a.jsonl", {"prompt": "what is", "completion": "red"}))
    quick = ["--data", data, "--steps", "2", "--length", "64", "--threads", "1"]
    assert call(["tune", "tiny", "taught", *quick, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["reference"].endswith("taught:latest")
    assert call(["tune", "tiny", *quick]) == 0
    assert "it was here already" in capsys.readouterr().out
    assert call(["tune", "tiny", *quick, "--dry-run", "--batch", "100000", "--json"]) == 6
    assert json.loads(capsys.readouterr().out)["refusal"]
    assert call(["tune", "tiny", *quick, "--batch", "100000"]) == 6
    assert "of memory" in capsys.readouterr().err
    assert call(["tune", "tiny", *quick, "--length", "4096", "--dry-run"]) == 2
    assert "the window of" in capsys.readouterr().err
    lines(tmp_path / "a.jsonl", {"prompt": "what is"}, {"completion": "red"})
    assert call(["tune", "tiny", *quick]) == 2
    assert "a.jsonl:2" in capsys.readouterr().err
    assert call(["tune", "tiny", "--data", data, "--method", "magic"]) == 2
    assert call(["tune", "tiny", *quick, "--data", "nowhere.jsonl"]) == 3
    assert "nowhere.jsonl: there is no such file" in capsys.readouterr().err
