"""A model that is asked whether a sentence answers: what it decides, and what is said where it can't."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from knowledge_bench import ByRule, Desk

pytest.importorskip("lancedb", reason="the extra `knowledge` is not installed")

from dockyard.api import create_app
from dockyard.cli import call
from dockyard.client import AsyncClient, Client
from dockyard.errors import DockyardError, EngineError, InvalidRequest, ModelNotFound, UnsupportedParameter
from dockyard.knowledge import judge
from dockyard.knowledge.answer import NOT_FOUND, Ask, ask
from dockyard.knowledge.evidence import ASKED, evidence
from dockyard.knowledge.model import Recipe, Search
from dockyard.knowledge.models import ClientModels
from dockyard.knowledge.question_likelihood import gains
from dockyard.knowledge.retrieve import search
from dockyard.settings import Settings, Upstream
from dockyard.types import Message

BERTH = "Which berth is kept free for the lifeboat?"
ONE_FILE = Path(__file__).parents[2] / ".venv" / "bench-models" / "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"
"""The judge that the benchmark puts together."""


def test_odds_are_of_all_spellings_and_what_is_not_listed_is_unlikely() -> None:
    first = {"Yes": math.log(0.5), " yes": math.log(0.1), "No": math.log(0.2), "Maybe": math.log(0.05)}
    assert judge.compared(first) == pytest.approx(math.log(0.6 / 0.2))
    assert judge.compared({"No": math.log(0.9), "Hm": math.log(0.04)}) == pytest.approx(math.log(0.04 / 0.9))
    assert judge.compared({"Yes": math.log(0.7)}) == pytest.approx(math.log(0.7 / 0.3))
    assert judge.compared({"Yes": 0.0}) == judge.SURE
    assert judge.compared({"<think>": -0.1, "The": -3.0}) is None


def test_what_is_the_same_comes_first() -> None:
    """So that an engine that keeps the beginning of a prompt reads a sentence's own words only."""
    one, other = (judge.messages(BERTH, text) for text in ("Rules: Berth 7 is free.", "Rules: The crane lifts 3 tons."))
    assert one[:-1] == other[:-1]
    assert str(one[-1].content).startswith(f"Question: {BERTH}\nSentence: Rules: Berth 7")
    assert len(str(judge.messages("q" * 5000, "s" * 5000)[-1].content)) < 2200


@pytest.mark.anyio
async def test_a_judge_declines_what_words_alone_would_answer(desk: Desk) -> None:
    assert (await ask([desk.base], desk.models, BERTH, Ask())).found
    desk.models.answers = "nothing of the kind"
    found = await ask([desk.base], desk.models, BERTH, Ask(judge="strict"))
    assert (found.found, found.text) == (False, NOT_FOUND)
    assert len(desk.models.judged) == ASKED
    assert desk.models.judged[0] == "Berths: Berth 7 is kept free for the lifeboat Halcyon."


@pytest.mark.anyio
async def test_a_judge_picks_among_the_best(desk: Desk) -> None:
    """The words are those of the first sentence, and the second answers."""
    question = "Does whoever runs an engine in the inner basin pay a fine?"
    desk.models.answers = "nothing of the kind"
    await ask([desk.base], desk.models, question, Ask(judge="strict"))
    first, second = desk.models.judged
    for wanted in (first, second):
        desk.models.answers = wanted
        found = await ask([desk.base], desk.models, question, Ask(judge="strict"))
        assert (found.found, found.citations[0].quote) == (True, wanted.rpartition(": ")[2])


class Doubtful(ByRule):
    """Says Yes and No alike, and finds the question likelier after sentences that hold ``expected``."""

    expected = ""
    scores = True

    async def first(self, model: str, messages: Sequence[Message], count: int) -> dict[str, float]:
        await super().first(model, messages, count)
        return {"Yes": -0.7, "No": -0.7}

    async def likelihood(self, model: str, before: str, text: str) -> list[float]:
        if not self.scores:
            raise UnsupportedParameter("it scores no prompts", param="prompt_logprobs")
        assert (text[0], text[-2:]) == (" ", "?\n")
        sentence = before.rpartition("Sentence: ")[2]
        return [-0.5, -1.5] if self.expected in sentence else [-5.0, -6.0]


