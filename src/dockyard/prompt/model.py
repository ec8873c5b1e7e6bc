"""What a prompt file says: YAML or JSON, every key checked, unknown ones refused with their place.

description: Answers customers of a shop
model: smollm2                        # advised; a caller may name another
persona: You are {{ name }}, who works at the counter of a shop.
task: Answer the customer's question.
constraints: [Answer in at most two sentences., Never promise a refund.]
format: Plain text.
variables:
  name: {type: string, default: Kim}
  input: {type: string, description: The customer's question}
template: "Question: {{ input }}"
examples:
  - {input: Are you open today?, output: "Yes, until six."}
parameters: {temperature: 0, max_tokens: 80}
tests:
  - {input: Are you open on Sunday?, scorers: [{name: regex, options: {pattern: "Sunday"}}]}
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from dockyard.errors import InvalidRequest
from dockyard.scorers import Chosen
from dockyard.stack import Parameters
from dockyard.types import Json

MOST_BYTES = 1 << 20
INPUT = "input"
"""The variable that stands for what the user said last."""

Kind = Literal["string", "integer", "number", "boolean", "list", "object"]
_PYTHON: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "list": (list,),
    "object": (dict,),
}


class Variable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What may stand in a place of the template. Without ``default`` it must be given. ``most`` bounds its text."""

    type: Kind = "string"
    description: str = ""
    default: Json | msgspec.UnsetType = msgspec.UNSET
    choices: tuple[Json, ...] = ()
    most: Annotated[int, Meta(ge=1)] = 100_000


