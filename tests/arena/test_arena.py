"""Arenas through their doors: blind tasks, votes that count once, rankings, agreement, and preference data."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dockyard.api import create_app
from dockyard.cli import call
from dockyard.client import AsyncClient
from dockyard.errors import Conflict, InvalidRequest, NotFound
from dockyard.ops.arena.bradley_terry import Game, rank
from dockyard.ops.arena.export import export
from dockyard.ops.arena.tasks import Matchup, following, left_of, matchups, shown, vote_of
from dockyard.ops.dataset.records import wrong
from dockyard.settings import Settings
from dockyard.state.arenas import Arena, Candidate, Item

ITEMS = [
    {"prompt": f"Question {number}?", "answers": {"good": f"fine {number}", "bad": f"poor {number}"}}
    for number in range(6)
]


def _arena(kind: str = "pairs") -> tuple[Arena, list[Item]]:
    arena = Arena(name="a", kind=kind, question="?", secret="s")  # type: ignore[arg-type]
    items = [
        Item(
            number=number,
            prompt=each["prompt"],  # type: ignore[arg-type]
            candidates=tuple(Candidate(model=model, text=text) for model, text in each["answers"].items()),  # type: ignore[attr-defined]
        )
        for number, each in enumerate(ITEMS)
    ]
    return arena, items


def test_sides_are_drawn_anew_for_each_rater_and_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    arena, _ = _arena()
    matchup = Matchup(0, 0, 1)
    sides = Counter(left_of(arena, matchup, f"r{number}") for number in range(400))
    assert 150 < sides[0] < 250
    assert all(left_of(arena, matchup, "r1") == left_of(arena, matchup, "r1") for _ in range(3))


def test_a_task_tells_nothing_of_models() -> None:
    arena, items = _arena()
    task = following(arena, items, [], "me")
    assert task is not None
    assert "good" not in task.task + task.prompt + task.question
    assert {task.left.partition(" ")[0], str(task.right).partition(" ")[0]} == {"fine", "poor"}


def test_the_least_judged_task_comes_next_and_none_twice() -> None:
    arena, items = _arena()
    votes = []
    for number in range(len(items)):
        for rater in ("one", "two"):
            task = following(arena, items, votes, rater)
            assert task is not None
            assert task.done == number
            votes.append(vote_of(arena, items, rater, task=task.task, says="left"))
    assert following(arena, items, votes, "one") is None
    assert set(Counter(vote.task for vote in votes).values()) == {2}
    same = [Item(number=0, prompt="p", candidates=(Candidate(model="a", text="x"), Candidate(model="b", text="x")))]
    assert matchups(arena, same) == []


def test_what_is_said_of_a_side_is_kept_of_the_answer() -> None:
    arena, items = _arena()
    for number in range(40):
        rater = f"r{number}"
        task = following(arena, items, [], rater)
        assert task is not None
        says = "left" if task.left.startswith("fine") else "right"
        assert vote_of(arena, items, rater, task=task.task, says=says).verdict == "first"
    with pytest.raises(InvalidRequest, match="of a pair one says"):
        vote_of(arena, items, "me", task=matchups(arena, items)[0].id(arena), says=3)
    with pytest.raises(NotFound, match="no task"):
        vote_of(arena, items, "me", task="0" * 16, says="left")
    rating, items = _arena("rating")
    task = shown(rating, items, Matchup(0, 1), "me")
    assert (task.right, task.scale) == (None, 5)
    for says in (0, 6, "left", True):
        with pytest.raises(InvalidRequest, match="from 1 to 5"):
            vote_of(rating, items, "me", task=task.task, says=says)


def test_a_planted_order_is_found_and_who_never_lost_has_a_score() -> None:
    games = [Game(0, 1, float(number % 4 != 0), number) for number in range(80)]
    games += [Game(1, 2, float(number % 4 != 0), 100 + number) for number in range(80)]
    games += [Game(3, 0, 1.0, 200 + number) for number in range(20)]
    found = rank(["b", "c", "d", "a"], games)
    assert [each.name for each in found] == ["a", "b", "c", "d"]
    assert [each.rank for each in found] == [1, 2, 3, 4]
    assert all((each.low or 0) <= each.score <= (each.high or 0) for each in found)
    assert rank(["a", "b"], []) == []


@pytest.mark.parametrize(("units", "last"), [(5, 1), (6, 1), (12, 2)])
def test_few_prompts_rank_nobody_above_another(units: int, last: int) -> None:
    found = rank(["a", "b"], [Game(0, 1, 1.0, unit) for unit in range(units) for _ in range(20)])
    assert [(each.name, each.rank) for each in found] == [("a", 1), ("b", last)]


def test_the_fewer_prompts_the_wider_the_intervals_however_many_votes() -> None:
    widths = []
    for units in (2, 6, 12, 50):
        # Two prompts in three go to the first, by all votes; in every other way of drawing prompts it may be otherwise.
        games = [Game(0, 1, float(unit % 3 != 0), unit) for unit in range(units) for _ in range(200)]
        (first, _) = rank(["a", "b"], games)
        widths.append(None if first.low is None or first.high is None else first.high - first.low)
    assert widths[0] is None
    assert widths[1:] == sorted(each for each in widths if each is not None)[::-1]
    agreed = [Game(0, 1, 1.0, unit) for unit in range(8) for _ in range(200)]
    (first, _) = rank(["a", "b"], agreed)
    assert first.low is not None
    assert first.low < first.score - 50


def test_preference_data_has_consent_and_no_personal_data() -> None:
    arena, items = _arena()
    private = Item(
        number=6,
        prompt="Write to ada@example.org",
        candidates=(Candidate(model="good", text="I wrote to ada@example.org."), Candidate(model="bad", text="No.")),
    )
    items = [*items, private]

    def said(item: int, rater: str, verdict: str, consent: bool) -> Any:
        matchup = Matchup(item, 0, 1)
        left = left_of(arena, matchup, rater)
        says = verdict if verdict == "tie" else "left" if (verdict == "first") == (left == 0) else "right"
        return vote_of(arena, items, rater, task=matchup.id(arena), says=says, consent=consent)

    votes = [
        said(6, "a", "first", True),
        said(6, "b", "first", True),
        said(6, "c", "second", False),
        said(0, "a", "second", False),
        said(1, "a", "tie", True),
    ]
    found = export(arena, items, votes)
    assert (found.used, found.without_consent, found.undecided) == (3, 2, 1)
    (record,) = found.records
    assert record.prompt == "Write to [EMAIL]"
    assert record.chosen == "I wrote to [EMAIL]."
    assert record.support == {"for": 2, "against": 0, "ties": 0}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[AsyncClient]:
    secret = "sesame-open-1"
    app = create_app(Settings(home=str(tmp_path / "home"), api_keys=(f"{secret}:manage", "another-key-2")))
    async with AsyncClient(app=app, api_key=secret) as opened:
        yield opened


BASE = "/api/dockyard/arenas"


@pytest.mark.anyio
async def test_over_http_a_vote_counts_once_and_belongs_to_its_key(client: AsyncClient) -> None:
    made = await client.call("POST", BASE, {"name": "qa", "items": ITEMS})
    assert (made["items"], made["tasks"], made["votes"]) == (6, 6, 0)
    with pytest.raises(Conflict):
        await client.call("POST", BASE, {"name": "qa", "items": ITEMS})
    for rater in ("ann", "bob"):
        while (task := (await client.call("GET", f"{BASE}/qa/next?rater={rater}"))["task"]) is not None:
            says = "left" if task["left"].startswith("fine") else "right"
            body = {"task": task["task"], "says": says, "rater": rater, "consent": True}
            await client.call("POST", f"{BASE}/qa/votes", body)
            with pytest.raises(Conflict):
                await client.call("POST", f"{BASE}/qa/votes", body)
    found = await client.call("GET", f"{BASE}/qa/results")
    assert [each["name"] for each in found["models"]] == ["good", "bad"]
    assert (found["votes"], found["raters"]) == (12, 2)
    assert found.get("alpha") is None  # both said the same throughout: nothing is left to explain
    records = [line async for line in client.lines("GET", f"{BASE}/qa/export")]
    assert {each["chosen"].partition(" ")[0] for each in records} == {"fine"}
    assert (await client.call("DELETE", f"{BASE}/qa/votes?rater=bob"))["removed"] == 6
    assert (await client.call("GET", BASE))["arenas"][0]["votes"] == 6


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": "a/b", "items": ITEMS}, "no name for an arena"),
    ({"name": "a", "items": []}, "1 to 20000 items"),
    ({"name": "a", "items": [{"prompt": "p", "answers": {"a": "x"}}]}, "item 1 has 1 answers"),
    ({"name": "a", "items": [{"prompt": " ", "answers": {"a": "x", "b": "y"}}]}, "item 1 has an empty prompt"),
    ({"name": "a", "kind": "duel", "items": ITEMS}, "duel"),
]


@pytest.mark.anyio
async def test_an_arena_that_is_wrong_says_where(client: AsyncClient) -> None:
    for body, told in WRONG:
        with pytest.raises(InvalidRequest, match=told):
            await client.call("POST", BASE, body)


def test_in_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DOCKYARD_HOME", str(tmp_path / "home"))
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps(each) + "\n" for each in ITEMS))
    assert call(["arena", "create", "qa", "--answers", str(answers)]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("l\nwhat\nr\nt\nq\n"))
    assert call(["arena", "vote", "qa", "--rater", "ann", "--consent"]) == 0
    assert "3 votes kept" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("l\n" * 10))
    assert call(["arena", "vote", "qa", "--rater", "bob", "--limit", "2"]) == 0
    capsys.readouterr()
    assert call(["arena", "results", "qa", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["votes"] == 5
    assert call(["arena", "results", "qa"]) == 0
    assert "5 votes of 2 raters, 1 ties" in capsys.readouterr().out
    out = tmp_path / "preferences.jsonl"
    assert call(["arena", "export", "qa", "--out", str(out)]) == 0
    assert "2 votes without consent" in capsys.readouterr().err
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(records) == 2
    assert all(wrong("preference", record) is None for record in records)
    assert call(["arena", "rate", "qa"]) == 2
    assert "dockyard arena vote qa" in capsys.readouterr().err
    answers.write_text('{"prompt": "p"}\n')
    assert call(["arena", "create", "qb", "--answers", str(answers)]) == 2
    assert "answers.jsonl:1: Object missing required field `answers`" in capsys.readouterr().err
    assert call(["arena", "create", "echoes", "--prompts", str(answers), "--model", "echo", "--kind", "rating"]) == 0
    assert call(["arena", "rm", "echoes"]) == 0
    assert call(["arena", "results", "echoes"]) == 3
