"""Asking a model with a prompt that need not be in any library, and the tests that stand beside a prompt.

Everything goes over the API's client, so what is tested is what is served.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from dockyard.client import AsyncClient
from dockyard.errors import DockyardError, InvalidRequest
from dockyard.prompt import answers
from dockyard.prompt.examples import Chooser
from dockyard.prompt.model import Prompt, Test
from dockyard.prompt.render import request_of
from dockyard.scorers import Answer, Chosen, Item, Scorer, build
from dockyard.types import Chunk, Json, Message, Request, Sampling


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of one test: the answer, each metric's value, and why it did not pass."""

    name: str
    passed: bool
    answer: str = ""
    reasoning: str = ""
    values: dict[str, float] = {}
    failed: str = ""
    seconds: float = 0.0


class Served:
    """What scorers may use beside the answer, over a client."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def embed(self, model: str, texts: Sequence[str]) -> list[list[float]]:
        told = await self._client.call("POST", "/v1/embeddings", {"model": model, "input": list(texts)})
        return [one["embedding"] for one in told["data"]]

    async def ask(self, model: str, messages: Sequence[Mapping[str, Json]], **fields: Json) -> str:
        async with aclosing(self._client.chat(model, list(messages), **fields)) as chunks:
            return "".join([chunk.text async for chunk in chunks])


class Asker:
    """Asks one model through one client. ``fields`` go over the sampling that the prompt says."""

    def __init__(self, client: AsyncClient, model: str, **fields: Json) -> None:
        self.means = Served(client)
        self._client = client
        self._model = model
        self._fields = fields
        self._chooser = Chooser(self.means.embed)

    async def ask(self, prompt: Prompt, said: str, variables: dict[str, Json] | None = None) -> Answer:
        """The answer, decided among the samples, without its reasoning. Raises what the server answers."""
        if not self._model and not prompt.model:
            raise InvalidRequest("no model is named", param="model", hint="give one, or name it in the prompt")
        examples = await self._chooser.chosen(prompt, said)
        # What only tokens of this process could tell apart is the same text to the server: the cache may answer.
        bare = Request(id="trial", messages=(Message(role="user", content=said),), sampling=Sampling())
        request = request_of(prompt, bare, variables or {}, examples)
        fields = {**_wire(request.sampling), **request.extra, **self._fields}
        begun = time.monotonic()
        texts, thoughts, finish, tokens, asked = [""] * request.sampling.n, [""] * request.sampling.n, "stop", 0, 0
        async with aclosing(self._chat(prompt, request, fields)) as chunks:
            async for chunk in chunks:
                texts[chunk.index] += chunk.text
                thoughts[chunk.index] += chunk.reasoning
                finish = chunk.finish or finish
                if chunk.usage is not None:
                    tokens, asked = chunk.usage.completion_tokens, chunk.usage.prompt_tokens
        if prompt.reasoning == "steps":
            split = answers.split if prompt.schema is None else answers.unwrapped
            for place, text in enumerate(texts):
                thoughts[place], texts[place] = split(text)
        best = answers.majority(texts)
        return Answer(
            text=texts[best],
            samples=tuple(texts) if len(texts) > 1 else (),
            reasoning=thoughts[best],
            finish=finish,
            prompt_tokens=asked,
            tokens=tokens,
            seconds=time.monotonic() - begun,
        )

    async def _chat(self, prompt: Prompt, request: Request, fields: dict[str, Json]) -> AsyncGenerator[Chunk, None]:
        turns = [msgspec.to_builtins(one) for one in request.messages or ()]
        async with aclosing(self._client.chat(self._model or prompt.model, turns, **fields)) as chunks:
            async for chunk in chunks:
                yield chunk


async def judged(scorer: Scorer, item: Item, answer: Answer) -> dict[str, float]:
    """The value of each metric for one answer. Raises DockyardError where it can't be judged."""
    score = await scorer.score(item, answer)
    return {name: scorer.combine(name, sums, 1) for name, sums in score.values.items()}


async def run(asker: Asker, prompt: Prompt, *, on_outcome: Callable[[Outcome], None] | None = None) -> list[Outcome]:
    """All tests of a prompt, one after the other. A test that can't be run or judged has failed, and says why.

    Raises InvalidRequest where there are no tests, and NotFound for an unknown scorer.
    """
    if not prompt.tests:
        raise InvalidRequest("the prompt has no tests", param="tests", hint="add some under `tests:`")
    scorers = {id(test): [_built(chosen, asker) for chosen in test.scorers] for test in prompt.tests}
    found = []
    for number, test in enumerate(prompt.tests, 1):
        outcome = await _one(asker, prompt, test, test.name or f"test {number}", scorers[id(test)])
        found.append(outcome)
        if on_outcome is not None:
            on_outcome(outcome)
    return found


def _built(chosen: Chosen, asker: Asker) -> Scorer:
    return build(chosen, asker.means)


async def _one(asker: Asker, prompt: Prompt, test: Test, name: str, scorers: list[Scorer]) -> Outcome:
    answer, values, wrong = Answer(), {}, []
    try:
        answer = await asker.ask(prompt, test.input, test.variables)
        item = Item(id=name, prompt=test.input, references=test.references)
        for scorer in scorers:
            for metric, value in (await judged(scorer, item, answer)).items():
                values[metric] = value
                better = next((one.better for one in scorer.metrics if one.name == metric), "higher")
                if value < test.least if better == "higher" else value > test.least:
                    wrong.append(f"{metric} is {value:.3g}")
    except DockyardError as error:
        wrong.append(error.message)
    return Outcome(
        name=name,
        passed=not wrong,
        answer=answer.text,
        reasoning=answer.reasoning,
        values=values,
        failed="; ".join(wrong),
        seconds=answer.seconds,
    )


def _wire(sampling: Sampling) -> dict[str, Any]:
    """Sampling as the fields of a chat request."""
    found: dict[str, Any] = msgspec.to_builtins(sampling)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
