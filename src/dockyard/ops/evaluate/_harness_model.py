"""A served model as lm-evaluation-harness wants one; imported only where the harness is installed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from lm_eval.api.model import LM

from dockyard.client import AsyncClient
from dockyard.ops.evaluate import asking
from dockyard.ops.evaluate.suite import Suite

TOGETHER = 4
MOST_TOKENS = 256
T = TypeVar("T")


class Served(LM):  # type: ignore[misc]  # the harness has no types
    """Asks over the public API; token ids come from the server. Its methods run a loop of their own each."""

    def __init__(self, url: str, key: str | None, model: str, prefix: str = "") -> None:
        super().__init__()
        self._url, self._key, self._model = url, key, model
        self._suite = Suite(name="harness", data="", scorers=("perplexity",), delimiter="", prefix=prefix)

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        async def one(served: asking.Served, request: Any) -> tuple[float, bool]:
            context, continuation = request.args
            (found,) = await served.continuations(context, (continuation,))
            return found.logprob, bool(found.greedy)

        return self._all(requests, one)

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        async def one(served: asking.Served, request: Any) -> float:
            return (await served.rolling(request.args[0])).logprob

        return self._all(requests, one)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        async def one(served: asking.Served, request: Any) -> str:
            context, wanted = request.args
            stop = wanted.get("until") or []
            fields = {
                "max_tokens": int(wanted.get("max_gen_toks", MOST_TOKENS)),
                "temperature": float(wanted.get("temperature", 0.0)) if wanted.get("do_sample") else 0.0,
                "stop": [stop] if isinstance(stop, str) else list(stop)[:4],
            }
            text = await served.continued(context, fields)
            for each in [stop] if isinstance(stop, str) else stop:
                text = text.split(each)[0] if each else text
            return text

        return self._all(requests, one)

    def _all(self, requests: Sequence[Any], one: Callable[[asking.Served, Any], Awaitable[T]]) -> list[T]:
        async def walk() -> list[T]:
            places = asyncio.Semaphore(TOGETHER)
            async with AsyncClient(self._url, api_key=self._key) as client:
                served = asking.Served(client, self._model, self._suite)

                async def placed(request: Any) -> T:
                    async with places:
                        return await one(served, request)

                return list(await asyncio.gather(*map(placed, requests)))

        return asyncio.run(walk())
