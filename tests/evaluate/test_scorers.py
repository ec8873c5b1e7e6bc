"""Scorers against the libraries and the words that define them."""

from __future__ import annotations

from typing import Any

import pytest

from dockyard import scorers
from dockyard.errors import DockyardError, InvalidRequest, NotFound
from dockyard.sandbox import program
from dockyard.scorers import Answer, Chosen, Item, Likelihood, Score, Scorer

pytestmark = pytest.mark.anyio

SAID = ["The cat sat on the mat.", "A quick brown fox", "", "It is raining in the harbour today"]
RIGHT = ["The cat is on the mat.", "The quick brown fox jumps", "nothing", "It rains in the harbour today"]


def item(number: int = 0, **fields: Any) -> Item:
    return Item(id=str(number), line=number + 1, **fields)


async def corpus(scorer: Scorer) -> dict[str, float]:
    """Every metric over the four pairs above."""
    items = [item(n, references=(right,)) for n, right in enumerate(RIGHT)]
    scorer.begin(items)
    found = [await scorer.score(each, Answer(text=said)) for each, said in zip(items, SAID, strict=True)]
    return {metric.name: combined(scorer, metric.name, found) for metric in scorer.metrics}


def combined(scorer: Scorer, metric: str, found: list[Score]) -> float:
    rows = [each.values[metric] for each in found]
    return scorer.combine(metric, [sum(column) for column in zip(*rows, strict=True)], len(rows))


async def test_translation_metrics_are_sacrebleu_s() -> None:
    from sacrebleu.metrics import BLEU, CHRF, TER

    for chosen, metric in (
        (Chosen(name="bleu"), BLEU()),
        (Chosen(name="bleu", options={"tokenize": "intl", "lowercase": True}), BLEU(tokenize="intl", lowercase=True)),
        (Chosen(name="chrf"), CHRF()),
        (Chosen(name="chrf", options={"words": 2}), CHRF(word_order=2)),
        (Chosen(name="ter"), TER()),
    ):
        scorer = scorers.build(chosen)
        ((_, value),) = (await corpus(scorer)).items()
        assert value == metric.corpus_score(SAID, [RIGHT]).score
        assert scorer.metrics[0].signature == str(metric.get_signature())


async def test_rouge_is_rouge_score_s() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    kinds = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    theirs = RougeScorer(kinds, use_stemmer=True)
    pairs = [theirs.score(right, said) for right, said in zip(RIGHT, SAID, strict=True)]
    found = await corpus(scorers.build(Chosen(name="rouge", options={"stem": True})))
    assert found == {kind: sum(each[kind].fmeasure for each in pairs) / len(pairs) for kind in kinds}


@pytest.mark.parametrize(
    ("chosen", "fields", "said", "values"),
    [
        ("exact-match", {"references": ("the Paris",)}, "Paris.", (1.0,)),
        ("exact-match", {"references": ("London", "paris")}, "Paris", (1.0,)),
        ({"exact-match": {"within": True}}, {"references": ("Paris",)}, "It is Paris, of course.", (1.0,)),
        ({"exact-match": {"within": True}}, {"references": ("Paris",)}, "The comparison", (0.0,)),
        ({"exact-match": {"normalize": False}}, {"references": ("paris",)}, "Paris", (0.0,)),
        ("f1", {"references": ("red green blue",)}, "green and blue", (2 / 3,)),
        ({"regex": {"pattern": "\\d+"}}, {}, "it is 42", (1.0,)),
        ({"regex": {"pattern": "(-?[\\d.,]+)"}}, {"references": ("1000",)}, "first 7, then 1,000.0", (1.0,)),
        ({"regex": {"pattern": "(-?[\\d.,]+)", "which": 0}}, {"references": ("1000",)}, "first 7 then 1,000", (0.0,)),
        ("json-answer", {}, '{"a": 1}', (1.0,)),
        ("json-answer", {}, "```json\n{}\n```", (0.0,)),
        ({"json-answer": {"fenced": True}}, {}, "Here:\n```json\n{}\n```", (1.0,)),
        ({"json-answer": {"schema": {"required": ["a"]}}}, {}, '{"a": 1}', (1.0, 1.0)),
        ({"json-answer": {"schema": {"required": ["a"]}}}, {}, '{"b": 1}', (1.0, 0.0)),
        ({"json-answer": {"schema": {"required": ["a"]}}}, {}, "no", (0.0, 0.0)),
    ],
)
async def test_one_answer(chosen: Any, fields: dict[str, Any], said: str, values: tuple[float, ...]) -> None:
    name, options = next(iter(chosen.items())) if isinstance(chosen, dict) else (chosen, {})
    score = await scorers.build(Chosen(name=name, options=options)).score(item(**fields), Answer(text=said))
    assert tuple(value for (value,) in score.values.values()) == pytest.approx(values)


