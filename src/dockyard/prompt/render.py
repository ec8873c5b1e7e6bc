"""A prompt, its variables and a conversation become messages and what else a request needs.

Templates are Jinja in its sandbox: they reach nothing but their variables, can't be made to run long or to fill the
memory by one operator, and a variable's value is never read as a template.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from dockyard.errors import InvalidRequest
from dockyard.prompt.model import INPUT, Example, Prompt, values
from dockyard.types import Json, Message, Request

ANSWER = "Answer:"
"""The line after which the answer stands where a prompt reasons first."""
STEPS = (
    "First think step by step and write your reasoning down. Then write the answer alone on a last line that begins "
    f'with "{ANSWER}".'
)
MOST_TEXT = 1 << 20
DRAWN = 0.7
"""The temperature of several samples where nobody says another: at 0 all would be the same."""


@lru_cache(1)
def _sandbox() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.exceptions import SecurityError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        """Also without the operators that make much of little."""

        intercepted_binops = frozenset({"*", "**", "%"})

        def call_binop(self, _context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "*" and isinstance(left, int | float) and isinstance(right, int | float):
                return left * right
            if operator == "%" and isinstance(left, int | float):
                return left % right
            raise SecurityError(f"operator {operator} is only for numbers here, and ** not at all")

    return Sandbox(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)


@lru_cache(512)
def _compiled(text: str) -> Any:
    return _sandbox().from_string(text)


def used(text: str, origin: str) -> set[str]:
    """The variables that a template reads. Raises InvalidRequest where it is no template, with the line."""
    from jinja2 import TemplateSyntaxError, meta

    try:
        return set(meta.find_undeclared_variables(_sandbox().parse(text)))
    except TemplateSyntaxError as error:
        raise InvalidRequest(f"{origin}: line {error.lineno}: {error.message}", param=origin) from None


def fill(text: str, found: dict[str, Json], place: str) -> str:
    """The text of a template. Raises InvalidRequest that says where it failed."""
    from jinja2 import TemplateError

    if "{" not in text:
        return text
    pieces, size = [], 0
    try:
        for piece in _compiled(text).generate(found):
            pieces.append(piece)
            size += len(piece)
            if size > MOST_TEXT:
                raise InvalidRequest(f"{place}: the text grows beyond {MOST_TEXT} characters", param=place)
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, OverflowError) as error:
        raise InvalidRequest(f"{place}: {error}", param=place, hint="see the prompt's template") from None
    return "".join(pieces)


def system_of(prompt: Prompt, found: dict[str, Json]) -> str:
    """The system prompt: as written, or made of persona, task, constraints and format."""
    if prompt.system:
        parts = [fill(prompt.system, found, "system")]
    else:
        parts = [fill(getattr(prompt, name), found, name) for name in ("persona", "task") if getattr(prompt, name)]
        if prompt.constraints:
            lines = [fill(text, found, f"constraints[{n}]") for n, text in enumerate(prompt.constraints)]
            parts.append("\n".join(f"- {line}" for line in lines))
        if prompt.format:
            parts.append(f"Format: {fill(prompt.format, found, 'format')}")
    if prompt.reasoning == "steps" and prompt.schema is None:
        parts.append(STEPS)
    return "\n\n".join(part.strip() for part in parts if part.strip())


def said_by_user(messages: tuple[Message, ...]) -> str | None:
    """The text of the user's last message; None: the user said nothing."""
    for message in reversed(messages):
        if message.role == "user":
            if isinstance(message.content, list):
                texts = [part.get("text") for part in message.content if isinstance(part, dict)]
                return "\n".join(text for text in texts if isinstance(text, str))
            return message.content or ""
    return None


def composed(
    prompt: Prompt, given: dict[str, Json], messages: tuple[Message, ...], examples: tuple[Example, ...]
) -> tuple[Message, ...]:
    """The conversation inside the prompt: system, examples, what was said before, and the user's message templated.

    A system message of the conversation comes after the prompt's own. Without a user's message the template is it.
    """
    said = said_by_user(messages)
    found = values(prompt, given, said)
    own = system_of(prompt, found)
    theirs = [one.content for one in messages if one.role == "system" and isinstance(one.content, str)]
    system = "\n\n".join(text for text in (own, *theirs) if text)
    turns = [one for one in messages if one.role != "system" or not isinstance(one.content, str)]
    text = fill(prompt.template, found, "template")
    last = next((place for place in range(len(turns) - 1, -1, -1) if turns[place].role == "user"), None)
    if last is None:
        turns.append(Message(role="user", content=text))
    else:
        turns[last] = msgspec.structs.replace(turns[last], content=_with_text(turns[last].content, text))
    head = [Message(role="system", content=system)] if system else []
    return (*head, *(turn for one in examples for turn in shown(prompt, one, found)), *turns)


def shown(prompt: Prompt, example: Example, found: dict[str, Json]) -> tuple[Message, Message]:
    """An example as two turns."""
    mine = {**found, **example.variables, INPUT: example.input}
    answer = example.output
    if prompt.reasoning == "steps":
        plain = f"{example.reasoning}\n{ANSWER} {answer}".lstrip()
        answer = plain if prompt.schema is None else _wrapped_text(example.reasoning, answer)
    return (
        Message(role="user", content=fill(prompt.template, mine, "template")),
        Message(role="assistant", content=answer),
    )


def request_of(prompt: Prompt, request: Request, given: dict[str, Json], examples: tuple[Example, ...]) -> Request:
    """A request inside the prompt: messages, sampling that nobody else decided, the schema. Raises InvalidRequest."""
    messages = composed(prompt, given, request.messages or (), examples)
    sampling = prompt.parameters.under(request.sampling)
    extra = request.extra
    if request.kind == "chat":
        if prompt.samples > 1:
            if request.sampling.n != 1:
                raise InvalidRequest("the prompt draws several samples itself", param="n", hint="leave out `n`")
            warm = sampling.temperature if sampling.temperature is not None else DRAWN
            sampling = msgspec.structs.replace(sampling, n=prompt.samples, temperature=warm)
        if prompt.schema is not None:
            if "response_format" in extra:
                raise InvalidRequest("the prompt says what the answer looks like", param="response_format")
            schema = wrapped(prompt.schema) if prompt.reasoning == "steps" else prompt.schema
            extra = {**extra, "response_format": _format(schema)}
    return msgspec.structs.replace(request, messages=messages, sampling=sampling, extra=extra)


def wrapped(schema: dict[str, Json]) -> dict[str, Json]:
    """A schema of the reasoning first, then the answer; definitions move up, where references find them."""
    inner = {name: value for name, value in schema.items() if name not in ("$defs", "definitions")}
    above: dict[str, Json] = {name: value for name, value in schema.items() if name in ("$defs", "definitions")}
    return {
        "type": "object",
        "properties": {"reasoning": {"type": "string"}, "answer": inner},
        "required": ["reasoning", "answer"],
        "additionalProperties": False,
        **above,
    }


def _wrapped_text(thought: str, answer: str) -> str:
    try:
        value = msgspec.json.decode(answer)
    except msgspec.DecodeError:
        value = answer
    return msgspec.json.encode({"reasoning": thought, "answer": value}).decode()


def _format(schema: dict[str, Json]) -> dict[str, Json]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def _with_text(content: str | list[Json] | None, text: str) -> str | list[Json]:
    """The content with its text in the template; images and the like stay."""
    if not isinstance(content, list):
        return text
    others = [part for part in content if not (isinstance(part, dict) and isinstance(part.get("text"), str))]
    return [{"type": "text", "text": text}, *others]
