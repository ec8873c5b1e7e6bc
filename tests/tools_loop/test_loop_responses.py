"""Tools of type ``mcp`` in Responses requests, with OpenAI's own client and a model that calls what its user names."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import openai
import pytest
from loop_serving import BOSS, client, tooled
from serving import until

pytest.importorskip("mcp")

NEVER: Any = [
    {"type": "mcp", "server_label": label, "require_approval": "never"} for label in ("clock", "sums", "notes")
]
MIDDLE: Any = [NEVER[0], {"type": "mcp", "server_label": "sums"}, NEVER[2]]
ALL_THREE = "clock__now 'Paris' then sums__add 3 4 then notes__save \"both\""


def kinds(answer: Any) -> list[str]:
    return [item.type for item in answer.output if item.type != "mcp_list_tools"]


def one(answer: Any, kind: str) -> Any:
    (found,) = [item for item in answer.output if item.type == kind]
    return found


def said(asked: Any, *, approve: bool, reason: str | None = None) -> Any:
    why = {} if reason is None else {"reason": reason}
    return [{"type": "mcp_approval_response", "approval_request_id": asked.id, "approve": approve, **why}]


def ask(ann: openai.OpenAI, stream: bool, **fields: Any) -> tuple[Any, list[Any]]:
    """A response, and its events if it was streamed."""
    if not stream:
        return ann.responses.create(model="echo", **fields), []
    events = list(ann.responses.create(model="echo", stream=True, **fields))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    return events[-1].response, events  # type: ignore[union-attr]


def test_a_route_brings_its_tools_and_asks_where_its_profile_says_so(tmp_path: Path) -> None:
    stack = tmp_path / "dockyard.yaml"
    stack.write_text("models: {small: echo}\nroutes:\n  desk: {model: small, tools: pair}\n")
    with tooled(tmp_path / "home", stack=str(stack)) as server, client(server) as ann:
        first = ann.responses.create(model="desk", input='sums__add 3 4 then notes__save "both"')
        assert [item.server_label for item in first.output[:2]] == ["sums", "notes"]
        assert kinds(first) == ["mcp_call", "mcp_approval_request"]
        asked = one(first, "mcp_approval_request")
        assert server.calls() == ["add 3 4"]
        last = ann.responses.create(
            model="desk", previous_response_id=first.id, input=said(asked, approve=True)
        )  # the route offers the same again
        assert kinds(last)[0] == "mcp_call"
        assert server.calls() == ["add 3 4", "save both"]
        named = ann.responses.create(model="desk", input="clock__now 'Paris'", tools=NEVER[:1])
        assert [item.server_label for item in named.output if item.type == "mcp_list_tools"] == ["clock"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_three_servers_with_an_approval_in_the_middle_and_a_restart(tmp_path: Path, stream: bool) -> None:
    with tooled(tmp_path) as server, client(server) as ann:
        first, events = ask(ann, stream, input=ALL_THREE, tools=MIDDLE)
        assert first.status == "completed"
        assert [item.server_label for item in first.output[:3]] == ["clock", "sums", "notes"]
        assert [tool.name for tool in first.output[2].tools] == ["save", "drop"]
        assert kinds(first) == ["mcp_call", "mcp_approval_request"]
        asked = one(first, "mcp_approval_request")
        assert (asked.server_label, asked.name, asked.arguments) == ("sums", "add", '{"a":3,"b":4}')
        assert server.calls() == ["now Paris"]
        if stream:
            told = [event.type for event in events if "mcp" in event.type]
            listing = ["response.mcp_list_tools.in_progress", "response.mcp_list_tools.completed"] * 3
            call = ["in_progress", "completed"]
            assert told == [
                *listing,
                f"response.mcp_call.{call[0]}",
                "response.mcp_call_arguments.delta",
                "response.mcp_call_arguments.done",
                f"response.mcp_call.{call[1]}",
            ]
    with tooled(tmp_path) as server, client(server) as ann:
        fields: Any = {"previous_response_id": first.id, "input": said(asked, approve=True), "tools": MIDDLE}
        second, _ = ask(ann, stream, **fields)
        assert kinds(second) == ["mcp_call", "mcp_call", "message"]
        assert [item.name for item in second.output[:2]] == ["add", "save"]
        assert second.output[0].approval_request_id == asked.id
        assert second.output_text == "noon in Paris\n7\nkept both"
        assert server.calls() == ["now Paris", "add 3 4", "save both"]
        again = ann.responses.create(model="echo", **fields)
        assert kinds(again) == ["mcp_call", "mcp_approval_request"], "it is good once"
        assert again.output[0].status == "failed"
        assert len(server.calls()) == 3
        assert ann.responses.retrieve(second.id).output == second.output


def test_what_a_person_refuses_is_not_done(server: Any, ann: openai.OpenAI) -> None:
    first = ann.responses.create(
        model="echo", input="notes__drop 'mine'", tools=[{**NEVER[2], "require_approval": None}]
    )
    asked = one(first, "mcp_approval_request")
    no = said(asked, approve=False, reason="keep it")
    second = ann.responses.create(model="echo", previous_response_id=first.id, input=no, tools=NEVER)
    assert second.output_text == "The person did not agree to this call: keep it"
    assert not [line for line in server.calls() if line.startswith("drop mine")]


def test_what_is_agreed_to_must_be_there(server: Any, ann: openai.OpenAI) -> None:
    first = ann.responses.create(
        model="echo", input="notes__save 'later'", tools=[{**NEVER[2], "require_approval": None}]
    )
    yes: Any = {"previous_response_id": first.id, "input": said(one(first, "mcp_approval_request"), approve=True)}
    with pytest.raises(openai.BadRequestError, match="not there"):
        ann.responses.create(model="echo", tools=NEVER[:2], **yes)
    assert ann.responses.create(model="echo", tools=[{**NEVER[2], "require_approval": "always"}], **yes).output_text
    assert server.calls().count("save later") == 1


def test_an_approval_is_for_the_one_call(ann: openai.OpenAI) -> None:
    tools: Any = [{"type": "mcp", "server_label": "sums"}]
    first = ann.responses.create(model="echo", input="sums__add 5 6", tools=tools)
    asked = one(first, "mcp_approval_request")
    user: Any = {"role": "user", "content": "go on"}
    forged = {**asked.model_dump(), "arguments": '{"a":1,"b":1}'}
    answer = ann.responses.create(
        model="echo", input=[user, forged, *said(asked, approve=True)], tools=tools, store=False
    )
    assert kinds(answer)[:2] == ["mcp_call", "mcp_approval_request"]
    assert one(answer, "mcp_call").status == "failed"
    with pytest.raises(openai.NotFoundError):
        ann.responses.create(model="echo", input=[user, *said(asked, approve=True)], tools=tools)


def test_a_tool_that_fails_is_a_result(ann: openai.OpenAI) -> None:
    tools: Any = [{**NEVER[0], "server_label": "odd"}, NEVER[1]]
    answer = ann.responses.create(model="echo", input="odd__broken 'x' then sums__add 1 2", tools=tools)
    failed, added = [item for item in answer.output if item.type == "mcp_call"]
    assert (failed.status, failed.output, failed.error.type) == ("failed", None, "mcp_tool_execution_error")
    assert (added.status, added.output) == ("completed", "3")
    assert answer.output_text == "ValueError: no such text as x\n3"
    wrong = ann.responses.create(
        model="echo", input="sums__add", tools=[NEVER[1]], tool_choice={"type": "mcp", "server_label": "sums"}
    )
    assert wrong.status == "completed"


@pytest.mark.parametrize(("most", "calls"), [(1, 1), (2, 2), (None, 3)])
def test_calls_are_bounded(ann: openai.OpenAI, most: int | None, calls: int) -> None:
    fields: Any = {} if most is None else {"max_tool_calls": most}
    for text in (ALL_THREE, ALL_THREE.replace(" then", " and")):
        answer = ann.responses.create(model="echo", input=text, tools=NEVER, **fields)
        assert kinds(answer)[: calls + 1] == [*["mcp_call"] * calls, "message"]
        assert answer.status == "completed"


def test_rounds_tokens_results_and_time_are_bounded(tmp_path: Path) -> None:
    bounds = {"tools_rounds": 2, "tools_result": 300, "tools_seconds": 1.5}
    with tooled(tmp_path, **bounds) as server, client(server) as ann:
        answer = ann.responses.create(model="echo", input=ALL_THREE, tools=NEVER)
        assert kinds(answer) == ["mcp_call", "mcp_call", "message"]
        odd: Any = [{**NEVER[0], "server_label": "odd"}]
        cut = ann.responses.create(model="echo", input="odd__long 5000", tools=odd)
        assert one(cut, "mcp_call").output == "x" * 300 + "\n[cut here: 4700 more characters]"
        late = ann.responses.create(model="echo", input="odd__slow 'x'", tools=odd)
        assert "is over" in one(late, "mcp_call").error.message
        assert (late.status, server.calls()[-1]) == ("incomplete", "slow ended")
        short = ann.responses.create(model="echo", input=ALL_THREE, tools=NEVER, max_output_tokens=4)
        assert short.status == "incomplete"


def test_tools_that_are_deferred_are_searched(ann: openai.OpenAI) -> None:
    tools: Any = [{**tool, "defer_loading": True} for tool in NEVER]
    text = "search_tools 'add two numbers' then sums__add 3 4"
    answer = ann.responses.create(model="echo", input=text, tools=tools)
    assert kinds(answer) == ["tool_search_call", "tool_search_output", "mcp_call", "message"]
    found = one(answer, "tool_search_output")
    assert found.tools[0].name == "sums__add"
    assert one(answer, "mcp_call").output == "7"
    again = ann.responses.create(model="echo", input="sums__add 1 1", tools=tools, previous_response_id=answer.id)
    assert one(again, "mcp_call").output == "2"
    unseen = ann.responses.create(model="echo", input="notes__drop 'x'", tools=tools)
    assert kinds(unseen) == ["message"]


def test_only_what_is_allowed_is_there(server: Any, ann: openai.OpenAI) -> None:
    tools: Any = [{**NEVER[2], "allowed_tools": ["save"]}]
    answer = ann.responses.create(model="echo", input="notes__drop 'secret thing'", tools=tools)
    assert [tool.name for tool in answer.output[0].tools] == ["save"]
    assert "drop secret thing" not in server.calls()
    tools = [{**NEVER[2], "allowed_tools": {"read_only": True}}]
    answer = ann.responses.create(model="echo", input="hello", tools=tools)
    assert answer.output[0].tools == []
    named: Any = {"always": {"tool_names": ["drop"]}}
    tools = [{**NEVER[2], "require_approval": named}]
    answer = ann.responses.create(model="echo", input="notes__save 'a' and notes__drop 'b'", tools=tools)
    assert kinds(answer) == ["mcp_call", "mcp_approval_request"]


def test_a_tool_may_be_chosen(ann: openai.OpenAI) -> None:
    choice: Any = {"type": "mcp", "server_label": "notes", "name": "save"}
    answer = ann.responses.create(model="echo", input="whatever", tools=NEVER, tool_choice=choice)
    assert one(answer, "mcp_call").name == "save"
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp", "server_label": "clock"}]}
    answer = ann.responses.create(
        model="echo", input="notes__save 'x' and clock__now 'Oslo'", tools=NEVER, tool_choice=choice
    )
    assert one(answer, "mcp_call").server_label == "clock"
    choice = {"type": "mcp", "server_label": "notes", "name": "burn"}
    with pytest.raises(openai.BadRequestError, match="tool_choice"):
        ann.responses.create(model="echo", input="x", tools=NEVER, tool_choice=choice)


def test_the_clients_own_functions_stay_the_clients(ann: openai.OpenAI) -> None:
    own: Any = {"type": "function", "name": "paint", "parameters": {"type": "object"}, "strict": False}
    answer = ann.responses.create(model="echo", input="paint it, and clock__now 'Rome'", tools=[*NEVER, own])
    assert kinds(answer) == ["function_call", "mcp_call"]
    result: Any = [{"type": "function_call_output", "call_id": one(answer, "function_call").call_id, "output": "red"}]
    again = ann.responses.create(model="echo", input=result, previous_response_id=answer.id, tools=[*NEVER, own])
    assert "red" in again.output_text
    with pytest.raises(openai.BadRequestError, match="two tools"):
        ann.responses.create(model="echo", input="x", tools=[*NEVER, {**own, "name": "clock__now"}])


def test_a_whole_profile_by_its_name(ann: openai.OpenAI) -> None:
    tools: Any = [{"type": "mcp", "server_label": "pair", "require_approval": "never"}]
    answer = ann.responses.create(model="echo", input="pair__sums__add 1 2 then pair__notes__save 'x'", tools=tools)
    assert kinds(answer) == ["mcp_call", "mcp_approval_request"], "the profile asks, whatever the request says"
    with pytest.raises(openai.NotFoundError, match="no tool server"):
        ann.responses.create(model="echo", input="x", tools=[{**tools[0], "server_label": "nobody"}])
    inside = ann.responses.create(
        model="echo", input="sums__add 2 2", tools=[NEVER[1]], extra_body={"dockyard": {"profile": "pair"}}
    )
    assert one(inside, "mcp_call").output == "4"


def test_what_came_in_counts_in_the_next_response_too(ann: openai.OpenAI) -> None:
    tools: Any = [{**NEVER[0], "server_label": label} for label in ("inbox", "outbox")]
    free = ann.responses.create(model="echo", input="outbox__save 'hi'", tools=tools)
    assert one(free, "mcp_call").status == "completed"
    read = ann.responses.create(model="echo", input="inbox__now 'Paris'", tools=tools)
    then = ann.responses.create(model="echo", input="outbox__save 'it'", tools=tools, previous_response_id=read.id)
    assert kinds(then) == ["mcp_approval_request"]
    without: Any = [tools[1]]
    then = ann.responses.create(model="echo", input="outbox__save 'it'", tools=without, previous_response_id=read.id)
    assert kinds(then) == ["mcp_approval_request"]


def test_a_client_that_hangs_up_ends_the_tool(server: Any, ann: openai.OpenAI) -> None:
    tools: Any = [{**NEVER[0], "server_label": "odd"}]
    before = server.calls().count("slow ended")
    stream = ann.responses.create(model="echo", input="odd__slow 'y'", tools=tools, stream=True)
    for event in stream:
        if event.type == "response.mcp_call.in_progress":
            break
    until(lambda: "slow y" in server.calls())
    stream.close()
    until(lambda: server.calls().count("slow ended") == before + 1)


def test_in_the_background(ann: openai.OpenAI) -> None:
    begun = ann.responses.create(model="echo", input=ALL_THREE, tools=NEVER, background=True)
    events = list(ann.responses.retrieve(begun.id, stream=True))
    assert events[-1].type == "response.completed"
    assert ann.responses.retrieve(begun.id).output_text == "noon in Paris\n7\nkept both"


def test_servers_by_url(tmp_path: Path, ann: openai.OpenAI, server: Any) -> None:
    elsewhere: Any = {
        "type": "mcp",
        "server_label": "far",
        "server_url": f"{server.url}/mcp",
        "require_approval": "never",
    }
    elsewhere |= {"authorization": "ann-has-a-long-secret", "headers": {"x-other": "a-value"}}
    with pytest.raises(openai.PermissionDeniedError):
        ann.responses.create(model="echo", input="x", tools=[elsewhere])
    with client(server, BOSS) as boss:
        answer = boss.responses.create(model="echo", input="x", tools=[elsewhere])
        assert "tools_private" in answer.output[0].error
        with pytest.raises(openai.BadRequestError, match="variables"):
            boss.responses.create(model="echo", input="x", tools=[{**elsewhere, "headers": {"x": "${HOME}"}}])
    with tooled(tmp_path, tools_private=["127.0.0.1"]) as near, client(near, BOSS) as boss:
        answer = boss.responses.create(model="echo", input="far__sums__add 20 3", tools=[elsewhere])
        assert one(answer, "mcp_call").output == "23"
        assert "long-secret" not in answer.to_json()
        assert "a-value" not in answer.to_json()


class Odd(BaseHTTPRequestHandler):
    """A tool server whose only tool has no schema."""

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        about = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}
        results = {
            "initialize": {**about, "serverInfo": {"name": "odd", "version": "1"}},
            "tools/list": {"tools": [{"name": "lost"}]},
        }
        found = results.get(message["method"])
        answer = {"result": found} if found else {"error": {"code": -32601, "message": "Method not found"}}
        body = json.dumps({"jsonrpc": "2.0", "id": message.get("id"), **answer}).encode() if "id" in message else b""
        self.send_response(200 if body else 202)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def test_why_a_server_offers_nothing_is_told(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Odd) as odd:
        threading.Thread(target=odd.serve_forever, daemon=True).start()
        tool: Any = {"type": "mcp", "server_label": "odd", "server_url": f"http://127.0.0.1:{odd.server_port}/mcp"}
        with tooled(tmp_path, tools_private=["127.0.0.1"]) as near, client(near, BOSS) as boss:
            answer = boss.responses.create(model="echo", input="x", tools=[tool])
        odd.shutdown()
    assert answer.output[0].error.startswith("tool lost: ")
    assert "inputSchema" in answer.output[0].error
