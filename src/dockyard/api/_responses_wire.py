"""The body of a Responses request, and its fields in the chat shape that engines take."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from dockyard.api import _openai
from dockyard.api._prompt_wire import PromptCall
from dockyard.errors import InvalidRequest, UnsupportedParameter
from dockyard.types import Json, Sampling

Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]
Item = dict[str, Json]
Name = Annotated[str, Meta(min_length=1, max_length=512)]

REFUSED = {
    "moderation": "ask /v1/moderations",
    "access_programs": "leave it out",
    "background_options": "leave it out",
    "context_management": "use `truncation`, or /v1/responses/compact",
    "image": "leave it out",
}
HOSTED = {
    "file_search": "only requests for an answer search",
    "mcp": "only requests for an answer run tools",
    "custom": "offer it as a function with one string parameter",
}
"""Tools that a server of OpenAI runs or reads itself, and what to do instead; others are answered alike."""
INCLUDES = frozenset(
    {
        "file_search_call.results", "web_search_call.results", "web_search_call.action.sources",
        "message.input_image.image_url", "computer_call_output.output.image_url", "code_interpreter_call.outputs",
        "reasoning.encrypted_content", "message.output_text.logprobs",
    }
)  # fmt: skip
HIDDEN = "<redacted>"
LOGPROBS = "message.output_text.logprobs"


class Reasoning(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``summary`` asks for the reasoning as a summary: it is the whole of it, unabridged."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class Text(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What the answer's text must look like."""

    format: Item | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ResponseStreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """``include_obfuscation`` pads the events of text to hide its length on the wire; off if not asked for."""

    include_obfuscation: bool | None = None


class ConversationName(msgspec.Struct, forbid_unknown_fields=True):
    id: Name


class Own(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What only Dockyard has: the profile whose tool servers ``tools`` of type mcp name, and whether the model uses
    all tools by writing Python."""

    profile: Name = "default"
    code: bool = False


class Given(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a request to generate, to count tokens and to compact has in common: a conversation."""

    model: Annotated[str, Meta(min_length=1, max_length=512, description="Name of a model in the store, or `echo`.")]
    input: str | list[Item] | None = None
    instructions: str | None = None
    previous_response_id: Name | None = None
    conversation: Name | ConversationName | None = None
    tools: list[Item] | None = None
    tool_choice: str | Item | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    text: Text | None = None
    truncation: Literal["auto", "disabled"] | None = None


class ResponseRequest(Given, kw_only=True, forbid_unknown_fields=True):
    """The body of a Responses request. Without ``model`` that of the ``prompt`` is asked."""

    model: Annotated[str, Meta(max_length=512, description="Name of a model in the store, or `echo`.")] = ""
    stream: bool | None = False
    stream_options: ResponseStreamOptions | None = None
    background: bool | None = False
    store: bool | None = True
    include: list[str] | None = None
    metadata: Metadata | None = None
    max_output_tokens: _openai.Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: _openai.Unit | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    # Beyond OpenAI's, with the meaning that they have in chat requests.
    top_k: Annotated[int, Meta(ge=-1, le=1 << 30, description="0 or -1: no limit.")] | None = None
    min_p: _openai.Unit | None = None
    seed: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)] | None = None
    stop: _openai.StopText | _openai.Stops | None = None
    presence_penalty: _openai.Penalty | None = None
    frequency_penalty: _openai.Penalty | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    ignore_eos: bool | None = None
    dockyard: Own | None = None
    prompt: PromptCall | None = None
    max_tool_calls: Annotated[int, Meta(ge=1, description="Calls of tools that the server runs.")] | None = None
    # No effect here: accepted because clients send them, and told back.
    user: str | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: Item | None = None
    # Refused by name.
    moderation: Json = None
    access_programs: Json = None
    background_options: Json = None
    context_management: Json = None
    image: Json = None


def check(asked: ResponseRequest) -> None:
    """What holds between fields."""
    _openai.refuse(asked, REFUSED)
    if not asked.model:
        raise InvalidRequest("'model' is required", param="model", hint="or a `prompt` that names one")
    check_given(asked)
    for number, name in enumerate(asked.include or ()):
        if name not in INCLUDES:
            raise InvalidRequest(f"include[{number}]: there is no {name!r:.80} to include", param=f"include[{number}]")
    if asked.stream_options is not None and not asked.stream:
        raise InvalidRequest("'stream_options' goes with 'stream': true", param="stream_options")
    if asked.background and asked.store is False:
        raise InvalidRequest("a background response has to be stored", param="background", hint="leave out 'store'")


