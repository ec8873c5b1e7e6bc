"""Writes docs/compatibility.md: what becomes of each endpoint and field of OpenAI's API when this server is asked.

Nothing on that page is claimed by hand. The endpoints are methods of the installed ``openai`` package and the fields
their parameters; each is sent by that client to the application, in process, with the scripted model behind it, and
what the engine was asked and what came back is compared with the same request without the field.
``--check`` only says whether the page is complete.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openai

sys.path.insert(0, str(Path(__file__).parent))

from openai_samples import COMMON, FIELDS, USER, WITH, Labelled

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "compatibility.md"
SUITES = ROOT / "docs" / "compatibility.json"
RESULTS = Path(sys.prefix) / "client-suites" / "results.json"
NOTE = "<!-- Written by scripts/compatibility.py; it asks the running application. Do not edit. -->\n\n"
HONOURED, IGNORED, REFUSED, UNSERVED, UNASKED = (
    "honoured", "accepted, no effect", "refused by name", "not served", "not asked",
)  # fmt: skip
ABOUT = """\
# Compatibility with OpenAI's API

Asked of a running Dockyard with the `openai` package {version}, every parameter of these methods, one at a time:

- **honoured**: the engine is asked something else, or the answer is another one, or the value is kept and told;
- **accepted, no effect**: engine and answer are the same; mostly because what it is for does not exist on one's own
  machine, or shows later (the life of a batch's output);
- **refused by name**: an error whose `param` or message names the field;
- **not served**: there is no such route.

The model behind it is the built-in scripted one, which takes what a good engine takes; an engine that can't honour a
field refuses it by name.

**{score}**

"""
_MARK = re.compile(
    r"(?<![\w-])[A-Za-z]+[-_][0-9a-f]{8,}[-\w]*"  # identities
    r"|(?<![\d.])1[6-9]\d{8}(\.\d+)?(?!\d)"  # times
    r'|"obfuscation":"[^"]*"'
    r'|"request_counts":\{[^}]*\}|"status":"(validating|in_progress|finalizing|completed)"'  # how far a batch is
    r'|"(in_progress_at|finalizing_at|completed_at|output_file_id|usage)":null'
)


class Recorder:
    """The real fleet, remembering what engines are asked."""

    def __init__(self, fleet: Any) -> None:
        self._fleet = fleet
        self.seen: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fleet, name)

    async def lease(self, *words: Any, **named: Any) -> Any:
        lease = await self._fleet.lease(*words, **named)
        # The lines of a batch come when it suits, and are of no request.
        return lease if named.get("lane") == "batch" else _Lease(lease, self.seen)


class _Lease:
    def __init__(self, lease: Any, seen: list[bytes]) -> None:
        self._lease = lease
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lease, name)

    def generate(self, request: Any) -> Any:
        self._seen.append(msgspec.json.encode(msgspec.structs.replace(request, id="")))
        return self._lease.generate(request)


class Method(msgspec.Struct, frozen=True):
    """One endpoint: its route, the client's method for it, and what every request to it must have."""

    group: str
    route: str
    call: Callable[[openai.OpenAI], Any]
    base: dict[str, Any]


CHAT = {"model": "echo", "messages": USER}
RESPONSE = {"model": "echo", "input": USER[0]["content"]}
TURNS: Any = [{"role": "user", "content": text} for text in ("one", "two", "three")]
BATCH = {"completion_window": "24h", "endpoint": "/v1/chat/completions", "input_file_id": "FILE"}
METHODS = (
    Method("chat", "POST /chat/completions", lambda c: c.chat.completions, CHAT),
    Method("chat", "GET /chat/completions", lambda c: (c.chat.completions, "list"), {}),
    Method("chat", "GET /chat/completions/{id}", lambda c: (c.chat.completions, "retrieve"), {"completion_id": "x"}),
    Method("completions", "POST /completions", lambda c: c.completions, {"model": "echo", "prompt": "one two three"}),
    Method("responses", "POST /responses", lambda c: c.responses, RESPONSE),
    Method("responses", "GET /responses/{id}", lambda c: (c.responses, "retrieve"), {"response_id": "RESPONSE"}),
    Method("responses", "GET /responses/{id}/input_items", lambda c: (c.responses.input_items, "list"),
           {"response_id": "RESPONSE"}),
    Method("responses", "POST /responses/input_tokens", lambda c: (c.responses.input_tokens, "count"), RESPONSE),
    Method("responses", "POST /responses/compact", lambda c: (c.responses, "compact"), RESPONSE),
    Method("responses", "POST /responses/{id}/cancel", lambda c: (c.responses, "cancel"), {"response_id": "RUNNING"}),
    Method("responses", "DELETE /responses/{id}", lambda c: (c.responses, "delete"), {"response_id": "SPARE"}),
    Method("embeddings", "POST /embeddings", lambda c: c.embeddings, {"model": "echo", "input": "one two"}),
    Method("moderations", "POST /moderations", lambda c: c.moderations, {"input": "fine weather"}),
    Method("models", "GET /models", lambda c: (c.models, "list"), {}),
    Method("models", "GET /models/{id}", lambda c: (c.models, "retrieve"), {"model": "echo"}),
    Method("models", "DELETE /models/{id}", lambda c: (c.models, "delete"), {"model": "no-such-model"}),
    Method("files", "POST /files", lambda c: c.files, {"file": ("a.jsonl", b"{}\n"), "purpose": "batch"}),
    Method("files", "GET /files", lambda c: (c.files, "list"), {}),
    Method("files", "GET /files/{id}", lambda c: (c.files, "retrieve"), {"file_id": "FILE"}),
    Method("files", "GET /files/{id}/content", lambda c: (c.files, "content"), {"file_id": "FILE"}),
    Method("files", "DELETE /files/{id}", lambda c: (c.files, "delete"), {"file_id": "SPAREFILE"}),
    Method("batches", "POST /batches", lambda c: c.batches, BATCH),
    Method("batches", "GET /batches", lambda c: (c.batches, "list"), {}),
    Method("batches", "GET /batches/{id}", lambda c: (c.batches, "retrieve"), {"batch_id": "BATCH"}),
    Method("batches", "POST /batches/{id}/cancel", lambda c: (c.batches, "cancel"), {"batch_id": "BATCH"}),
)  # fmt: skip


class Answer(msgspec.Struct, frozen=True):
    """What came of one request: the status, the body without what differs each time, and what engines were asked."""

    status: int
    body: str
    asked: tuple[bytes, ...]


Survey = list[tuple[Method, bool, dict[str, list[tuple[str, str]]]]]
"""Each endpoint, whether it is served, and for each field the values tried and what became of them."""


class Asker:
    """Sends requests and compares; ``names`` are the identities of what was made beforehand."""

    def __init__(self, client: openai.OpenAI, recorder: Recorder) -> None:
        self.client = client
        self._recorder = recorder
        self.names: dict[str, str] = {}

    def ask(self, method: Method, fields: dict[str, Any]) -> Answer:
        del self._recorder.seen[:]
        named = {name: self.names.get(one, one) if isinstance(one, str) else one for name, one in fields.items()}
        resource, call = place(self.client, method)
        try:
            raw = getattr(resource.with_raw_response, call)(**named)
            response = raw.http_response
            body = response.read().decode("utf-8", "replace")
        except openai.APIStatusError as error:
            response = error.response
            body = response.text
        return Answer(response.status_code, _MARK.sub("~", body), tuple(self._recorder.seen))

    def prepare(self) -> None:
        """Make what the other requests speak of."""
        client, line = self.client, {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": CHAT}
        makers: dict[str, Callable[[], Any]] = {
            "RESPONSE": lambda: client.responses.create(model="echo", input=TURNS),
            "SPARE": lambda: client.responses.create(**RESPONSE),
            "RUNNING": lambda: client.responses.create(**RESPONSE, background=True),
            "CONVERSATION": client.conversations.create,
            "SPAREFILE": lambda: client.files.create(file=("s.jsonl", b"{}\n"), purpose="batch"),
            "FILE": lambda: client.files.create(file=("a.jsonl", json.dumps(line).encode()), purpose="batch"),
            "BATCH": lambda: client.batches.create(**{**BATCH, "input_file_id": self.names.get("FILE", "x")}),
            "ITEM": lambda: client.responses.input_items.list(self.names["RESPONSE"]).data[0],
        }
        for name, make in makers.items():
            try:
                self.names[name] = make().id
            except (openai.APIStatusError, KeyError, IndexError):
                self.names[name] = "missing"


def place(client: openai.OpenAI, method: Method) -> tuple[Any, str]:
    found = method.call(client)
    return found if isinstance(found, tuple) else (found, "create")


def parameters(client: openai.OpenAI, method: Method) -> list[str]:
    """The fields of an endpoint, as the client's method has them, without what is in the path."""
    resource, call = place(client, method)
    left_out = {"timeout", "self", *(method.base if "{id}" in method.route else ())}
    names = inspect.signature(getattr(resource, call)).parameters
    return [name for name in names if not name.startswith("extra_") and name not in left_out]


@contextmanager
def asker(**options: Any) -> Iterator[Asker]:
    """A client of an application in this process, which has the scripted model only."""
    from litestar.testing import TestClient

    from dockyard.api import create_app
    from dockyard.artifact.store import Store
    from dockyard.fleet import Fleet
    from dockyard.settings import Settings

    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=home, log_level="error", **options)
        store = Store.open(settings)
        recorder = Recorder(Fleet(settings, store))
        app = create_app(settings, store=store, fleet=recorder)
        with TestClient(app, base_url="http://127.0.0.1:12434", raise_server_exceptions=False) as http:
            bridge = httpx.Client(transport=http._transport, base_url="http://127.0.0.1:12434")
            client = openai.OpenAI(base_url="http://127.0.0.1:12434/v1", api_key="x", http_client=bridge, max_retries=0)
            found = Asker(client, recorder)
            found.prepare()
            yield found


def samples(method: Method, field: str) -> list[Any]:
    return FIELDS[method.group].get(field, COMMON.get(field, []))


def verdicts(found: Asker, method: Method, field: str) -> list[tuple[str, str]]:
    """Each value that was tried, shown, and what became of it."""
    base = {**method.base, **WITH.get((method.group, field), {})}
    without = found.ask(method, base)
    tried = []
    for one in samples(method, field):
        label, value = one if isinstance(one, Labelled) else (f"`{json.dumps(one, default=str)}`", one)
        same = method.base.get(field) == value
        tried.append(
            (label, HONOURED if same else verdict(found.ask(method, {**base, field: value}), without, field, value))
        )
    return tried


def verdict(answer: Answer, without: Answer, field: str, value: Any) -> str:
    """What became of a field, given the answers with and without it."""
    if answer.status < 400:
        changed = (answer.status, answer.body, answer.asked) != (without.status, without.body, without.asked)
        return HONOURED if changed else IGNORED
    error = told(answer)
    names = [field, *(value if isinstance(value, dict) else ())]
    said = f"{error.get('param')} {error.get('message')}"
    return REFUSED if any(name in said for name in names) else f"refused: {error.get('code')}"


def told(answer: Answer) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(answer.body)["error"]
    except (ValueError, KeyError, TypeError):
        found = {"code": str(answer.status)}
    return found


def survey() -> Survey:
    """Each endpoint, whether it is served, and what became of its fields."""
    found: Survey = []
    # Guards refuse token ids, which they can't read: only what is to be judged meets one.
    with asker() as plain, asker(deny_patterns=("forbidden",)) as guarded:
        for method in METHODS:
            one = guarded if method.group == "moderations" else plain
            answer = one.ask(method, method.base)
            nowhere = answer.status == 404 and "there is nothing at" in answer.body
            served = answer.status != 405 and not nowhere
            names = parameters(one.client, method) if served else []
            fields = {name: verdicts(one, method, name) or [("", UNASKED)] for name in names}
            found.append((method, served, fields))
    return found


def shown(tried: list[tuple[str, str]]) -> str:
    """One verdict where all values agree, else one for each."""
    kinds = {one for _, one in tried}
    return kinds.pop() if len(kinds) == 1 else "; ".join(f"{label} {one}" for label, one in tried)


def page(found: Survey, suites: dict[str, Any]) -> str:
    served = [one for one in found if one[1]]
    firsts = [tried[0][1] for _, _, fields in served for tried in fields.values()]
    counts = {kind: firsts.count(kind) for kind in (HONOURED, IGNORED, REFUSED)}
    score = (
        f"{len(served)} of {len(found)} endpoints; of {len(firsts)} fields {counts[HONOURED]} honoured, "
        f"{counts[IGNORED]} accepted without effect, {counts[REFUSED]} refused by name, "
        f"{len(firsts) - sum(counts.values())} otherwise"
    )
    parts = [NOTE, ABOUT.format(version=openai.__version__, score=score), "## Client suites that pass\n\n"]
    parts += ["| suite | version | what passed |\n|---|---|---|\n"]
    parts += [f"| {name} | {one['version']} | {one['result']} |\n" for name, one in sorted(suites.items())]
    parts.append("\n## Endpoints\n\n| endpoint | |\n|---|---|\n")
    parts += [f"| `{method.route}` | {'served' if answered else UNSERVED} |\n" for method, answered, _ in found]
    for method, answered, fields in found:
        if answered and fields:
            rows = [f"| `{name}` | {shown(tried)} |\n" for name, tried in fields.items()]
            parts += [f"\n## `{method.route}`\n\n| field | |\n|---|---|\n", *rows]
    return "".join(parts)


def suites() -> dict[str, Any]:
    """What client suites passed: those on record, and those that the tests noted since."""
    found: dict[str, Any] = json.loads(SUITES.read_text()) if SUITES.exists() else {}
    if RESULTS.exists():
        found |= json.loads(RESULTS.read_text())
    return found


def missing() -> list[str]:
    """Endpoints and fields that the page on disk does not speak of: the page is older than the code."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    client = openai.OpenAI(api_key="x")
    found = []
    for method in METHODS:
        if f"| `{method.route}` |" not in text:
            found.append(method.route)
        elif section := text.partition(f"\n## `{method.route}`\n")[2].partition("\n## ")[0]:
            found += [
                f"{method.route}: {name}" for name in parameters(client, method) if f"| `{name}` |" not in section
            ]
    return found


def main() -> int:
    if "--check" in sys.argv[1:]:
        found = missing()
        print("\n".join(found) or "compatibility: complete")
        return bool(found)
    passed = suites()
    text = page(survey(), passed)
    SUITES.write_text(json.dumps(passed, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    PAGE.write_text(text, encoding="utf-8")
    print(text.partition("\n## Client")[0].rpartition("\n\n**")[2].strip("*\n"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
