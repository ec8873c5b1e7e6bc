"""Arguments and results on their way: secrets and credentials out, hidden text out, too long ones cut."""

from __future__ import annotations

import logging
import re

import msgspec

from dockyard.settings import Settings
from dockyard.tools.model import Outcome, Server, Tool, ToolDenied, ToolFailed
from dockyard.tools.safety import credentials, suspect
from dockyard.tools.safety.canonical import canonical
from dockyard.tools.safety.hidden import strip
from dockyard.tools.safety.redact import Redactor, mapped, texts
from dockyard.tools.secrets import SecretStore
from dockyard.types import Json

log = logging.getLogger(__name__)

MARK = "dockyard/safety"
"""Key of a result's ``_meta``."""

_SECRET_NAME = re.compile(r"token|secret|passw|api_?-?key|auth|credential|private_?key|cookie", re.I)
"""Variables and headers whose values are secrets though the entry has them in the open."""

CUT = "[cut: the result of this tool was too long]"
MARGIN = 2048
"""Characters before a cut that go too: more than any secret takes in any encoding that is looked for."""


class Cleaner:
    """Knows every secret of the store, and those that servers were given from elsewhere."""

    def __init__(self, settings: Settings, secrets: SecretStore) -> None:
        self._mode = settings.tools_credentials
        self._most = settings.tools_result_bytes
        self._secrets = secrets
        self._known: dict[str, str] = {}
        self._redactor = Redactor()

    def secrets_of(self, server: Server) -> dict[str, str]:
        """A server's secrets by name, from now on looked for, and this server's to be sent. Raises NotFound."""
        found = self._secrets.of(server)
        for name, value in found.items():
            self._redactor.know(name, value, server.name)
        return found

    def introduce(self, server: Server) -> None:
        """Look for what this server is given, as far as it is there: a secret that is missing is no matter yet."""
        stored = self._secrets.values()
        for secret in server.secrets:
            if value := stored.get(secret.name):
                self._redactor.know(secret.name, value, server.name)
        for key, value in {**server.env, **server.headers}.items():
            if _SECRET_NAME.search(key) and "${" not in value:
                self._redactor.know(f"{server.name}.{key}", value, server.name)
                self._redactor.know(f"{server.name}.{key}", value.rpartition(" ")[2], server.name)

    def outgoing(self, tool: Tool, arguments: dict[str, Json]) -> dict[str, Json]:
        redactor = self._all()
        name = redactor.foreign(arguments, tool.server) or redactor.foreign(mapped(arguments, strip), tool.server)
        if name is not None:
            raise ToolDenied(
                f"the arguments of tool {tool.id!r} hold the secret {name!r}, which is not of server {tool.server!r}",
                hint="leave it out",
            )
        cleaned = self._credentials(arguments, f"the arguments of tool {tool.id!r}")
        assert isinstance(cleaned, dict)
        return cleaned

    def incoming(self, tool: Tool, outcome: Outcome) -> tuple[Outcome, str | None]:
        """The result as it may pass, and what in it talks to the model as its user would, if anything does."""
        value: dict[str, Json] = {"content": outcome.content, "structured": outcome.structured}
        value |= {"extra": outcome.extra, "meta": outcome.meta}
        done: dict[str, Json] = {}
        if _size(value) > self._most:
            value, done["cut"] = self._cut(value), True
        cleaned = self.clean(value)
        if (name := self._redactor.spread(cleaned)) is not None:
            raise ToolFailed(f"the result of tool {tool.id!r} is withheld: secret {name!r} is spread over its parts")
        cleaned = self._credentials(cleaned, f"the result of tool {tool.id!r}")
        ordering = next((found for text in texts(cleaned, keys=False) if (found := suspect.orders(text))), None)
        if cleaned != value:
            done["cleaned"] = True
        if "cut" in done:
            # The part of a secret that a cut left standing is at the end, where nobody could know it for one.
            *content, last = cleaned["content"]
            content.append({**last, "text": str(last.get("text"))[:-MARGIN] + CUT})
            cleaned = {**cleaned, "content": content}
        if ordering:
            done["warning"] = f"the text {ordering}"
        if done or "untrusted-in" in tool.labels:
            done |= {"server": tool.server, "tool": tool.name, "untrusted": "untrusted-in" in tool.labels}
        told = {name: one for name, one in cleaned["meta"].items() if name != MARK}  # which is for us to say
        cleaned = {**cleaned, "meta": told | ({MARK: done} if done else {})}
        return msgspec.structs.replace(outcome, **cleaned), ordering

    def clean(self, value: Json) -> Json:
        self._all()
        return mapped(value, self._text)

    def _text(self, text: str) -> str:
        # Before and after: a secret may be broken by characters that can't be seen, or be made of such.
        return self._redactor.clean(strip(self._redactor.clean(text)))

    def _all(self) -> Redactor:
        stored = self._secrets.values()
        if stored is not self._known:
            for name, value in stored.items():
                self._redactor.know(name, value)
            self._known = stored
        return self._redactor

    def _credentials(self, value: Json, where: str) -> Json:
        if self._mode == "off":
            return value
        kind = next((found for text in texts(value) if (found := credentials.credential(text))), None)
        if kind is None:
            return value
        log.warning("%s hold what looks like a credential: %s", where, kind)
        if self._mode == "block":
            raise ToolDenied(f"{where} hold what looks like a credential: {kind}", param="tools_credentials")
        return mapped(value, credentials.without) if self._mode == "redact" else value

    def _cut(self, value: dict[str, Json]) -> dict[str, Json]:
        """Content up to the bound, of which the last is a text. Structured content can't be cut and keep its form.

        What the protocol does not name is left out, and so is what is said of the result, if that is long.
        """
        structured = value["structured"]
        rest = {"structured": structured, "extra": {}, "meta": value["meta"] if _size(value["meta"]) < MARGIN else {}}
        room = self._most - (_size(structured) if structured is not None else 0)
        if room < 0:
            raise ToolFailed("the structured result of a tool is too long", hint="set tools_result_bytes higher")
        content: list[Json] = []
        for part in value["content"]:
            size = _size(part)
            if size > room:
                whole = str(part.get("text")) if isinstance(part, dict) and part.get("type") == "text" else ""
                cut = {"type": "text", "text": whole[:room]}
                return {"content": [*content, cut], **rest}
            content.append(part)
            room -= size
        return {"content": [*content, {"type": "text", "text": ""}], **rest}


def _size(value: Json) -> int:
    """Bytes of JSON."""
    try:
        return len(msgspec.json.encode(value))
    except UnicodeEncodeError:  # strings that are no Unicode
        return len(canonical(value))
