"""Text of a model taken apart into what it says, thinks and calls, however it is cut into pieces."""

from __future__ import annotations

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from dockyard.engines._tool_calls import Parser, names

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "<x>"}}\n</tool_call>'
TEXT = f"<think>\nhm, 1 < 2\n</think>\n\nLet me see.\n{CALL}\n{CALL}"


def parsed(text: str, cuts: list[int], tools: frozenset[str] = frozenset({"add"})) -> tuple[str, str, list, str | None]:
    parser = Parser(tools, thinks=True)
    places = sorted({0, len(text), *(cut % max(1, len(text)) for cut in cuts)})
    said, thought, calls = "", "", []
    for start, end in itertools.pairwise(places):
        one = parser.add(text[start:end], last=end == len(text))
        said, thought, calls = said + one[0], thought + one[1], calls + (one[2] or [])
    return said, thought, calls, parser.finish


@given(st.lists(st.integers(0, 1000), max_size=30))
def test_thoughts_and_calls_are_found_wherever_the_text_is_cut(cuts: list[int]) -> None:
    said, thought, calls, finish = parsed(TEXT, cuts)
    assert said.strip() == "Let me see."
    assert thought.strip() == "hm, 1 < 2"
    assert finish == "tool_calls"
    assert [call["index"] for call in calls] == [0, 1]
    assert len({call["id"] for call in calls}) == 2
    assert all(json.loads(call["function"]["arguments"]) == {"a": 1, "b": "<x>"} for call in calls)


@given(st.text(alphabet="<>/thinktool_call {}", max_size=60), st.lists(st.integers(0, 100), max_size=8))
def test_nothing_that_is_no_call_is_lost(text: str, cuts: list[int]) -> None:
    said, thought, calls, finish = parsed(text, cuts)
    if "<think>" not in text and "<tool_call>" not in text:
        assert (said, thought, calls, finish) == (text, "", [], None)


def test_a_call_of_an_unknown_tool_or_of_no_json_stays_text() -> None:
    for inside in ('{"name": "rm", "arguments": {}}', "nonsense", '{"name": "add", "arguments": 3}'):
        said, _, calls, finish = parsed(f"<tool_call>{inside}</tool_call>", [])
        assert (said, calls, finish) == (f"<tool_call>{inside}</tool_call>", [], None)


def test_a_thought_that_the_prompt_began_goes_on() -> None:
    parser = Parser(frozenset(), thinks=True, thinking=True)
    assert parser.add("so </think>yes", last=True) == ("yes", "so ", None)


def test_names_of_tools() -> None:
    assert names([{"type": "function", "function": {"name": "f"}}, {"type": "other"}]) == {"f"}
    assert names(None) == frozenset()
