"""Models as judges: both orders, ties, nonsense that is counted, panels, and agreement with people."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from evaluate_help import dockyard, scripted, suite

from dockyard.errors import InvalidRequest, ModelNotFound, UnsupportedParameter, UpstreamError
from dockyard.ops.evaluate.calibrate import calibrate, read, summary
from dockyard.scorers import Answer, Chosen, Item, NoMeans, Score, build
from dockyard.types import Json

Says = Callable[[str, str], str]


class Bench(NoMeans):
    """Judges who decide by a rule on what they are shown; ``forms`` False: servers that know no response_format."""

    def __init__(self, says: Says, *, forms: bool = True) -> None:
        self.says, self.forms = says, forms
        self.asked: list[dict[str, Any]] = []

    async def ask(self, model: str, messages: Sequence[Mapping[str, Json]], **fields: Json) -> str:
        if not self.forms and "response_format" in fields:
            raise UnsupportedParameter("no forms here", param="response_format")
        self.asked.append({"model": model, "messages": messages, **fields})
        return self.says(model, str(messages[-1]["content"]))


ITEM = Item(id="1", prompt="What is the capital of France?", references=("Paris.",), row={"old": "London."})


async def _score(name: str, bench: Bench, answer: str = "Paris", **options: Any) -> Score:
    return await build(Chosen(name=name, options={"judges": ["j"], **options}), bench).score(ITEM, Answer(text=answer))


def _longer(_: str, shown: str) -> str:
    """Which of two answers is longer."""
    first, _, second = shown.partition("[Answer B]")
    first = first.partition("[Answer A]")[2]
    return json.dumps({"reason": "length", "verdict": "A" if len(first) > len(second) else "B"})


@pytest.mark.anyio
async def test_a_pair_is_shown_both_ways_round() -> None:
    bench = Bench(_longer)
    long = "It is Paris, which has been so for some centuries now."
    assert (await _score("judge-pair", bench, long)).values["win_rate"] == (1.0,)
    assert (await _score("judge-pair", bench, "?")).values["win_rate"] == (0.0,)
    first, second = (each["messages"][1]["content"] for each in bench.asked[:2])
    assert first.index(long) < first.index("Paris.\n\n[End of answer B]")
    assert second.index(long) > second.index("[Answer B]")
    schema = bench.asked[0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["verdict"] == {"enum": ["A", "B", "tie"]}
    assert bench.asked[0]["temperature"] == 0


@pytest.mark.anyio
async def test_a_judge_that_prefers_a_place_gives_ties_and_is_found_out() -> None:
    score = await _score("judge-pair", Bench(lambda *_: '{"verdict": "A"}'), against="old")
    assert score.values == {"win_rate": (0.5,), "win_rate_consistency": (0.0,), "win_rate_nonsense": (0.0,)}
    assert score.note == "j: win then loss"
    tied = await _score("judge-pair", Bench(lambda *_: '{"verdict": "tie"}'))
    assert (tied.values["win_rate"], tied.values["win_rate_consistency"]) == ((0.5,), (1.0,))


@pytest.mark.anyio
async def test_nonsense_is_counted_and_in_no_mean() -> None:
    score = await _score("judge", Bench(lambda model, _: '{"verdict": 4}' if model == "good" else "Lovely!"),
                         judges=["good", "bad"])  # fmt: skip
    assert score.values == {"judge": (4.0,), "judge_nonsense": (0.5,), "judge_spread": (0.0,)}
    assert "bad: the judge gave no verdict: 'Lovely!'" in score.note
    nothing = await _score("judge", Bench(lambda *_: "7 of 5"))
    assert nothing.values == {"judge_nonsense": (1.0,)}
    pair = await _score("judge-pair", Bench(lambda *_: "A, surely"))
    assert pair.values == {"win_rate_nonsense": (1.0,)}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("said", "value"),
    [
        ('{"reason": "so {or} so", "verdict": 3}', 3),
        ('I think {"verdict": 1}, no: {"verdict": 2}', 2),
        ('```json\n{"verdict": 5.0}\n```', 5),
        ('{"verdict": true}', None),
        ('{"verdict": 6}', None),
        ('{"verdict": "3"}', None),
        ("", None),
    ],
)
async def test_what_counts_as_a_verdict(said: str, value: int | None) -> None:
    score = await _score("judge", Bench(lambda *_: said, forms=False))
    assert score.values.get("judge") == (None if value is None else (float(value),))


@pytest.mark.anyio
async def test_a_judge_that_can_not_be_reached_is_counted_too() -> None:
    def down(*_: str) -> str:
        raise UpstreamError("the judge is down")

    score = await _score("judge", Bench(down))
    assert score.values == {"judge_nonsense": (1.0,)}
    assert "the judge is down" in score.note


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["judge", "judge-pair"])
async def test_a_judge_that_is_not_there_is_no_nonsense(name: str) -> None:
    def nobody(*_: str) -> str:
        raise ModelNotFound("there is no model 'j'")

    with pytest.raises(ModelNotFound):
        await _score(name, Bench(nobody))


@pytest.mark.anyio
async def test_the_reference_is_shown_where_it_is_wanted() -> None:
    bench = Bench(lambda *_: '{"verdict": 5}')
    await _score("judge", bench, samples=3)
    await _score("judge", bench, reference=False)
    assert "[Reference answer]\nParis." in bench.asked[0]["messages"][1]["content"]
    assert "[Reference answer]" not in bench.asked[3]["messages"][1]["content"]
    assert [each["temperature"] for each in bench.asked[:3]] == [0, 0.7, 0.7]
    with pytest.raises(InvalidRequest, match="no answer to compare with in column 'lost'"):
        await _score("judge-pair", bench, against="lost")
    with pytest.raises(InvalidRequest, match="which is nowhere"):
        build(Chosen(name="judge", options={"judges": ["j"], "scale": 1}))
    with pytest.raises(InvalidRequest, match="length >= 1"):
        build(Chosen(name="judge", options={"judges": []}))


LABELS = "# version 1\nquestion,said,one,two\nq,good,1,1\nq,bad,0,0\nq,good too,1,1\nq,odd,0,1\n"


@pytest.mark.anyio
async def test_agreement_with_people(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(LABELS)
    labelled = read(path, answer="said", label="one", prompt="question")
    assert [(each.item.line, each.label) for each in labelled] == [(3, 1), (4, 0), (5, 1), (6, 0)]
    bench = Bench(lambda _, shown: "hm" if "odd" in shown else json.dumps({"verdict": int("good" in shown)}))
    judge = build(Chosen(name="judge", options={"judges": ["j"], "lowest": 0, "scale": 1}), bench)
    found = await calibrate(judge, "judge", labelled)
    assert (found.n, found.nonsense, found.kappa, found.agreement) == (3, 1, 1.0, 1.0)
    assert found.table == {"0,0": 1, "1,1": 2}
    with pytest.raises(InvalidRequest, match="no verdict on any of 4") as caught:
        await calibrate(build(Chosen(name="judge", options={"judges": ["j"]}), Bench(lambda *_: "")), "judge", labelled)
    assert caught.value.hint == "j: the judge gave no verdict: ''"


def test_labels_that_are_wrong_name_their_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(LABELS + "q,,1,1\n")
    with pytest.raises(InvalidRequest, match=r"labels\.csv:7: no 'said'"):
        read(path, answer="said", label="one")
    path.write_text(LABELS.replace("bad,0", "bad,none"))
    with pytest.raises(InvalidRequest, match=r"labels\.csv:4: 'none' is no number"):
        read(path, answer="said", label="one")
    lines = tmp_path / "labels.jsonl"
    lines.write_text('{"said": "x", "one": 1}\n{"said": \n')
    with pytest.raises(InvalidRequest, match=r"labels\.jsonl:2:"):
        read(lines, answer="said", label="one")


def test_labels_beyond_the_scale_are_refused_before_anything_is_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("answer,label\nyes,1\nno,0\n")
    for more, told in (((), "labels.csv:3: the label 0 is not within 1 to 5"), (("--scale", "1"), "which is nowhere")):
        assert dockyard("judge", str(path), "--model", "nobody", *more) == 2
        assert told in capsys.readouterr().err


def test_a_scale_is_weighted() -> None:
    near = summary([(1, 2), (2, 3), (3, 4), (4, 5), (5, 4)] * 6)
    assert near.kappa is not None
    assert near.kappa > 0.5
    assert near.interval is not None
    assert near.interval.low < near.kappa < near.interval.high
    same = summary([(1, 1)] * 5)
    assert (same.kappa, same.interval) == (None, None)


def test_a_suite_asks_judges_about_several_things(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def says(shown: str) -> str:
        if "[Question]" not in shown:
            return "Paris"
        return '{"verdict": "tie"}' if "[Answer A]" in shown else '{"verdict": 3}'

    monkeypatch.setenv("DOCKYARD_HOME", str(tmp_path / "home"))
    options = {"judges": ["j"], "reasons": False}
    scorers = [{"judge": options}, {"judge": {**options, "metric": "harmless"}}, {"judge-pair": options}]
    path = suite(tmp_path / "s", [{"q": "The capital?", "a": "Paris"}], scorers=scorers)
    with scripted(says) as server:
        assert dockyard("eval", "run", path, "some", "--host", server.url, "--json") == 0
    figures = json.loads(capsys.readouterr().out)["runs"][0]["aggregates"]
    assert {each["metric"]["name"]: each["value"] for each in figures} == {
        "judge": 3.0, "judge_nonsense": 0.0, "harmless": 3.0, "harmless_nonsense": 0.0,
        "win_rate": 0.5, "win_rate_consistency": 1.0, "win_rate_nonsense": 0.0,
    }  # fmt: skip