@pytest.mark.anyio
async def test_in_doubt_the_question_itself_tells(desk: Desk) -> None:
    """Of the two sentences the one after which the question is likelier is cited, whichever it is; if it is so after
    neither, none. An engine that scores no prompts leaves it at what the judge said."""
    models = Doubtful(desk.models._client)
    question = "Does whoever runs an engine in the inner basin pay a fine?"
    models.expected = "nothing of the kind"
    assert not (await ask([desk.base], models, question, Ask(judge="strict"))).found
    for wanted in dict.fromkeys(models.judged):
        models.expected = wanted.rpartition(": ")[2]
        found = await ask([desk.base], models, question, Ask(judge="strict"))
        assert (found.found, found.citations[0].quote) == (True, models.expected)
    models.expected, models.scores = "nothing of the kind", False
    assert (await ask([desk.base], models, question, Ask(judge="strict"))).found


@pytest.mark.anyio
async def test_where_the_judge_is_sure_nothing_is_scored(desk: Desk) -> None:
    desk.models.answers = "Berth 7"  # ``likelihood`` would ask for the model "strict", which there is not
    assert (await ask([desk.base], desk.models, BERTH, Ask(judge="strict"))).found


SENTENCES = ["The crane lifts 3 tons.", "For the lifeboat a berth is kept free."]


@pytest.mark.anyio
async def test_a_question_is_likelier_after_words_that_it_has(tmp_path: Path) -> None:
    """``echo`` expects words that came before. Over HTTP and within the process the figures are the same."""
    from dockyard.artifact.store import Store
    from dockyard.fleet import Fleet
    from dockyard.gateway._fleet_models import FleetModels

    settings = Settings(home=str(tmp_path / "home"), log_level="error")
    async with AsyncClient(app=create_app(settings, trusted=True)) as client:
        told = await gains(ClientModels(client), "echo", BERTH, SENTENCES)
    assert told is not None
    assert abs(told[0]) < told[1]
    fleet = Fleet(settings, Store(settings.home_path / "store"))
    await fleet.start()
    try:
        assert await gains(FleetModels(fleet), "echo", BERTH, SENTENCES) == pytest.approx(told)
    finally:
        await fleet.close()


class Mute(ClientModels):
    """Its engine has scores of nothing."""

    async def likelihood(self, model: str, before: str, text: str) -> list[float]:
        return []


@pytest.mark.anyio
async def test_what_scores_no_prompts_says_nothing(tmp_path: Path) -> None:
    far = {"far": Upstream(base_url="http://127.0.0.1:9/v1", models=("m",))}
    settings = Settings(home=str(tmp_path), log_level="error", upstreams=far)
    async with AsyncClient(app=create_app(settings, trusted=True)) as client:
        assert await gains(Mute(client), "echo", BERTH, SENTENCES) is None
        assert await gains(ClientModels(client), "far/m", BERTH, SENTENCES) is None  # another server's model
        with pytest.raises(ModelNotFound):
            await gains(ClientModels(client), "nobody", BERTH, SENTENCES)


class Wordless(ClientModels):
    """Its engine lists no tokens."""

    async def first(self, model: str, messages: Sequence[Message], count: int) -> dict[str, float]:
        return {}


