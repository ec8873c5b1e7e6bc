"""Recipes: planned, run, killed and gone on with, judged; and synthetic data, which they may begin with."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_models import COLOURS, NUMBERS
from training_help import fill, lines

from dockyard.artifact.lineage import history
from dockyard.artifact.manifest import read_artifact
from dockyard.artifact.materialize import lay_out
from dockyard.artifact.store import Store
from dockyard.artifact.writers import Parent
from dockyard.cli import call
from dockyard.errors import Cancelled, Conflict, InvalidRequest, ModelNotFound, NotFound
from dockyard.ops import Inputs, execute
from dockyard.ops.data import create
from dockyard.ops.dataset.artifact import open_dataset
from dockyard.ops.recipe import changed, read, shipped
from dockyard.ops.recipe.graph import mermaid
from dockyard.ops.recipe.run import plan, run
from dockyard.ops.synthesize import Synthesize, SynthesizeParams
from dockyard.types import Progress

RECIPE = """
name: small
base: tiny
data:
  q: {from: questions.jsonl, validation: 0.2}
  t: {from: texts.jsonl}
steps:
  - tune: {data: q, method: full, steps: 6, length: 64, threads: 1, checkpoint_every: 1}
    as: first
  - distill: {base: first, teacher: tiny, data: t, steps: 4, length: 64, threads: 1, checkpoint_every: 1}
  - tune: {data: q, steps: 6, length: 64, threads: 1, checkpoint_every: 1, dropout: 0.1}
publish: small:good
"""


def kitchen(folder: Path) -> tuple[Store, Path]:
    """A store with the tiny model, and the recipe beside its files."""
    store = fill(Store(folder / "store"), folder / "made")
    path = folder / "made" / "recipe.yaml"
    path.write_text(RECIPE)
    return store, path


def test_a_recipe_is_planned_run_and_found_again(tmp_path: Path) -> None:
    store, path = kitchen(tmp_path)
    before = plan(store, read(path))
    assert [each.state for each in before] == ["made", "made", "to do", "waits", "waits"] or before[0].state == "to do"
    assert all(each.cost is not None and each.cost.memory > 0 for each in before if not each.step.startswith("data"))
    first = run(store, read(path))
    assert first.published == str(store.named("small:good"))
    assert store.resolve("small:good").digest == first.digest
    again = run(store, read(path))
    assert [each.digest for each in again.steps] == [each.digest for each in first.steps]
    assert all(each.reused for each in again.steps)
    assert {each.state for each in plan(store, read(path))} == {"made"}
    drawn = mermaid(read(path), plan(store, read(path)))
    assert drawn.startswith("graph LR\n")
    for line in ('base(["tiny"])', "d_q -- data --> s1", "s1 -- base --> s2", 's3["tune<br/>made"]', "s3 --> p"):
        assert line in drawn


def test_a_recipe_that_is_killed_goes_on_to_the_same_digests(tmp_path: Path) -> None:
    (store, path), (other, same) = kitchen(tmp_path / "alone"), kitchen(tmp_path / "killed")
    alone = [each.digest for each in run(store, read(path)).steps]
    code = (
        "import sys; from pathlib import Path; from dockyard.artifact.store import Store\n"
        "from dockyard.ops.recipe import read; from dockyard.ops.recipe.run import run\n"
        "run(Store(Path(sys.argv[1])), read(sys.argv[2]), on_progress=lambda news: print(news.message, flush=True))"
    )
    for step in ("step 1-tune", "step 3-tune"):
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(other.root), str(same)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert child.stdout is not None
        for line in child.stdout:
            if line.strip() == step:
                break
        for line in child.stdout:  # somewhere after its first steps
            if line.startswith("step 2/"):
                time.sleep(random.Random(step).uniform(0, 0.2))
                break
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
    assert [each.digest for each in run(Store(other.root), read(same)).steps] == alone


def test_an_adapter_meets_its_base_again(tmp_path: Path) -> None:
    """What the shipped recipe for a domain does: an adapter, merged, and another one over the result."""
    store, path = kitchen(tmp_path)
    steps = """steps:
  - tune: {data: t, steps: 2, length: 64, threads: 1}
  - merge: {}
  - tune: {data: q, steps: 2, length: 64, threads: 1}