def check_given(asked: Given) -> None:
    if "\x00" in asked.model:
        raise InvalidRequest("a model's name has no zero bytes", param="model")
    if asked.previous_response_id is not None and asked.conversation is not None:
        raise InvalidRequest(
            "'previous_response_id' and 'conversation' exclude each other", param="previous_response_id"
        )
    alone = asked.previous_response_id is None and asked.conversation is None
    if not asked.input and alone and getattr(asked, "prompt", None) is None:
        raise InvalidRequest("'input' is required", param="input")


def sampling(asked: ResponseRequest) -> Sampling:
    """The sampling that a request asks for."""
    stop = asked.stop
    wanted = asked.top_logprobs is not None or LOGPROBS in (asked.include or ())
    return Sampling(
        max_tokens=asked.max_output_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=0 if asked.top_k == -1 else asked.top_k,
        min_p=asked.min_p,
        seed=asked.seed,
        stop=() if stop is None else (stop,) if isinstance(stop, str) else tuple(stop),
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        repetition_penalty=asked.repetition_penalty,
        logprobs=(asked.top_logprobs or 0) if wanted else None,
        ignore_eos=bool(asked.ignore_eos),
    )


def hosted(asked: Given) -> list[tuple[int, Item]]:
    """The tools that the server runs, with their places in ``tools``."""
    return [(number, tool) for number, tool in enumerate(asked.tools or ()) if tool.get("type") == "mcp"]


def searches(asked: Given) -> list[tuple[int, Item]]:
    """The tools that search vector stores, with their places in ``tools``."""
    return [(number, tool) for number, tool in enumerate(asked.tools or ()) if tool.get("type") == "file_search"]


def hosted_choice(choice: str | Item | None) -> Json:
    """A ``tool_choice`` that may mean tools which the server runs; None: it can't."""
    if isinstance(choice, str):
        return choice if choice == "required" else None
    if choice is None or choice.get("type") == "mcp":
        return choice
    tools = choice.get("tools") if choice.get("type") == "allowed_tools" else None
    return choice if isinstance(tools, list) and any(_is_mcp(one) for one in tools) else None


def _is_mcp(entry: Json) -> bool:
    return isinstance(entry, dict) and entry.get("type") == "mcp"


def extra(asked: Given, unknown: dict[str, Json], *, hosting: bool = False) -> dict[str, Json]:
    """What else the engine has to honour or refuse, in OpenAI's chat shape; ``unknown``: fields nobody here knows.

    ``hosting``: tools that the server runs are somebody else's to add, and so is a choice among them.
    """
    found = dict(unknown)
    own = {"mcp"} if hosting else set()
    if isinstance(asked, ResponseRequest):
        own.add("file_search")
    tools = [one for one in enumerate(asked.tools or ()) if one[1].get("type") not in own]
    functions = [_function(number, tool) for number, tool in tools]
    choice = asked.tool_choice
    if hosting and (wanted := hosted_choice(choice)) is not None:
        choice = None if isinstance(wanted, str) else _left(wanted)
    choice, functions = _choice(choice, functions)
    if functions:
        found["tools"] = functions
        if choice is not None:
            found["tool_choice"] = choice
        if asked.parallel_tool_calls is not None:
            found["parallel_tool_calls"] = asked.parallel_tool_calls
    if asked.text is not None:
        if (wanted := _format(asked.text.format)) is not None:
            found["response_format"] = wanted
        if asked.text.verbosity is not None:
            found["verbosity"] = asked.text.verbosity
    if asked.reasoning is not None and asked.reasoning.effort is not None:
        found["reasoning_effort"] = asked.reasoning.effort
    return found


def _left(choice: Item) -> Item | None:
    """What a choice says of the client's own functions."""
    if choice.get("type") == "mcp":
        return None
    return {**choice, "tools": [one for one in choice["tools"] if not _is_mcp(one)]}


def _function(number: int, tool: Item) -> Item:
    at, kind = f"tools[{number}]", tool.get("type")
    if kind != "function":
        if not isinstance(kind, str):
            raise InvalidRequest(f"{at}.type is required and is text", param=f"{at}.type")
        advice = HOSTED.get(kind, "offer functions, and run them yourself")
        raise UnsupportedParameter(f"{at}: tools of type {kind!r:.60} are not served", param=f"{at}.type", hint=advice)
    name, parameters = tool.get("name"), tool.get("parameters")
    if not isinstance(name, str) or not name:
        raise InvalidRequest(f"{at}.name is required and is text", param=f"{at}.name")
    if parameters is not None and not isinstance(parameters, dict):
        raise InvalidRequest(f"{at}.parameters is a JSON schema, an object", param=f"{at}.parameters")
    function = {field: tool[field] for field in ("description", "strict") if tool.get(field) is not None}
    return {"type": "function", "function": {"name": name, "parameters": parameters or {}, **function}}