class Plain(ClientModels):
    """Its engine refuses to list any, as OpenVINO's does."""

    async def first(self, model: str, messages: Sequence[Message], count: int) -> dict[str, float]:
        raise UnsupportedParameter("OpenVINO GenAI tells the chosen token only", param="top_logprobs")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("models", "name", "kind", "told"),
    [
        (ClientModels, "nobody", ModelNotFound, "the judge: "),
        (ClientModels, "echo", EngineError, "'echo' can't judge: asked for Yes or No, it says neither"),
        (Wordless, "echo", UnsupportedParameter, "'echo' can't judge: its engine tells no probabilities"),
        (Plain, "echo", UnsupportedParameter, "'echo' can't judge: OpenVINO GenAI tells"),
    ],
)
async def test_what_cannot_judge_says_so(
    models: type[ClientModels], name: str, kind: type[DockyardError], told: str, tmp_path: Path
) -> None:
    settings = Settings(home=str(tmp_path / "home"), log_level="error")
    async with AsyncClient(app=create_app(settings, trusted=True)) as client:
        with pytest.raises(kind) as said:
            await judge.odds(models(client), name, BERTH, ["Berth 7 is free."])
        assert said.value.message.startswith(told)
        assert said.value.param == "judge"
        assert said.value.hint


@pytest.mark.anyio
async def test_without_a_reranker_there_is_nothing_to_judge(desk: Desk) -> None:
    hits = (await search(desk.base, desk.models, BERTH, Search())).hits
    plain = Recipe(name="harbour", embedder="echo", dimension=8)
    with pytest.raises(InvalidRequest, match="'harbour' has no reranker"):
        await evidence(hits, desk.models, plain, BERTH, "strict")


def test_a_judge_for_questions_that_are_not_asked_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "Why?", "documents": []}\n')
    assert call(["knowledge", "eval", "x", "--questions", str(tmp_path / "q.jsonl"), "--judge", "strict"]) == 2
    assert "add --answers" in capsys.readouterr().err


STACK = """
knowledge:
  rules: {index: judged-harbour}
routes:
  strict: {model: echo, knowledge: rules, judge: echo}
  kept: {model: echo, knowledge: rules, judge: smollm2}
"""


@pytest.fixture(scope="module")
def served(knowledge_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from knowledge_samples import documents_in
    from serving import serving

    folder = tmp_path_factory.mktemp("judge")
    documents_in(folder / "docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKYARD_HOME", str(knowledge_store))
        patch.setenv("DOCKYARD_CONFIG", str(folder / "no.yaml"))
        assert call(["knowledge", "create", "judged-harbour"]) == 0
        assert call(["knowledge", "add", "judged-harbour", str(folder / "docs")]) == 0
    (folder / "dockyard.yaml").write_text(STACK)
    with serving(knowledge_store, log_level="warning", stack=str(folder / "dockyard.yaml")) as found:
        yield found


@pytest.mark.model
@pytest.mark.timeout(300)
def test_a_route_asks_its_judge(served: Any) -> None:
    """``echo`` can't judge, and says so; the starter model can, whatever it thinks."""
    with Client(served.url) as client:
        with pytest.raises(DockyardError, match="'echo' can't judge"):
            list(client.chat("strict", BERTH))
        said = "".join(chunk.text for chunk in client.chat("kept", BERTH))
        assert said.endswith("[1]") or said == NOT_FOUND


@pytest.mark.model
@pytest.mark.timeout(900)
@pytest.mark.anyio
async def test_a_real_judge_tells_what_answers(tmp_path: Path) -> None:
    if not ONE_FILE.exists():
        pytest.skip("the judge is not here: `make bars NAME=knowledge ARGS=judged` puts it together (1.1 GB)")
    from dockyard.artifact.reference import parse
    from dockyard.artifact.store import Store
    from dockyard.ops.pack import Sources, package

    home = tmp_path / "home"
    package(Store(home / "store"), Sources(weights=(ONE_FILE,)), reference=parse("ai/judge:latest"), link=True)
    asked = "What does a boat of fifteen metres pay?"
    told = "A boat longer than twelve metres pays 45 crowns a night."
    others = ["Whoever runs an engine at night pays a fine of 150 crowns.", "Berth 7 is kept free for the lifeboat."]
    async with AsyncClient(app=create_app(Settings(home=str(home), log_level="error"), trusted=True)) as client:
        right, *wrong = await judge.odds(ClientModels(client), "judge", asked, [told, *others])
        likelier, *others_likelier = await gains(ClientModels(client), "judge", asked, [told, *others]) or [0.0]
    assert right > 0 > max(wrong)
    assert likelier > 2.5 > max(others_likelier)
