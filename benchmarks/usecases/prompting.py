"""What ways of asking are worth: one question set, one model, many prompts; and what the optimiser finds.

The question: is a sentence about food, sport or weather? Sentences are made of 3 frames and 12 subjects a class; the
frame of the examples is not among those that are asked. Wilson intervals of 95 %.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Iterator
from typing import Any

from benchmarks._bars import Row
from benchmarks.usecases._home import warm
from dockyard.api import create_app
from dockyard.client import AsyncClient
from dockyard.prompt.model import Example, Prompt, Select
from dockyard.prompt.optimize import Budget, Result, optimize
from dockyard.prompt.optimize import Row as Question
from dockyard.prompt.trial import Asker, judged
from dockyard.scorers import Chosen, Item, build
from dockyard.settings import Settings
from dockyard.stack import Parameters

SUBJECTS = {
    "food": ("soup", "bread", "the cheese", "an apple pie", "fried rice", "the salad", "a sandwich", "noodles",
             "the stew", "pancakes", "the curry", "grilled fish"),
    "sport": ("the football match", "a tennis game", "the marathon", "a swimming race", "the goalkeeper", "the referee",
              "a boxing fight", "the relay team", "the striker", "a hockey final", "the sprinter", "the coach"),
    "weather": ("the rain", "a snow storm", "the fog", "strong wind", "the heat", "a thunderstorm", "the frost",
                "sunshine", "the clouds", "a hail shower", "the breeze", "the drizzle"),
}  # fmt: skip
FRAMES = ("Everybody talked about {}.", "My uncle still remembers {} from last year.", "We were surprised by {} today.")
SHOWN = "They told us about {}."
PARAMETERS = Parameters(temperature=0, max_tokens=8)
QUESTION = "Sentence: {{ input }}\nTopic:"


def questions() -> list[Question]:
    """108 of them, in an order that mixes classes."""
    return [
        Question(input=frame.format(subject), references=(topic,))
        for frame, place in itertools.product(FRAMES, range(12))
        for topic, subjects in SUBJECTS.items()
        for subject in (subjects[place],)
    ]


def examples(count: int) -> tuple[Example, ...]:
    """Examples of each class in turn, in a frame that is not asked."""
    found = [
        Example(input=SHOWN.format(subjects[place]), output=topic, reasoning=f"{subjects[place]} is a kind of {topic}.")
        for place in range(12)
        for topic, subjects in SUBJECTS.items()
    ]
    return tuple(found[:count])


TASK = "Say whether the sentence is about food, sport or weather. Answer with one word: food, sport or weather."
PROMPTS = {
    "zero-shot, the bare question": Prompt(
        template="{{ input }} Is this about food, sport or weather?", parameters=PARAMETERS
    ),
    "system prompt with the task": Prompt(task=TASK, template=QUESTION, parameters=PARAMETERS),
    "… and a persona": Prompt(persona="You are a careful librarian.", task=TASK, template=QUESTION,
                              parameters=PARAMETERS),
    "… and the answer bound to a schema": Prompt(
        task=TASK, template=QUESTION, parameters=PARAMETERS, schema={"type": "string", "enum": [*SUBJECTS]}
    ),
    "few-shot, 3 fixed examples": Prompt(task=TASK, template=QUESTION, parameters=PARAMETERS, examples=examples(3)),
    "few-shot, 6 fixed examples": Prompt(task=TASK, template=QUESTION, parameters=PARAMETERS, examples=examples(6)),
    "few-shot, 4 nearest of 24 by words": Prompt(
        task=TASK, template=QUESTION, parameters=PARAMETERS, examples=examples(24), select=Select(count=4, by="words")
    ),
    "chain of thought, 3 examples": Prompt(
        task=TASK, template=QUESTION, parameters=Parameters(temperature=0, max_tokens=48), examples=examples(3),
        reasoning="steps",
    ),
    "… and the majority of 5 samples": Prompt(
        task=TASK, template=QUESTION, parameters=Parameters(temperature=0.7, seed=1, max_tokens=48),
        examples=examples(3), reasoning="steps", samples=5,
    ),
}  # fmt: skip
SCORER = Chosen(name="exact-match", options={"normalize": True})


def rows() -> Iterator[Row]:
    for name, right, asked, tokens in asyncio.run(_measured()):
        low, high = wilson(right, asked)
        told = f"{right / asked:.1%} ({low:.0%} to {high:.0%}), {tokens:.0f} tokens a question"
        yield Row(name, told, "said, not barred", None)


def optimizer_rows() -> Iterator[Row]:
    result = asyncio.run(_optimized())
    told = result.held_out
    figures = f"{told.before:.1%} to {told.after:.1%}, difference {told.difference:+.1%} ({told.low:+.1%} to "
    figures += f"{told.high:+.1%}) on {told.asked} held-out questions, {result.requests} requests; won: {result.name}"
    yield Row("optimiser, from the plain task", figures, "said, not barred", None)


async def _measured() -> list[tuple[str, int, int, float]]:
    found = []
    async for asker in _askers():
        scorer = build(SCORER, asker.means)
        for name, prompt in PROMPTS.items():
            right, tokens, asked = 0, 0, questions()
            for one in asked:
                answer = await asker.ask(prompt, one.input)
                if prompt.schema is not None:
                    answer = _unquoted(answer)
                values = await judged(scorer, Item(id=one.input, references=one.references), answer)
                right += next(iter(values.values())) >= 1.0
                tokens += answer.prompt_tokens + answer.tokens
            found.append((name, right, len(asked), tokens / len(asked)))
            print(f"       {name}: {right} of {len(asked)}", flush=True)
    return found


async def _optimized() -> Result:
    async for asker in _askers():
        return await optimize(
            asker,
            PROMPTS["system prompt with the task"],
            questions(),
            SCORER,
            budget=Budget(requests=300, examples=6, sets=4),
            instructions=("Topic of the sentence: food, sport or weather?", "Classify the sentence. One word only."),
            on_note=lambda text: print(f"       {text}", flush=True),
        )
    raise AssertionError("no model")


async def _askers() -> Any:
    with warm() as home:
        settings = Settings(home=str(home), offline=True, log_level="error")
        async with AsyncClient(app=create_app(settings, trusted=True)) as client:
            yield Asker(client, "smollm2")


def _unquoted(answer: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(answer, text=answer.text.strip().strip('"'))


def wilson(right: int, asked: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson, 1927)."""
    z, share = 1.96, right / asked
    middle = (share + z * z / (2 * asked)) / (1 + z * z / asked)
    half = z * math.sqrt(share * (1 - share) / asked + z * z / (4 * asked * asked)) / (1 + z * z / asked)
    return max(0.0, middle - half), min(1.0, middle + half)