"""
    path.write_text(f"{RECIPE.partition('steps:')[0]}{steps}")
    assert [each.state for each in plan(store, read(path))][-3:] == ["to do", "waits", "waits"]
    found = run(store, read(path))
    made = history(store, found.digest)
    assert [each.operation for each in made[:2]] == ["tune", "merge"]
    assert sum(each.operation == "tune" for each in made) == 2
    assert {each.role for each in made} >= {"base", "adapter", "data"}


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("tune: {data: q, method", "tuna: {data: q, method", "no operation 'tuna'"),
        ("steps: 4", "stairs: 4", "step 2 .distill.: .*stairs"),
        ("data: t, steps: 4", "data: none, steps: 4", "neither data of this recipe nor a file"),
        ("data: t, steps: 4", "steps: 4", "needs data"),
        ("tune: {data: q, method: full", "tune: {data: q, base: first, method: full", "a step that comes later"),
        ("{from: texts.jsonl}", "{from: texts.jsonl, limits: 3}", "data 't': .*limits"),
        ("{from: texts.jsonl}", "{validation: 0.1}", "does not say what it is from"),
        ("publish: small:good", "gate: {rules: [{metric: x, min: 1}]}", "a gate needs evaluations"),
        ("name: small", "name: Small One", "name"),
        ("publish: small:good", "base: other", r"line 12: 'base' was said in line 3 already"),
        ("method: full, steps: 6", "method: full, steps: 6, steps: 7", "line 8: 'steps' was said in line 8 already"),
    ],
)
def test_a_wrong_recipe_is_refused_before_work(old: str, new: str, reason: str, shelf: Store, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace(old, new))
    lines(tmp_path / "questions.jsonl", {"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "b"})
    lines(tmp_path / "texts.jsonl", {"text": "what is"})
    before = len(shelf.entries(everything=True))
    with pytest.raises(InvalidRequest, match=reason):
        run(shelf, read(path))
    assert len(shelf.entries(everything=True)) == before


def test_a_step_takes_a_file_beside_the_recipe_as_data(tmp_path: Path) -> None:
    store, path = kitchen(tmp_path)
    step = "- tune: {data: texts.jsonl, steps: 1, length: 64, threads: 1}"
    path.write_text(f"name: small\nbase: tiny\nsteps:\n  {step}\n")
    assert [each.state for each in plan(store, read(path))] == ["to do"]
    made = history(store, run(store, read(path)).digest)
    assert {each.role for each in made} >= {"base", "data"}
    with (path.parent / "texts.jsonl").open("a") as broken:
        broken.write('{"text": 3}\n')
    with pytest.raises(InvalidRequest, match=r"texts\.jsonl:\d+: "):
        plan(store, read(path))


def test_missing_files_and_models_are_named(shelf: Store, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    with pytest.raises(NotFound, match=r"questions\.jsonl"):
        run(shelf, read(path))
    with pytest.raises(ModelNotFound):
        run(shelf, changed(read(path), base="nobody", data={}))
    with pytest.raises(NotFound, match="no recipe"):
        read(tmp_path / "none.yaml")
    with pytest.raises(InvalidRequest, match="no data 'x'"):
        changed(read(path), data={"x": "y"})


def test_shipped_recipes_are_whole() -> None:
    found = shipped()
    assert set(found) == {"style", "domain"}
    for recipe in found.values():
        assert recipe.description
        assert recipe.data


def test_the_verbs(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKYARD_HOME", str(tmp_path))
    _, path = kitchen(tmp_path)
    assert call(["recipe", "plan", str(path)]) == 0
    assert "1-tune" in capsys.readouterr().out
    assert call(["recipe", "run", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["published"].endswith("small:good")
    assert call(["recipe", "ls"]) == 0
    assert call(["recipe", "show", "style"]) == 0
    assert "base: smollm2" in capsys.readouterr().out
    assert call(["recipe", "plan", "style", "--data", "examples"]) == 2
    assert "NAME=FILE" in capsys.readouterr().err


# synthetic data


def writer(answers: Callable[[str], str]) -> Callable[[], Any]:
    """A small chat server that answers by a function."""

    async def app(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        body = json.loads((await receive())["body"])
        text = answers(body["messages"][-1]["content"])
        event = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]}
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        data = f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n".encode()
        await send({"type": "http.response.body", "body": data})

    return lambda: app


class Author:
    """Writes another task each time, with some that must be left out."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, asked: str) -> str:
        self.calls += 1
        if self.calls % 8 == 1:
            return "Task 4: what is the colour of one one"  # a seed again
        if self.calls % 8 == 3:
            return "Write to jane@example.org about it"
        draw = random.Random(self.calls)
        return f"Task: name {' '.join(draw.choices([*COLOURS, *NUMBERS], k=12))} {self.calls}"


