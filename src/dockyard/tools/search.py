"""Finding tools among many by what they do: BM25 over names, descriptions and parameters, with a small thesaurus.

A model that gets three hundred tools pays for all of their definitions in every request. With search it gets two:
``search_tools`` says which fit a task, ``call_tool`` calls one of them.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from dockyard.errors import InvalidRequest
from dockyard.tools._search_words import GROUPS, STOP
from dockyard.tools.model import Outcome, Tool
from dockyard.types import Json

SEARCH_TOOLS = "search_tools"
CALL_TOOL = "call_tool"
FOUND = 5
"""Tools that one search shows."""

K1, B = 0.8, 0.4
WEIGHTS = {"name": 2.5, "server": 2.5, "title": 2.0, "description": 1.5, "parameters": 0.5}
"""How much a word counts by where it stands."""
KIN = 0.7
"""How much a word of the same meaning counts, against the word itself."""

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_ENDINGS = (
    "ization",
    "isation",
    "ations",
    "ation",
    "ments",
    "ment",
    "ings",
    "ing",
    "ers",
    "est",
    "ies",
    "ied",
    "ed",
    "es",
    "s",
)


class Index:
    """Some tools, ready to be searched. ``search`` is deterministic: equal scores keep the order given."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools = list(tools)
        self._counts = [_counts(tool) for tool in self._tools]
        self._lengths = [sum(counts.values()) for counts in self._counts]
        self._mean = sum(self._lengths) / len(self._lengths) if self._lengths else 1.0
        self._having: Counter[str] = Counter()
        self._places: dict[str, list[int]] = {}
        for place, counts in enumerate(self._counts):
            for word in counts:
                self._having[word] += 1
                self._places.setdefault(word, []).append(place)

    def search(self, text: str, k: int = FOUND) -> list[Tool]:
        """The ``k`` tools that fit best, best first; none that has nothing in common with the text."""
        scores: dict[int, float] = {}
        asked = words(text)
        joined = [one + other for one, other in itertools.pairwise(asked) if one + other in self._places]
        for word in dict.fromkeys([*asked, *joined]):
            best: dict[int, float] = {}
            for other, share in _meanings(word).items():
                for place in self._places.get(other, ()):
                    best[place] = max(best.get(place, 0.0), share * self._score(other, place))
            for place, score in best.items():
                scores[place] = scores.get(place, 0.0) + score
        order = sorted(scores, key=lambda place: (-scores[place], place))
        return [self._tools[place] for place in order[:k]]

    def _score(self, word: str, place: int) -> float:
        having = self._having[word]
        rare = math.log(1 + (len(self._tools) - having + 0.5) / (having + 0.5))
        often = self._counts[place][word]
        return rare * often * (K1 + 1) / (often + K1 * (1 - B + B * self._lengths[place] / self._mean))


def words(text: str) -> list[str]:
    """A text's words without endings and without those that say nothing."""
    found = [part.lower() for part in _WORD.findall(text)]
    return [stem(word) for word in found if word not in STOP and (len(word) > 1 or word.isdigit())]


def stem(word: str) -> str:
    """A word without its ending; roughly, and the same for all its forms."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            if ending in ("ies", "ied"):
                return word + "y"
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeious":
        word = word[:-1]
    return word.removesuffix("e") if len(word) > 3 else word


_KIN: dict[str, dict[str, float]] = {}


def _meanings(word: str) -> dict[str, float]:
    """A word and those of the same meaning, with what each counts."""
    if not _KIN:
        found: dict[str, dict[str, float]] = {}
        for group in GROUPS:
            stems = dict.fromkeys(stem(one) for one in group.split())
            for one in stems:
                found.setdefault(one, {}).update(dict.fromkeys(stems, KIN))
        _KIN.update(found)
    return {**_KIN.get(word, {}), word: 1.0}


def _counts(tool: Tool) -> dict[str, float]:
    """How much of each word a tool has."""
    properties = tool.schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    told = [str(one.get("description") or "") for one in properties.values() if isinstance(one, dict)]
    texts = {
        "name": tool.name,
        "server": tool.server,
        "title": str(tool.raw.get("title") or ""),
        "description": tool.description,
        "parameters": " ".join([*map(str, properties), *told]),
    }
    found: defaultdict[str, float] = defaultdict(float)
    for field, text in texts.items():
        for word, count in Counter(words(text)).items():
            found[word] += WEIGHTS[field] * min(count, 3)
    return found


def meta_tools(count: int) -> list[dict[str, Json]]:
    """The MCP definitions of ``search_tools`` and ``call_tool`` over so many tools."""
    return [
        {
            "name": SEARCH_TOOLS,
            "description": f"Find tools for a task among {count}. Gives names, descriptions and input schemas.",
            "inputSchema": {
                "type": "object",
                "properties": {"query": {"type": "string", "description": "What has to be done, in a few words."}},
                "required": ["query"],
                "additionalProperties": False,
            },
            "annotations": {"readOnlyHint": True},
        },
        {
            "name": CALL_TOOL,
            "description": "Call a tool that search_tools found.",
            "inputSchema": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "arguments": {"type": "object"}},
                "required": ["name"],
                "additionalProperties": False,
            },
        },
    ]


class Finder:
    """Searches lists of tools, and keeps the index of the last one."""

    def __init__(self) -> None:
        self._known: tuple[tuple[tuple[str, str], ...], Index] = ((), Index(()))

    def find(self, tools: Sequence[Tool], query: str) -> list[Tool]:
        key = tuple((tool.id, tool.fingerprint) for tool in tools)
        if self._known[0] != key:
            self._known = (key, Index(tools))
        return self._known[1].search(query)


def answer(found: Sequence[Tool]) -> Outcome:
    """What ``search_tools`` says."""
    rows = [{"name": tool.id, "description": tool.description, "inputSchema": tool.schema} for tool in found]
    text = msgspec.json.encode(rows).decode() if rows else "No tool was found; try other words."
    return Outcome(content=[{"type": "text", "text": text}])


def meant(arguments: dict[str, Json]) -> tuple[str, dict[str, Json]]:
    """The tool that ``call_tool`` names, and its arguments. Raises InvalidRequest."""
    name, given = arguments.get("name"), arguments.get("arguments") or {}
    if not isinstance(name, str) or not isinstance(given, dict):
        raise InvalidRequest("call_tool takes `name`, a text, and `arguments`, an object", param="arguments")
    return name, given
