"""The items and events of tools that the server runs, as OpenAI's Responses dialect tells them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from dockyard.api._responses_events import Writer
from dockyard.api._responses_wire import Item
from dockyard.errors import DockyardError, InvalidRequest, NotFound
from dockyard.gateway.toolloop import Asks, Began, Done, Event, Found, Offered, Said
from dockyard.tools.model import Outcome, ToolDenied, ToolFailed
from dockyard.types import Json

RPC = ((NotFound, -32601), (InvalidRequest, -32602), (ToolDenied, -32000), (ToolFailed, -32603))
"""JSON-RPC's codes for failures that are not the tool's own word."""


class ToolWriter(Writer):
    """Writes what a tool loop tells, beside what the model says. ``taint`` is the conversation's, shared with it."""

    def __init__(self, id: str, told: dict[str, Any], **choices: bool) -> None:
        super().__init__(id, told, **choices)
        self.taint: set[str] = set()
        self._tainted: frozenset[str] = frozenset()
        self._current: int | None = None

    def put(self, event: Event) -> bytes:
        """One piece of news, as events."""
        if isinstance(event, Said):
            return self.add(event.chunks)
        events = self._close("completed")
        if isinstance(event, Began):
            return events + self._begun(event)
        if isinstance(event, Done):
            return events + self._done(event)
        if isinstance(event, Asks):
            item = {"id": f"mcpr_{event.approval.id}", "type": "mcp_approval_request"}
            item |= {"server_label": event.use.label, "name": event.use.name, "arguments": event.use.arguments or "{}"}
            return events + self._at_once(item)
        return events + self._found(event)

    def listed(self, label: str, tools: Iterable[Offered], error: str) -> bytes:
        """The tools of a server, or why there are none."""
        place = len(self.output)
        item: Item = {"id": self.name("mcpl"), "type": "mcp_list_tools", "server_label": label, "tools": []}
        self.output.append(item)
        where = {"item_id": item["id"], "output_index": place}
        events = self._event("response.output_item.added", output_index=place, item=item)
        events += self._event("response.mcp_list_tools.in_progress", **where)
        item["tools"] = [listing(one) for one in tools]
        item["error"] = error or None
        events += self._event(f"response.mcp_list_tools.{'failed' if error else 'completed'}", **where)
        return events + self._event("response.output_item.done", output_index=place, item=item)

    def _begun(self, event: Began) -> bytes:
        use, place = event.use, len(self.output)
        self._tainted = frozenset(self.taint)
        if use.offered is None:
            item: Item = {"id": self.name("ci"), "type": "code_interpreter_call", "status": "in_progress"}
            item |= {"container_id": "sandbox", "code": _code(use.arguments), "outputs": None}
            kinds = ["response.code_interpreter_call.in_progress"]
        else:
            item = {"id": self.name("mcp"), "type": "mcp_call", "status": "in_progress", "server_label": use.label}
            item |= {"name": use.name, "arguments": "", "output": None, "error": None}
            item["approval_request_id"] = f"mcpr_{use.approval}" if use.approval else None
            kinds = ["response.mcp_call.in_progress"]
        self.output.append(item)
        self._current = place
        where = {"item_id": item["id"], "output_index": place}
        events = self._event("response.output_item.added", output_index=place, item=item)
        events += b"".join(self._event(kind, **where) for kind in kinds)
        if use.offered is None:
            events += self._event("response.code_interpreter_call_code.delta", **where, delta=item["code"])
            events += self._event("response.code_interpreter_call_code.done", **where, code=item["code"])
            return events + self._event("response.code_interpreter_call.interpreting", **where)
        item["arguments"] = use.arguments or "{}"
        events += self._event("response.mcp_call_arguments.delta", **where, delta=item["arguments"])
        return events + self._event("response.mcp_call_arguments.done", **where, arguments=item["arguments"])

    def _done(self, event: Done) -> bytes:
        place, self._current = self._current, None
        assert place is not None
        item = self.output[place]
        failed = event.error is not None or (event.outcome is not None and event.outcome.is_error)
        item["status"] = "failed" if failed else "completed"
        where = {"item_id": item["id"], "output_index": place}
        if item["type"] == "code_interpreter_call":
            item["outputs"] = [{"type": "logs", "logs": event.text}]
            events = self._event("response.code_interpreter_call.completed", **where)
        else:
            if failed:
                item["error"] = error_of(event.error, event.outcome, event.text)
            else:
                item["output"] = event.text
            if brought := sorted(self.taint - self._tainted):
                item["taint"] = brought
            events = self._event(f"response.mcp_call.{item['status']}", **where)
        return events + self._event("response.output_item.done", output_index=place, item=item)

    def _found(self, event: Found) -> bytes:
        call = self.name("call")
        about = {"call_id": call, "execution": "server", "status": "completed"}
        asked: Item = {"id": self.name("tsc"), "type": "tool_search_call", "arguments": {"query": event.query}, **about}
        found: Item = {"id": self.name("tso"), "type": "tool_search_output", **about}
        found["tools"] = [
            {
                "type": "function",
                "name": one.function,
                "description": one.tool.description,
                "parameters": one.tool.schema,
                "strict": False,
                "defer_loading": True,
            }
            for one in event.tools
        ]
        return self._at_once(asked) + self._at_once(found)

    def _at_once(self, item: Item) -> bytes:
        """An item that is whole when it appears."""
        place = len(self.output)
        self.output.append(item)
        events = self._event("response.output_item.added", output_index=place, item=item)
        return events + self._event("response.output_item.done", output_index=place, item=item)

    def _close_calls(self, status: str) -> bytes:
        events = super()._close_calls(status)
        if self._current is not None:
            place, self._current = self._current, None
            self.output[place]["status"] = "incomplete"
            events += self._event("response.output_item.done", output_index=place, item=self.output[place])
        return events


def listing(one: Offered) -> Item:
    """A tool as ``mcp_list_tools`` shows it."""
    shown = {"name": one.name, "description": one.tool.description or None, "input_schema": one.tool.schema}
    return {**shown, "annotations": one.tool.raw.get("annotations")}


def error_of(error: DockyardError | None, outcome: Outcome | None, text: str) -> dict[str, Any]:
    """A call's ``error``: the tool's own words, or the protocol's."""
    if outcome is not None:
        return {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": text}]}
    code = getattr(error, "rpc", None) or next((code for kind, code in RPC if isinstance(error, kind)), -32603)
    return {"type": "mcp_protocol_error", "code": code, "message": text.removeprefix("Error: ")}


def _code(arguments: str) -> Json:
    try:
        found = msgspec.json.decode(arguments or "{}")
    except msgspec.DecodeError:
        return arguments
    return str(found.get("code") or "") if isinstance(found, dict) else arguments