class Example(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A question with the answer that is wanted, and how one gets there, for prompts that reason."""

    input: str = ""
    output: str
    reasoning: str = ""
    variables: dict[str, Json] = {}


class Select(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which examples a question is shown: the first ``count``, or the nearest to it.

    By "similarity" with vectors of the embedding ``model``, or by shared "words", which needs none.
    """

    count: Annotated[int, Meta(ge=0)]
    by: Literal["first", "words", "similarity"] = "first"
    model: str = ""

    def __post_init__(self) -> None:
        if (self.by == "similarity") != bool(self.model):
            raise ValueError("`by: similarity` goes with the `model` that computes vectors")


class Test(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A question whose answer is scored. It passes if every scorer's metrics are at least ``least``."""

    name: str = ""
    input: str = ""
    variables: dict[str, Json] = {}
    references: tuple[str, ...] = ()
    scorers: Annotated[tuple[Chosen, ...], Meta(min_length=1)]
    least: float = 1.0


class Prompt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One version of a prompt. All texts are templates.

    ``system`` is the system prompt as it is; or it is made of ``persona``, ``task``, ``constraints`` and ``format``,
    which can't be mixed with it. ``template`` makes the user's message of the variables. ``schema`` is the JSON schema
    that the answer must follow. ``reasoning`` "steps" lets the model think first, and keeps that out of the answer.
    ``samples``: so many answers are drawn, and the one that most agree on is given.
    """

    description: str = ""
    model: str = ""
    system: str = ""
    persona: str = ""
    task: str = ""
    constraints: tuple[str, ...] = ()
    format: str = ""
    schema: dict[str, Json] | None = None
    variables: dict[str, Variable] = {}
    template: str = "{{ input }}"
    examples: tuple[Example, ...] = ()
    select: Select | None = None
    reasoning: Literal["none", "steps"] = "none"
    samples: Annotated[int, Meta(ge=1, le=32)] = 1
    parameters: Parameters = Parameters()
    tests: tuple[Test, ...] = ()

    def __post_init__(self) -> None:
        if self.system and (self.persona or self.task or self.constraints or self.format):
            raise ValueError("`system`, or `persona`, `task`, `constraints` and `format`: not both")

    def texts(self) -> dict[str, str]:
        """All templates by where they stand."""
        found = {name: getattr(self, name) for name in ("system", "persona", "task", "format", "template")}
        return {**found, **{f"constraints[{n}]": text for n, text in enumerate(self.constraints)}}


def read(data: bytes | str, origin: str = "prompt") -> Prompt:
    """The prompt that YAML or JSON text says. Raises InvalidRequest whose ``param`` is the path of what is wrong."""
    raw = data.encode() if isinstance(data, str) else data
    if len(raw) > MOST_BYTES:
        raise InvalidRequest(f"{origin} has {len(raw)} bytes; {MOST_BYTES} is the most", param=origin)
    try:
        told = msgspec.yaml.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"{origin}: {error}", hint="a prompt is YAML or JSON") from None
    if not isinstance(told, dict):
        raise InvalidRequest(f"{origin}: expected keys such as `template:`, not {type(told).__name__}")
    _known(told, origin)
    try:
        found = msgspec.convert(told, Prompt)
    except msgspec.ValidationError as error:
        text, _, inside = str(error).partition(" - at `$")
        at = inside.rstrip("`").lstrip(".")
        raise InvalidRequest(f"{origin}: {f'{at}: ' if at else ''}{text}", param=at or None) from None
    _check(found, origin)
    return found


def values(prompt: Prompt, given: dict[str, Json], said: str | None) -> dict[str, Json]:
    """What each variable stands for. ``said`` is the user's message, the variable ``input`` unless that is given.

    Raises InvalidRequest that names a variable which is missing, unknown, or of another type.
    """
    declared = prompt.variables
    for name in given:
        if name not in declared and name != INPUT:
            near = difflib.get_close_matches(name, declared, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there is: {', '.join(declared) or 'none'}"
            raise InvalidRequest(f"the prompt has no variable {name!r}", param=f"variables.{name}", hint=hint)
    found: dict[str, Json] = {}
    for name, variable in {INPUT: Variable(default=""), **declared}.items():
        if name in given:
            value = given[name]
        elif name == INPUT and said is not None:
            value = said
        elif variable.default is not msgspec.UNSET:
            value = variable.default
        else:
            raise InvalidRequest(f"variable {name!r} is missing", param=f"variables.{name}", hint="give it a value")
        found[name] = _typed(name, variable, value)
    return found


def _typed(name: str, variable: Variable, value: Json) -> Json:
    at = f"variables.{name}"
    if isinstance(value, str) and variable.type in ("integer", "number", "boolean"):
        # What comes over Responses or from a command line is text.
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            pass
    wrong = not isinstance(value, _PYTHON[variable.type]) or (isinstance(value, bool) and variable.type != "boolean")
    if wrong:
        raise InvalidRequest(f"variable {name!r} is of type {variable.type}, not {value!r:.60}", param=at)
    if variable.choices and value not in variable.choices:
        told = ", ".join(map(str, variable.choices))
        raise InvalidRequest(f"variable {name!r} is one of {told}, not {value!r:.60}", param=at)
    size = len(value) if isinstance(value, str) else len(msgspec.json.encode(value))
    if size > variable.most:
        raise InvalidRequest(f"variable {name!r} has {size} characters; {variable.most} is the most", param=at)
    return value


def _known(told: dict[str, Json], origin: str) -> None:
    """Refuse unknown keys with what is near, here and one level down."""
    _keys(told, Prompt, "", origin)
    for section, kind in (("variables", Variable), ("examples", Example), ("tests", Test)):
        inside = told.get(section)
        pairs = inside.items() if isinstance(inside, dict) else enumerate(inside) if isinstance(inside, list) else ()
        for key, entry in pairs:
            if isinstance(entry, dict):
                _keys(entry, kind, f"{section}.{key}" if isinstance(inside, dict) else f"{section}[{key}]", origin)
    for section, single in (("select", Select), ("parameters", Parameters)):
        if isinstance(inside := told.get(section), dict):
            _keys(inside, single, section, origin)


def _keys(entry: dict[str, Json], kind: Any, path: str, origin: str) -> None:
    fields = kind.__struct_fields__
    for name in entry:
        if name not in fields:
            at = f"{path}.{name}".lstrip(".")
            near = difflib.get_close_matches(str(name), fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there is: {', '.join(fields)}"
            raise InvalidRequest(f"{origin}: {at}: there is no such key", param=at, hint=hint)


def _check(prompt: Prompt, origin: str) -> None:
    """What holds between fields: templates can be read and use declared variables; defaults have their types."""
    from dockyard.prompt.render import used

    for name, variable in prompt.variables.items():
        if not name.isidentifier():
            raise InvalidRequest(f"{origin}: variables.{name}: not a name", param=f"variables.{name}")
        if variable.default is not msgspec.UNSET:
            _typed(name, variable, variable.default)
    for place, text in prompt.texts().items():
        for name in sorted(used(text, f"{origin}: {place}")):
            if name not in prompt.variables and name != INPUT:
                near = difflib.get_close_matches(name, prompt.variables, n=1)
                raise InvalidRequest(
                    f"{origin}: {place}: {name!r} is no variable of the prompt",
                    param=place,
                    hint=f"did you mean {near[0]!r}?" if near else "declare it under `variables`",
                )
    if prompt.schema is not None and not prompt.schema:
        raise InvalidRequest(f"{origin}: schema: is empty", param="schema")