def _choice(choice: str | Item | None, functions: list[Item]) -> tuple[Json, list[Item]]:
    """The choice in chat's words, and the functions that it leaves to choose from."""
    known = {one["function"]["name"] for one in functions}

    def checked(name: Json) -> str:
        if not isinstance(name, str) or name not in known:
            raise InvalidRequest(f"tool_choice: there is no tool {name!r:.80} in `tools`", param="tool_choice")
        return name

    if choice is None:
        return None, functions
    if isinstance(choice, str):
        if choice not in ("none", "auto", "required"):
            raise InvalidRequest("tool_choice is none, auto, required or an object", param="tool_choice")
        if choice == "required" and not functions:
            raise InvalidRequest("tool_choice 'required' needs `tools`", param="tool_choice")
        return choice, functions
    if choice.get("type") == "function":
        return {"type": "function", "function": {"name": checked(choice.get("name"))}}, functions
    if choice.get("type") == "allowed_tools":
        tools, mode = choice.get("tools"), choice.get("mode", "auto")
        if not isinstance(tools, list) or mode not in ("auto", "required"):
            raise InvalidRequest("tool_choice: allowed_tools has `tools` and `mode`", param="tool_choice")
        allowed = {checked(one.get("name") if isinstance(one, dict) else one) for one in tools}
        return mode, [one for one in functions if one["function"]["name"] in allowed]
    kind = choice.get("type")
    raise UnsupportedParameter(f"tool_choice: tools of type {kind!r:.60} are not served", param="tool_choice")


def _format(wanted: Item | None) -> Item | None:
    kind = "text" if wanted is None else wanted.get("type")
    if wanted is None or kind == "text":
        return None
    if kind == "json_object":
        return {"type": "json_object"}
    if kind != "json_schema":
        raise InvalidRequest(
            "text.format.type is text, json_object or json_schema, not " + f"{kind!r:.60}", param="text.format.type"
        )
    if not isinstance(wanted.get("schema"), dict):
        raise InvalidRequest("text.format.schema is required and is a JSON schema", param="text.format.schema")
    if not isinstance(wanted.get("name"), str):
        raise InvalidRequest("text.format.name is required and is text", param="text.format.name")
    return {"type": "json_schema", "json_schema": {name: wanted[name] for name in wanted if name != "type"}}


def told(asked: ResponseRequest) -> dict[str, Any]:
    """The fields of a request that its response repeats."""
    reasoning, text = asked.reasoning or Reasoning(), asked.text or Text()
    conversation = asked.conversation
    verbosity = {"verbosity": text.verbosity} if text.verbosity else {}
    return {
        "background": bool(asked.background),
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "max_tool_calls": asked.max_tool_calls,
        "metadata": asked.metadata or {},
        "model": asked.model,
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": asked.previous_response_id,
        "conversation": None if conversation is None else {"id": name_of(conversation)},
        "prompt": None if asked.prompt is None else msgspec.to_builtins(asked.prompt),
        "prompt_cache_key": asked.prompt_cache_key,
        "reasoning": {"effort": reasoning.effort, "summary": reasoning.summary or reasoning.generate_summary},
        "safety_identifier": asked.safety_identifier,
        "service_tier": "default",
        "store": asked.store is not False,
        "temperature": asked.temperature,
        "text": {"format": text.format or {"type": "text"}, **verbosity},
        "tool_choice": asked.tool_choice or "auto",
        "tools": [_shown(tool) for tool in asked.tools or ()],
        "top_logprobs": asked.top_logprobs,
        "top_p": asked.top_p,
        "truncation": asked.truncation or "disabled",
        "user": asked.user,
    }


def _shown(tool: Item) -> Item:
    """A tool as a response repeats it: without what opens its server."""
    if tool.get("type") != "mcp":
        return tool
    hidden: Item = {"authorization": HIDDEN} if tool.get("authorization") else {}
    headers = tool.get("headers")
    if isinstance(headers, dict):
        hidden["headers"] = dict.fromkeys(headers, HIDDEN)
    return {**tool, **hidden}


def name_of(conversation: str | ConversationName) -> str:
    return conversation if isinstance(conversation, str) else conversation.id
