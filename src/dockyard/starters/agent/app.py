"""An agent: the model decides which of your functions to call and with what, your code calls it, the model answers.

    python app.py "What is the weather in Oslo?"

Which tools are offered is narrowed by words first: a small model picks well from one or two, and badly from twenty.
"""

import json
import re
import sys

from connection import ask, connect

WEATHER = {"oslo": "4 degrees and rain", "cairo": "31 degrees and sunny", "lima": "19 degrees and fog"}


def weather(city: str) -> str:
    """Weather, temperature, rain or sun in a city."""
    return WEATHER.get(city.strip().lower(), f"no weather is known for {city}")


def add(first: float, second: float) -> str:
    """Add two numbers: plus, sum, total."""
    return f"{first + second:g}"


TOOLS = {
    "weather": (weather, {"city": {"type": "string", "maxLength": 30}}),
    "add": (add, {"first": {"type": "number"}, "second": {"type": "number"}}),
}


def offered(question: str, most: int = 1) -> list[str]:
    """The tools whose name and description share words with the question, best first; all if none does."""
    words = set(re.findall(r"[a-z]+", question.lower()))
    scores = {
        name: len(words & set(re.findall(r"[a-z]+", f"{name} {tool.__doc__}".lower())) - {"a", "in", "or", "two"})
        for name, (tool, _) in TOOLS.items()
    }
    best = [name for name in sorted(scores, key=lambda name: -scores[name]) if scores[name]]
    return best[:most] or list(TOOLS)


def described(name: str) -> dict:
    tool, properties = TOOLS[name]
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": tool.__doc__, "parameters": schema}}


def call_of(client, question: str) -> tuple[str, dict]:
    """Which tool with which arguments. A grammar holds the model to the tools' schemas."""
    pieces: dict[str, str] = {"name": "", "arguments": ""}
    asked = {"tools": [described(name) for name in offered(question)], "tool_choice": "required"}
    for chunk in client.chat("decide", question, **asked):
        for delta in chunk.tool_calls or ():
            if delta.get("index", 0) == 0:
                pieces["name"] += delta["function"].get("name") or ""
                pieces["arguments"] += delta["function"].get("arguments") or ""
    return pieces["name"], json.loads(pieces["arguments"])


def run(client, question: str) -> dict:
    """The answer with every step that led to it."""
    name, arguments = call_of(client, question)
    try:
        found = TOOLS[name][0](**arguments)
    except (TypeError, ValueError) as error:
        found = f"the tool failed: {error}"
    answer = ask(client, "say", question, dockyard={"prompt": {"variables": {"found": found}}})
    return {"question": question, "tool": name, "arguments": arguments, "found": found, "answer": answer}


if __name__ == "__main__":
    with connect() as client:
        print(json.dumps(run(client, " ".join(sys.argv[1:]) or "What is the weather in Oslo?"), indent=1))
