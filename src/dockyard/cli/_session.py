"""A conversation in a terminal: what was said, the commands that steer it, and how an answer is shown."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dockyard.cli._output import note, show_json
from dockyard.errors import Cancelled, DockyardError, InvalidRequest
from dockyard.types import Usage

if TYPE_CHECKING:
    from dockyard.client import AsyncClient
    from dockyard.settings import Settings

SAMPLING: dict[str, Callable[[str], Any]] = {
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "min_p": float,
    "max_tokens": int,
    "seed": int,
    "presence_penalty": float,
    "frequency_penalty": float,
    "repetition_penalty": float,
}


@dataclass
class Answer:
    """What came back for one question. Times are seconds since the question was sent."""

    text: str = ""
    reasoning: str = ""
    finish: str | None = None
    usage: Usage = field(default_factory=Usage)
    ttft: float | None = None
    seconds: float = 0.0

    @property
    def speed(self) -> float | None:
        """Tokens a second after the first one came (1 / TPOT)."""
        if self.ttft is None or self.usage.completion_tokens < 2 or self.seconds <= self.ttft:
            return None
        return (self.usage.completion_tokens - 1) / (self.seconds - self.ttft)

    def line(self) -> str:
        """The figures of ``--stats``."""
        usage = self.usage
        cached = f" ({usage.cached_tokens} cached)" if usage.cached_tokens else ""
        parts = [f"{usage.prompt_tokens} tokens in{cached}", f"{usage.completion_tokens} out"]
        if self.ttft is not None:
            parts.append(f"first after {self.ttft * 1000:.0f} ms")
        if self.speed is not None:
            parts.append(f"{self.speed:.1f} tokens/s")
        return ", ".join([*parts, f"{self.seconds:.2f} s in all"])


@dataclass
class Session:
    """The turns so far and how the next answer is to be drawn."""

    model: str
    system: str | None = None
    sampling: dict[str, Any] = field(default_factory=dict)
    turns: list[dict[str, Any]] = field(default_factory=list)
    last: Answer | None = None

    async def ask(self, client: AsyncClient, text: str, show: Callable[[str, bool], None]) -> Answer:
        """Send ``text`` after the turns so far; ``show(piece, reasoning)`` gets each piece as it arrives.

        The turn is kept when the answer is whole. When it is cancelled, what came until then is kept as the answer,
        so that "go on" makes sense.
        """
        question = {"role": "user", "content": text}
        system = [{"role": "system", "content": self.system}] if self.system else []
        answer, begun = Answer(), time.monotonic()
        self.last = answer
        try:
            async with aclosing(client.chat(self.model, [*system, *self.turns, question], **self.sampling)) as chunks:
                async for chunk in chunks:
                    if answer.ttft is None and (chunk.text or chunk.reasoning):
                        answer.ttft = time.monotonic() - begun
                    answer.text += chunk.text
                    answer.reasoning += chunk.reasoning
                    answer.finish = chunk.finish or answer.finish
                    answer.usage = chunk.usage or answer.usage
                    if chunk.reasoning:
                        show(chunk.reasoning, True)
                    if chunk.text:
                        show(chunk.text, False)
        finally:
            answer.seconds = time.monotonic() - begun
            if answer.text:
                self.turns += [question, {"role": "assistant", "content": answer.text}]
        return answer

    def command(self, line: str) -> str | None:
        """Do what a line such as ``/set temperature 0`` says and return what to print; None means goodbye."""
        name, _, rest = line[1:].partition(" ")
        rest = rest.strip()
        match name:
            case "bye" | "exit" | "quit":
                return None
            case "help" | "?":
                return HELP
            case "clear":
                self.turns.clear()
                return "The conversation starts anew."
            case "stats":
                return self.last.line() if self.last else "There is no answer yet."
            case "system":
                if rest:
                    self.system = None if rest == "none" else rest
                return f"System prompt: {self.system or 'none'}"
            case "set":
                return self._set(rest)
        raise InvalidRequest(f"there is no command /{name}", hint="/help lists them")

    def _set(self, rest: str) -> str:
        name, _, value = rest.partition(" ")
        if name and name not in SAMPLING:
            raise InvalidRequest(f"can't set {name!r}", hint=f"one of: {', '.join(SAMPLING)}")
        if name and value.strip() in ("", "default"):
            self.sampling.pop(name, None)
        elif name:
            try:
                self.sampling[name] = SAMPLING[name](value)
            except ValueError as error:
                raise InvalidRequest(f"{name} is a number, not {value!r}") from error
        chosen = [f"{n} {v}" for n, v in self.sampling.items()]
        return "Set: " + (", ".join(chosen) if chosen else "nothing; the model's defaults hold")


HELP = f'''\
/bye                leave (also Ctrl-D)
/clear              forget the conversation
/system [TEXT]      show or change the system prompt; `none` removes it
/set [NAME VALUE]   show or change sampling: {", ".join(list(SAMPLING)[:6])} …
/stats              figures of the last answer
"""                 begins and ends a text of several lines; Alt-Enter makes a new line anywhere
Ctrl-C              stops the answer, not the conversation'''


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the running task in order, so that workers are stopped and not left behind."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    signals = (signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        loop.add_signal_handler(number, task.cancel)
    try:
        yield
    except asyncio.CancelledError as error:
        raise Cancelled("stopped") from error
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


async def answer_once(session: Session, client: AsyncClient, text: str, *, as_json: bool, stats: bool) -> int:
    """Ask one question; the answer goes to stdout as it comes, or whole as JSON."""
    if not text.strip():
        raise InvalidRequest("the prompt is empty", hint='give one: dockyard run MODEL "your question"')
    answer = await session.ask(client, text, _silent if as_json else _show)
    if as_json:
        show_json(
            {
                "model": session.model,
                "text": answer.text,
                **({"reasoning": answer.reasoning} if answer.reasoning else {}),
                "finish": answer.finish,
                "usage": {
                    "prompt_tokens": answer.usage.prompt_tokens,
                    "completion_tokens": answer.usage.completion_tokens,
                    "cached_tokens": answer.usage.cached_tokens,
                },
                "ttft_seconds": answer.ttft,
                "seconds": answer.seconds,
                "tokens_per_second": answer.speed,
            }
        )
        return 0
    print(flush=True)
    _afterwards(answer, stats=stats)
    return 0


async def converse(session: Session, client: AsyncClient, settings: Settings, *, stats: bool) -> int:
    """Questions and answers until /bye or the end of input."""
    from dockyard.cli._prompt import reader

    read = reader(settings.home_path / "history")
    note(f"Talking with {session.model}. /help lists commands, /bye leaves.")
    while True:
        try:
            line = (await read()).strip()
        except EOFError:
            return 0
        except KeyboardInterrupt:
            note("/bye or Ctrl-D leaves.")
            continue
        try:
            if line.startswith("/") and not line.startswith("//"):
                reply = session.command(line)
                if reply is None:
                    return 0
                note(reply)
            elif text := line.removeprefix('"""').removesuffix('"""').strip():
                await _ask_interruptibly(session, client, text, stats=stats)
        except DockyardError as error:
            from dockyard.cli._failure import report

            report(error)


async def _ask_interruptibly(session: Session, client: AsyncClient, text: str, *, stats: bool) -> None:
    """One turn that Ctrl-C ends early without ending the conversation."""
    loop = asyncio.get_running_loop()
    asking = asyncio.create_task(session.ask(client, text, _show))
    loop.add_signal_handler(signal.SIGINT, asking.cancel)
    try:
        await asyncio.wait({asking})
        print(flush=True)
        if asking.cancelled():
            note("(stopped)")
        else:
            _afterwards(asking.result(), stats=stats)
    except asyncio.CancelledError:
        asking.cancel()
        await asyncio.wait({asking})
        raise
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _afterwards(answer: Answer, *, stats: bool) -> None:
    if stats:
        note(answer.line())
    elif answer.finish == "length":
        note("(cut at the token limit)")


def _show(piece: str, reasoning: bool) -> None:
    if reasoning and not sys.stdout.isatty():
        return
    sys.stdout.write(f"\033[2m{piece}\033[0m" if reasoning else piece)
    sys.stdout.flush()


def _silent(_piece: str, _reasoning: bool) -> None:
    pass
