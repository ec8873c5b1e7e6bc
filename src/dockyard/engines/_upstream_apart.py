"""Streams of libraries that block where they claim not to, read in a thread of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

Item = TypeVar("Item")


async def apart(begin: Callable[[], Awaitable[AsyncIterator[Item]]]) -> AsyncGenerator[Item, None]:
    """What ``begin`` streams, begun and read in another thread with an event loop of its own.

    Closed early, it returns at once; the thread hangs up when its library next gives it a word, or gives up waiting.
    """
    loop, found = asyncio.get_running_loop(), asyncio.Queue[Callable[[], Item]]()
    gone = threading.Event()

    def tell(outcome: Callable[[], Item]) -> None:
        if not gone.is_set():
            try:
                loop.call_soon_threadsafe(found.put_nowait, outcome)
            except RuntimeError:  # the loop ended meanwhile, and nobody waits
                gone.set()

    async def read() -> None:
        async with aclosing(_closable(await begin())) as stream:
            async for item in stream:
                tell(partial(_given, item))
                if gone.is_set():
                    return

    def work() -> None:
        try:
            asyncio.run(read())
        except BaseException as error:  # noqa: BLE001 - whatever it is, the caller's side is where it is judged
            tell(_raising(error))
        else:
            tell(_raising(StopAsyncIteration()))

    threading.Thread(target=work, name="upstream", daemon=True).start()
    try:
        while True:
            outcome = await found.get()
            try:
                item = outcome()
            except StopAsyncIteration:
                return
            yield item
    finally:
        gone.set()


def _given(item: Item) -> Item:
    return item


def _raising(error: BaseException) -> Callable[[], Any]:
    def outcome() -> Any:
        raise error

    return outcome


async def _closable(stream: AsyncIterator[Item]) -> AsyncGenerator[Item, None]:
    async for item in stream:
        yield item