def made(store: Store, author: Any, stop: int | None = None, **params: Any) -> Any:
    seeds = params.pop("seeds", "questions")
    held = params.pop("held", None)
    parts = [Parent(digest=store.resolve(seeds).digest, role="seeds")]
    parts += [Parent(digest=store.resolve(held).digest, role="evaluation")] if held else []

    def show(news: Progress) -> None:
        if stop is not None and news.action == "step" and news.current >= stop:
            raise Cancelled("stopped")

    operation = Synthesize(writer(author))
    done = execute(store, operation, Inputs(artifacts=tuple(parts)), SynthesizeParams(**params), on_progress=show)
    digest = done.entry.descriptor.digest
    folder = Path(model_dir(store, digest))
    return open_dataset(store, digest), json.loads((folder / "report.json").read_text())


def model_dir(store: Store, digest: str) -> Path:
    return lay_out(store, read_artifact(store, digest))[0]


@pytest.mark.parametrize("method", ["self-instruct", "evolve", "paraphrase"])
def test_written_data_is_new_and_clean(method: str, shelf: Store) -> None:
    found, report = made(shelf, Author(), method=method, count=12)
    assert len(found.parts["train"]) == report["made"] == 12
    assert len({record["prompt"] for record in found.parts["train"]}) == 12
    assert report["left_out"]
    assert set(report["left_out"]) <= {"repeated", "personal data", "in an evaluation", "no record"}
    assert "example.org" not in str(found.parts)
    assert not any(record["prompt"].lower().startswith("task") for record in found.parts["train"])
    assert 0 < report["fidelity"]["distinct_2"] <= 1
    assert report["privacy"]["copied"] == 0


def test_a_writer_that_is_stopped_goes_on(shelf: Store) -> None:
    author = Author()
    with pytest.raises(Cancelled):
        made(shelf, author, stop=5, method="evolve", count=10, seed=4)
    before = author.calls
    found, report = made(shelf, author, method="evolve", count=10, seed=4)
    assert len(found.parts["train"]) == 10
    assert author.calls - before < 2 * report["attempts"]
    assert report["attempts"] >= 10


def test_questions_on_documents_and_answers_to_prompts(shelf: Store) -> None:
    found, _ = made(shelf, Author(), seeds="texts", method="documents", count=4)
    assert set(found.parts["train"][0]) == {"prompt", "completion"}
    found, _ = made(shelf, lambda asked: f"{asked}: red", seeds="prompts", method="answers", count=50)
    assert [record["completion"] for record in found.parts["train"]] == [f"say {number}: red" for number in NUMBERS]


def test_a_writer_that_repeats_itself_is_given_up(shelf: Store) -> None:
    with pytest.raises(InvalidRequest, match=r"1 of 5 records after 10 attempts; left out: 9 repeated"):
        made(shelf, lambda _: "the same again and again", method="evolve", count=5, attempts=2)
    with pytest.raises(InvalidRequest, match="starts from text records"):
        made(shelf, Author(), method="documents", count=2)


