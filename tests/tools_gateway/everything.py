"""A tool server with every feature of the protocol, in both eras: what the conformance suite wants to find behind us.

Run as a script it speaks on its standard streams. ``make`` gives the server itself; ``dual`` says in which eras.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import mcp_types as types
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourceUpdated,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="
DONE = {"resultType": "complete"}
NOW = {"ttlMs": 0, "cacheScope": "private", **DONE}
STATES: set[str] = set()
BUS = InMemorySubscriptionBus()

Json = Any
Tool = Callable[["Talk"], Awaitable[Json]]


class More(Exception):
    """A modern client must answer this first."""

    def __init__(self, questions: dict[str, Json], state: str | None = None) -> None:
        super().__init__("more input is needed")
        self.result: dict[str, Json] = {"resultType": "input_required", "inputRequests": questions}
        if state is not None:
            self.result["requestState"] = state


class Talk:
    """One request of a client."""

    def __init__(self, context: Any, params: Any) -> None:
        self.context = context
        self.given: dict[str, Json] = (context.params or {}).get("inputResponses") or {}
        self.state = getattr(params, "request_state", None)
        self.arguments = getattr(params, "arguments", None) or {}
        self.modern = context.protocol_version in MODERN_PROTOCOL_VERSIONS

    async def ask(self, method: str, params: Json, name: str = "question") -> Json:
        """The client's answer, in its era's way."""
        if self.modern:
            answer = self.given.get(name)
            if not isinstance(answer, dict):
                raise More({name: {"method": method, "params": params}})
            return answer
        kinds: dict[str, Any] = {
            "elicitation/create": (types.ElicitRequest, types.ElicitResult),
            "sampling/createMessage": (types.CreateMessageRequest, types.CreateMessageResult),
            "roots/list": (types.ListRootsRequest, types.ListRootsResult),
        }
        request, result = kinds[method]
        answer = await self.context.session.send_request(
            request.model_validate({"method": method, "params": params}),
            result,
            metadata=ServerMessageMetadata(related_request_id=self.context.request_id),
        )
        return answer.model_dump(by_alias=True, mode="json", exclude_none=True)

    async def say(self, text: str) -> None:
        level = (self.context.meta or {}).get(types.LOG_LEVEL_META_KEY)
        if self.modern and level is None:
            return
        note = types.LoggingMessageNotification(
            params=types.LoggingMessageNotificationParams(level="info", data=text, logger="everything")
        )
        await self.context.session.send_notification(note, related_request_id=self.context.request_id)

    def can(self, capability: str) -> bool:
        declared = self.context.session.client_capabilities
        return declared is not None and getattr(declared, capability) is not None


def form(message: str, **properties: Json) -> Json:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"mode": "form", "message": message, "requestedSchema": schema}


def prompt(text: str, tokens: int = 100) -> Json:
    return {"messages": [{"role": "user", "content": {"type": "text", "text": text}}], "maxTokens": tokens}


def text(words: str) -> Json:
    return {"type": "text", "text": words}


def embedded(uri: str, words: str, kind: str = "text/plain") -> Json:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": kind, "text": words}}


IMAGE = {"type": "image", "data": PNG, "mimeType": "image/png"}
STRING = {"type": "string"}
FIXED: dict[str, list[Json]] = {
    "test_simple_text": [text("This is a simple text response for testing.")],
    "test_image_content": [IMAGE],
    "test_audio_content": [{"type": "audio", "data": WAV, "mimeType": "audio/wav"}],
    "test_embedded_resource": [embedded("test://embedded-resource", "This is an embedded resource content.")],
    "test_multiple_content_types": [
        text("Multiple content types test:"),
        IMAGE,
        embedded("test://mixed-content-resource", '{"test":"data","value":123}', "application/json"),
    ],
    "json_schema_2020_12_tool": [text("ok")],
}
SCHEMAS: dict[str, Json] = {
    "test_sampling": {"type": "object", "properties": {"prompt": STRING}, "required": ["prompt"]},
    "test_elicitation": {"type": "object", "properties": {"message": STRING}, "required": ["message"]},
    "test_custom_headers": {
        "type": "object",
        "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "priority": {"type": "integer", "x-mcp-header": "Priority"},
            "verbose": {"type": "boolean", "x-mcp-header": "Verbose"},
        },
    },
    "json_schema_2020_12_tool": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": {"street": STRING, "city": STRING},
            }
        },
        "properties": {
            "name": STRING,
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": STRING,
            "email": STRING,
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    },
}
DEFAULTS = {
    "name": {"type": "string", "default": "John Doe"},
    "age": {"type": "integer", "default": 30},
    "score": {"type": "number", "default": 95.5},
    "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    "verified": {"type": "boolean", "default": True},
}
TITLED = [{"const": f"value{number}", "title": f"Option {number}"} for number in (1, 2, 3)]
ENUMS = {
    "untitledSingle": {"type": "string", "enum": ["option1", "option2", "option3"]},
    "titledSingle": {"type": "string", "oneOf": TITLED},
    "legacyEnum": {"type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": ["One", "Two", "Three"]},
    "untitledMulti": {"type": "array", "items": {"type": "string", "enum": ["option1", "option2", "option3"]}},
    "titledMulti": {"type": "array", "items": {"anyOf": TITLED}},
}


async def logging_tool(talk: Talk) -> Json:
    for words in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await talk.say(words)
        await asyncio.sleep(0.05)
    return "Tool with logging executed successfully"


async def progress_tool(talk: Talk) -> Json:
    for step in (0, 50, 100):
        await talk.context.session.report_progress(step, 100, f"Completed step {step} of 100")
        await asyncio.sleep(0.05)
    return "Tool with progress executed successfully"


async def error_tool(talk: Talk) -> Json:
    return {"content": [text("This tool intentionally returns an error for testing")], "isError": True}


async def sampling_tool(talk: Talk) -> Json:
    answer = await talk.ask("sampling/createMessage", prompt(talk.arguments["prompt"]))
    return f"LLM response: {answer['content'].get('text')}"


def _told(answer: Json) -> str:
    return f"action={answer['action']}, content={json.dumps(answer.get('content') or {})}"


async def elicitation_tool(talk: Talk) -> Json:
    question = form(talk.arguments.get("message", "Answer"), response={"type": "string", "description": "Your answer"})
    return f"User response: {_told(await talk.ask('elicitation/create', question))}"


def eliciting(message: str, properties: Json) -> Tool:
    async def tool(talk: Talk) -> Json:
        question = form(message, **properties)
        question["requestedSchema"]["required"] = []
        return f"Elicitation completed: {_told(await talk.ask('elicitation/create', question))}"

    return tool


async def input_elicitation(talk: Talk) -> Json:
    answer = await talk.ask("elicitation/create", form("What is your name?", name=STRING), "user_name")
    if not isinstance((answer.get("content") or {}).get("name"), str):
        raise More({"user_name": {"method": "elicitation/create", "params": form("Your name?", name=STRING)}})
    return f"Hello, {answer['content']['name']}!"


async def input_sampling(talk: Talk) -> Json:
    question = prompt("What is the capital of France?")
    answer = await talk.ask("sampling/createMessage", question, "capital_question")
    return answer["content"]["text"]


async def input_roots(talk: Talk) -> Json:
    answer = await talk.ask("roots/list", {}, "client_roots")
    return f"Roots: {[root['uri'] for root in answer['roots']]}"


def _sealed() -> str:
    state = secrets.token_hex(16)
    STATES.add(state)
    return state


def _checked(state: str | None) -> None:
    if state not in STATES:
        raise MCPError(types.INVALID_PARAMS, "requestState was tampered with")


async def input_state(talk: Talk) -> Json:
    if "confirm" not in talk.given:
        question = form("Please confirm", ok={"type": "boolean"})
        raise More({"confirm": {"method": "elicitation/create", "params": question}}, _sealed())
    _checked(talk.state)
    return "state-ok"


async def input_several(talk: Talk) -> Json:
    wanted = {
        "user_name": {"method": "elicitation/create", "params": form("What is your name?", name=STRING)},
        "greeting": {"method": "sampling/createMessage", "params": prompt("Generate a greeting", 50)},
        "client_roots": {"method": "roots/list", "params": {}},
    }
    if not wanted.keys() <= talk.given.keys():
        raise More(wanted, _sealed())
    _checked(talk.state)
    return "All inputs arrived"


async def input_rounds(talk: Talk) -> Json:
    if "step2" in talk.given:
        _checked(talk.state)
        return "Both steps are done"
    step, words, key = ("step2", "Step 2: What is your favorite color?", "color")
    if "step1" not in talk.given:
        step, words, key = ("step1", "Step 1: What is your name?", "name")
    raise More({step: {"method": "elicitation/create", "params": form(words, **{key: STRING})}}, _sealed())


async def input_capabilities(talk: Talk) -> Json:
    wanted = {}
    if talk.can("sampling"):
        wanted["sample"] = {"method": "sampling/createMessage", "params": prompt("Hello")}
    if talk.can("elicitation"):
        wanted["name"] = {"method": "elicitation/create", "params": form("Your name?", name=STRING)}
    if wanted and not talk.given:
        raise More(wanted)
    return "nothing to ask"


async def missing_capability(talk: Talk) -> Json:
    if not talk.can("sampling"):
        data = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "this needs sampling", data)
    return "the client can sample"


async def change_tools(talk: Talk) -> Json:
    await BUS.publish(ToolsListChanged())
    await talk.context.session.send_tool_list_changed()
    return "the tools changed"


async def change_prompts(talk: Talk) -> Json:
    await BUS.publish(PromptsListChanged())
    await talk.context.session.send_prompt_list_changed()
    return "the prompts changed"


async def change_resource(talk: Talk) -> Json:
    await BUS.publish(ResourceUpdated("test://watched-resource"))
    await talk.context.session.send_resource_updated("test://watched-resource")
    return "the resource changed"


async def slow(talk: Talk) -> Json:
    await asyncio.sleep(30)
    return "slept"


TOOLS: dict[str, Tool] = {
    "test_tool_with_logging": logging_tool,
    "test_logging_tool": logging_tool,
    "test_tool_with_progress": progress_tool,
    "test_error_handling": error_tool,
    "test_sampling": sampling_tool,
    "test_elicitation": elicitation_tool,
    "test_elicitation_sep1034_defaults": eliciting("Please provide user information", DEFAULTS),
    "test_elicitation_sep1330_enums": eliciting("Please select values", ENUMS),
    "test_input_required_result_elicitation": input_elicitation,
    "test_streaming_elicitation": input_elicitation,
    "test_input_required_result_sampling": input_sampling,
    "test_input_required_result_list_roots": input_roots,
    "test_input_required_result_request_state": input_state,
    "test_input_required_result_tampered_state": input_state,
    "test_input_required_result_multiple_inputs": input_several,
    "test_input_required_result_multi_round": input_rounds,
    "test_input_required_result_capabilities": input_capabilities,
    "test_missing_capability": missing_capability,
    "test_trigger_tool_change": change_tools,
    "test_trigger_prompt_change": change_prompts,
    "test_trigger_resource_change": change_resource,
    "test_slow": slow,
}
RESOURCES = {
    "test://static-text": {"mimeType": "text/plain", "text": "This is the content of the static text resource."},
    "test://static-binary": {"mimeType": "image/png", "blob": PNG},
    "test://watched-resource": {"mimeType": "text/plain", "text": "Watched resource content"},
}


async def list_tools(context: Any, params: Any) -> Json:
    plain = {"type": "object", "properties": {}}
    names = [*FIXED, *TOOLS, "test_custom_headers"]
    tools = [{"name": name, "description": f"{name}.", "inputSchema": SCHEMAS.get(name, plain)} for name in names]
    return {"tools": tools, **NOW}


async def call_tool(context: Any, params: Any) -> Json:
    if params.name in FIXED:
        return {"content": FIXED[params.name], **DONE}
    if params.name == "test_custom_headers":
        return {"content": [text("the headers are well")], **DONE}
    if params.name not in TOOLS:
        raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name}")
    try:
        result = await TOOLS[params.name](Talk(context, params))
    except More as more:
        return more.result
    return {**(result if isinstance(result, dict) else {"content": [text(result)]}), **DONE}


PROMPTS: list[Json] = [
    {"name": "test_simple_prompt", "description": "A simple prompt."},
    {
        "name": "test_prompt_with_arguments",
        "description": "A prompt with arguments.",
        "arguments": [{"name": "arg1", "required": True}, {"name": "arg2", "required": True}],
    },
    {
        "name": "test_prompt_with_embedded_resource",
        "description": "A prompt with a resource in it.",
        "arguments": [{"name": "resourceUri", "required": True}],
    },
    {"name": "test_prompt_with_image", "description": "A prompt with an image."},
    {"name": "test_input_required_result_prompt", "description": "A prompt that asks."},
]


async def list_prompts(context: Any, params: Any) -> Json:
    return {"prompts": PROMPTS, **NOW}


async def get_prompt(context: Any, params: Any) -> Json:
    given = params.arguments or {}
    if params.name == "test_simple_prompt":
        parts = [text("This is a simple prompt for testing.")]
    elif params.name == "test_prompt_with_arguments":
        parts = [text(f"Prompt with arguments: arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'")]
    elif params.name == "test_prompt_with_embedded_resource":
        parts = [
            embedded(given.get("resourceUri", ""), "Embedded resource content for testing."),
            text("Please process the embedded resource above."),
        ]
    elif params.name == "test_prompt_with_image":
        parts = [IMAGE, text("Please analyze the image above.")]
    elif params.name == "test_input_required_result_prompt":
        try:
            question = form("What context should the prompt use?", context=STRING)
            answer = await Talk(context, params).ask("elicitation/create", question, "user_context")
        except More as more:
            return more.result
        parts = [text(f"Context: {(answer.get('content') or {}).get('context')}")]
    else:
        raise MCPError(types.INVALID_PARAMS, f"Unknown prompt: {params.name}")
    return {"messages": [{"role": "user", "content": part} for part in parts], **DONE}


async def list_resources(context: Any, params: Any) -> Json:
    found = [
        {"uri": uri, "name": uri.rpartition("/")[2], "mimeType": kept["mimeType"]} for uri, kept in RESOURCES.items()
    ]
    return {"resources": found, **NOW}


async def list_templates(context: Any, params: Any) -> Json:
    one = {"uriTemplate": "test://template/{id}/data", "name": "template", "mimeType": "application/json"}
    return {"resourceTemplates": [one], **NOW}


async def read_resource(context: Any, params: Any) -> Json:
    uri = str(params.uri)
    if uri.startswith("test://template/"):
        number = uri.split("/")[3]
        data = json.dumps({"id": number, "templateTest": True, "data": f"Data for ID: {number}"})
        return {"contents": [{"uri": uri, "mimeType": "application/json", "text": data}], **NOW}
    if uri not in RESOURCES:
        raise MCPError(types.INVALID_PARAMS, "Resource not found", {"uri": uri})
    return {"contents": [{"uri": uri, **RESOURCES[uri]}], **NOW}


async def complete(context: Any, params: Any) -> Json:
    found = [word for word in ("paris", "park", "party") if word.startswith(params.argument.value)]
    return {"completion": {"values": found, "total": len(found), "hasMore": False}, **DONE}


async def nothing(context: Any, params: Any) -> Json:
    return {}


class Everything(Server[Any]):
    """Announces that its lists change in the legacy era too."""

    def create_initialization_options(self, notification_options: Any = None, *others: Any, **named: Any) -> Any:
        every = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
        return super().create_initialization_options(notification_options or every, *others, **named)


def make() -> Server[Any]:
    """The server, not yet connected to anything."""
    server: Any = Everything(
        "everything",
        version="1.0.0",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_subscribe_resource=nothing,
        on_unsubscribe_resource=nothing,
        on_subscriptions_listen=ListenHandler(BUS),
        on_completion=complete,
    )
    server.add_request_handler("logging/setLevel", types.SetLevelRequestParams, nothing)
    return server


async def main() -> None:
    from mcp.server.stdio import stdio_server

    server = make()
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


if __name__ == "__main__":
    asyncio.run(main())
