"""Arguments and results on their way: secrets and credentials out, hidden text out, too long ones cut."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import msgspec

from dockyard.settings import Settings
from dockyard.tools.model import Outcome, Server, Tool, ToolDenied, ToolFailed
from dockyard.tools.safety import credentials, suspect
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
        value = {"content": outcome.content, "structured": outcome.structured}
        cleaned = self.clean(value)
        if (name := self._redactor.spread(cleaned)) is not None:
            raise ToolFailed(f"the result of tool {tool.id!r} is withheld: secret {name!r} is spread over its parts")
        cleaned = self._credentials(cleaned, f"the result of tool {tool.id!r}")
        ordering = next((found for text in texts(cleaned, keys=False) if (found := suspect.orders(text))), None)
        done: dict[str, Json] = {}
        if cleaned != value:
            done["cleaned"] = True
        if len(msgspec.json.encode(_encodable(cleaned))) > self._most:
            cleaned, done["cut"] = self._cut(cleaned), True
        if ordering:
            done["warning"] = f"the text {ordering}"
        if done or "untrusted-in" in tool.labels:
            done |= {"server": tool.server, "tool": tool.name, "untrusted": "untrusted-in" in tool.labels}
        meta = mapped(outcome.meta, self._text) | ({MARK: done} if done else {})
        return (
            msgspec.structs.replace(outcome, content=cleaned["content"], structured=cleaned["structured"], meta=meta),
            ordering,
        )

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
        """Content up to the bound, and a last block that says so. Structured content can't be cut and keep its form."""
        room, content = self._most, []
        for part in value["content"]:
            size = len(msgspec.json.encode(_encodable(part)))
            if size <= room:
                content.append(part)
            elif isinstance(part, dict) and part.get("type") == "text":
                content.append({**part, "text": str(part.get("text"))[: room // 4]})
                size = room
            room = max(0, room - size)
        structured = value["structured"]
        if structured is not None and len(msgspec.json.encode(_encodable(structured))) > self._most:
            raise ToolFailed("the structured result of a tool is too long", hint="set tools_result_bytes higher")
        return {"content": [*content, {"type": "text", "text": CUT}], "structured": structured}


def _encodable(value: Any) -> Any:
    """The value, where it has strings that are no Unicode with these replaced."""
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError:
        change: Callable[[str], str] = lambda text: text.encode("utf-8", "replace").decode()  # noqa: E731
        return mapped(value, change)
    return value