def test_tables_are_alike_and_are_not_copies(shelf: Store, tmp_path: Path) -> None:
    draw = random.Random(2)
    rows = []
    for number in range(400):
        age = draw.gauss(40, 12)
        town = draw.choices(["Bern", "Basel", "Genf"], [5, 3, 1])[0]
        rows.append({"age": round(age), "pay": 1000 + 50 * age + draw.gauss(0, 200), "town": town, "id": f"n{number}"})
    create(shelf, [lines(tmp_path / "t.jsonl", *rows)], reference=shelf.named("people"))
    found, report = made(shelf, None, seeds="people", method="table", count=300)
    assert set(found.parts["train"][0]) == {"age", "pay", "town"}, "names of people are left out"
    assert report["fidelity"]["mean_distance"] < 0.12
    assert report["fidelity"]["correlation_difference"] < 0.15
    assert report["privacy"]["exact_copies"] == 0
    assert 0.35 < report["privacy"]["closer_than_real"] < 0.65
    assert {record["town"] for record in found.parts["train"]} <= {"Bern", "Basel", "Genf"}
    again, _ = made(shelf, None, seeds="people", method="table", count=300)
    assert again.digest == found.digest
    create(shelf, [lines(tmp_path / "s.jsonl", *rows[:5])], reference=shelf.named("few"))
    with pytest.raises(InvalidRequest, match="too few"):
        made(shelf, None, seeds="few", method="table", count=5)


EXAM = 'name: exam\ndata: exam.jsonl\nprompt: "{q}"\nreference: a\nscorers: [f1]\n'
ASKED = "Which berth is kept free for the pilot boat on Sundays?"


@pytest.mark.parametrize("way", ["data", "file", "stored"])
def test_what_the_recipe_evaluates_with_is_not_trained_on(tmp_path: Path, way: str) -> None:
    store, path = kitchen(tmp_path)
    made = path.parent
    records = [{"prompt": f"Who is at berth {n} of the harbour?", "completion": f"Ship {n}."} for n in range(4)]
    lines(made / "talks.jsonl", *records, {"prompt": ASKED, "completion": "Berth nine."})
    lines(made / "exam.jsonl", {"q": ASKED, "a": "nine"}, {"q": "Say 7.", "a": "7"})
    (made / "exam.yaml").write_text(EXAM)
    create(store, [made / "talks.jsonl"], reference=store.named("talks:v1"))
    data = {"data": "t", "file": "talks.jsonl", "stored": "talks:v1"}[way]
    told = {
        "name": "leak",
        "base": "tiny",
        "data": {"t": {"from": "talks.jsonl"}} if way == "data" else {},
        "steps": [{"tune": {"data": data, "steps": 1, "length": 64, "rank": 2, "threads": 1}}],
        "evaluate": ["exam.yaml"],
    }
    path.write_text(json.dumps(told))
    with pytest.raises(Conflict, match="1 of 5 records"):
        run(store, read(path))
    with pytest.raises(ModelNotFound):
        store.resolve("recipes/leak:1-tune")
    if way == "data":
        told["data"] = {"t": {"from": "talks.jsonl", "overlapping": "drop"}}
        path.write_text(json.dumps(told))
        result = run(store, read(path))
        learnt = open_dataset(store, result.steps[0].digest)
        assert ASKED not in str(learnt.parts)
        assert len(learnt.parts["train"]) == 4


def test_a_suite_that_is_nowhere_is_told_before_anything_runs(tmp_path: Path) -> None:
    store, path = kitchen(tmp_path)
    path.write_text(RECIPE + "evaluate: [harbour:exam]\n")
    with pytest.raises(NotFound, match="no suite 'harbour:exam'"):
        run(store, read(path))
    path.write_text(RECIPE + "evaluate: ['tiny:latest']\n")
    with pytest.raises(InvalidRequest, match="tiny:latest is no suite"):
        run(store, read(path))