async def test_choices_and_texts_by_likelihood() -> None:
    by = (Likelihood(logprob=-4.0, tokens=1), Likelihood(logprob=-6.0, tokens=3))
    score = await scorers.build(Chosen(name="multiple-choice")).score(
        item(choices=("no", "certainly"), label=1), Answer(likelihoods=by)
    )
    assert score.values == {"acc": (0.0,), "acc_norm": (1.0,)}
    scorer = scorers.build(Chosen(name="perplexity"))
    read = await scorer.score(item(text="one two"), Answer(likelihoods=(Likelihood(logprob=-7.0, tokens=3),)))
    assert combined(scorer, "bits_per_byte", [read]) == pytest.approx(1 / 0.6931471805599453)
    assert combined(scorer, "word_perplexity", [read]) == pytest.approx(33.115451958692)


@pytest.mark.skipif(program.unavailable() is not None, reason=f"no sandbox: {program.unavailable()}")
async def test_code_is_run_with_its_tests() -> None:
    row = {
        "prompt": "import math\ndef root(x):\n    '''The square root.'''\n",
        "test": "def check(f):\n    assert f(9) == 3",
        "entry_point": "root",
    }
    scorer = scorers.build(Chosen(name="code", options={"k": [1, 2]}))
    right = "    return math.sqrt(x)\n"
    samples = (
        right,
        "```python\ndef root(x):\n    return math.sqrt(x)\n```",
        "    return x\n",
        "import os; os._exit(0)",
    )
    score = await scorer.score(item(row=row), Answer(text=right, samples=samples))
    assert score.values["pass@1"] == (0.5,)
    assert score.values["pass@2"][0] == pytest.approx(1 - 1 / 6)
    assert "AssertionError" in score.note
    with pytest.raises(InvalidRequest, match="as many answers"):
        await scorer.score(item(row=row), Answer(text=right))
    anything = "```python\nclass Any:\n def __eq__(self, other): return True\ndef root(x): return Any()\n```"
    for apart, passed in ((True, 0.0), (False, 1.0)):
        scorer = scorers.build(Chosen(name="code", options={"apart": apart}))
        score = await scorer.score(item(row=row), Answer(text=anything))
        assert score.values["pass@1"] == (passed,)


async def test_what_can_not_be_scored_is_an_error_and_no_nought() -> None:
    for name in ("exact-match", "f1", "bleu", "rouge", "multiple-choice", "perplexity"):
        with pytest.raises(DockyardError):
            await scorers.build(Chosen(name=name)).score(item(), Answer(text="x"))
    with pytest.raises(InvalidRequest, match="embeddings"):
        await scorers.build(Chosen(name="similarity", options={"model": "m"})).score(
            item(references=("x",)), Answer(text="x")
        )


def test_names_and_options_are_checked() -> None:
    with pytest.raises(NotFound) as error:
        scorers.build(Chosen(name="exact-mach"))
    assert error.value.hint == "did you mean exact-match?"
    for name, options in (("regex", {}), ("bleu", {"tokenize": "x"}), ("json-answer", {"schema": {"type": "x"}})):
        with pytest.raises(InvalidRequest):
            scorers.build(Chosen(name=name, options=options))


@pytest.mark.parametrize("name", [name for name in scorers.names() if "judge" not in name])
def test_the_contract_of_a_scorer(name: str) -> None:
    made: Any = scorers.kind(name)
    assert made.name == name
    needed: dict[str, Any] = {"regex": {"pattern": "x"}, "similarity": {"model": "m"}}.get(name, {})
    scorer = scorers.build(Chosen(name=name, options=needed))
    assert scorer.needs
    assert all(metric.better in ("higher", "lower") for metric in scorer.metrics)
