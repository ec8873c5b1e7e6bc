"""Servers elsewhere: reached where that is allowed, at the address that was checked, with their own headers."""

from __future__ import annotations

import asyncio
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.addresses import Guard
from dockyard.errors import DockyardError, Forbidden, SourceUnreachable
from dockyard.tools.model import Secret, Server, ToolFailed

from .talk import listening, talking

pytest.importorskip("mcp", reason="needs the extra mcp")
pytestmark = pytest.mark.anyio

LOOPBACK = ["127.0.0.1", "::1"]


def asgi(kind: str, seen: list[dict[str, str]]) -> Any:
    import mcp_types as types
    from mcp.server.lowlevel import Server as McpServer

    async def listed(_context: Any, _params: Any) -> Any:
        return types.ListToolsResult(tools=[types.Tool(name="echo", input_schema={"type": "object"})])

    async def called(_context: Any, params: Any) -> Any:
        text = "x" * params.arguments["size"] if "size" in params.arguments else params.arguments["text"]
        return types.CallToolResult(content=[types.TextContent(type="text", text=text)])

    server: Any = McpServer("elsewhere", on_list_tools=listed, on_call_tool=called)
    inner = server.sse_app() if kind == "sse" and hasattr(server, "sse_app") else None
    if kind == "sse" and inner is None:
        from mcp.server.mcpserver import MCPServer

        fast = MCPServer("elsewhere")

        @fast.tool()
        def echo(text: str) -> str:
            return text

        inner = fast.sse_app()
    if inner is None:
        inner = server.streamable_http_app(json_response=kind == "json")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            seen.append({name.decode(): value.decode() for name, value in scope["headers"]} | {"path": scope["path"]})
        await inner(scope, receive, send)

    return app


@pytest.mark.parametrize("kind", ["json", "stream", "sse"])
async def test_it_answers_and_gets_the_headers_of_its_entry(kind: str) -> None:
    seen: list[dict[str, str]] = []
    async with listening(asgi(kind, seen)) as port:
        server = Server(
            name="far",
            kind="remote",
            url=f"http://localhost:{port}/{'sse' if kind == 'sse' else 'mcp'}",
            transport="sse" if kind == "sse" else "http",
            headers={"X-Team": "${TEAM}", "Authorization": "Bearer ${token}"},
            env={"TEAM": "red"},
            secrets=(Secret(name="token"), Secret(name="other", header="X-Other")),
        )
        async with talking(server, {"token": "t0p-secret", "other": "o"}, tools_private=["localhost"]) as talk:
            assert [tool["name"] for tool in await talk.tools()] == ["echo"]
            assert await talk.good("echo", text="hallo") == "hallo"
    assert {(each["x-team"], each["authorization"], each["x-other"]) for each in seen} == {
        ("red", "Bearer t0p-secret", "o")
    }


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
@pytest.mark.parametrize(("name", "reason"), [("localhost", None), ("other.example", "CERTIFICATE_VERIFY_FAILED")])
async def test_the_certificate_is_that_of_the_name(
    name: str, reason: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    words = ["-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    made = await asyncio.create_subprocess_exec(
        "openssl", "req", *words, "-keyout", key, "-out", certificate, stderr=asyncio.subprocess.DEVNULL
    )
    assert await made.wait() == 0
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    async with listening(asgi("json", []), ssl_keyfile=key, ssl_certfile=certificate) as port:
        server = Server(name="far", kind="remote", url=f"https://localhost:{port}/mcp")
        if reason is None:
            async with talking(server, tools_private=LOOPBACK) as talk:
                assert await talk.good("echo", text="sealed") == "sealed"
        else:
            with pytest.raises(DockyardError, match=reason):
                async with talking(server, tools_private=LOOPBACK):
                    pass


async def test_an_answer_without_end_fails_that_call_alone() -> None:
    async with listening(asgi("json", [])) as port:
        server = Server(name="far", kind="remote", url=f"http://127.0.0.1:{port}/mcp")
        async with talking(server, tools_private=LOOPBACK) as talk:
            with pytest.raises(ToolFailed):
                await talk.call("echo", size=20 << 20)
            assert await talk.good("echo", text="still here") == "still here"


@pytest.mark.parametrize(
    ("url", "private", "reason"),
    [
        ("http://127.0.0.1:1/mcp", [], "not on the public internet"),
        ("https://127.0.0.1:1/mcp", [], "not on the public internet"),
        ("https://localhost:1/mcp", [], "not on the public internet"),
        ("https://[::1]:1/mcp", [], "not on the public internet"),
        ("https://[::ffff:10.0.0.1]/mcp", [], "not on the public internet"),
        ("https://10.1.2.3/mcp", ["192.168.0.0/16"], "not on the public internet"),
        ("https://0.0.0.0/mcp", [], "not on the public internet"),
        ("https://2130706433/mcp", [], "not on the public internet"),
        ("https://169.254.169.254/mcp", ["169.254.0.0/16"], "never reached"),
        ("https://[::ffff:169.254.169.254]/", ["0.0.0.0/0"], "never reached"),
        ("https://100.100.100.200/", ["100.64.0.0/10"], "never reached"),
        ("http://1.1.1.1/mcp", [], "without TLS"),
        ("https://no-such-name.invalid/mcp", [], "can't be resolved"),
        ("ftp://example.com/x", [], "no https URL"),
        ("https://", [], "only https URLs"),
        ("https://exa mple/\n", [], ""),
    ],
)
@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_what_may_not_be_reached_is_refused(url: str, private: list[str], reason: str, transport: Any) -> None:
    server = Server(name="far", kind="remote", url=url, transport=transport)
    with pytest.raises((Forbidden, SourceUnreachable, ToolFailed)) as caught:
        async with talking(server, tools_private=private):
            pass
    assert reason in caught.value.message


async def test_a_redirect_leads_nowhere_else() -> None:
    seen: list[dict[str, str]] = []

    async def inner(scope: Any, _receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        seen.append({name.decode(): value.decode() for name, value in scope["headers"]})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async with listening(inner) as target:

        async def outer(scope: Any, _receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                return
            location = f"http://127.0.0.1:{target}/".encode()
            await send({"type": "http.response.start", "status": 307, "headers": [(b"location", location)]})
            await send({"type": "http.response.body", "body": b""})

        async with listening(outer) as port:
            for transport in ("http", "sse"):
                server = Server(
                    name="far", kind="remote", url=f"http://127.0.0.1:{port}/mcp", transport=transport,
                    headers={"Authorization": "Bearer x"},
                )  # fmt: skip
                with pytest.raises(DockyardError):
                    async with talking(server, tools_private=LOOPBACK):
                        pass
    assert seen == []


async def test_a_name_that_moves_after_it_was_checked_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rebinding: the first answer of DNS is harmless, the next ones are not."""
    seen: list[dict[str, str]] = []
    async with listening(asgi("json", seen)) as port:
        answers = iter(["93.184.216.34"])
        real = asyncio.get_running_loop().getaddrinfo

        async def moving(host: Any, *words: Any, **more: Any) -> Any:
            return await real(next(answers, "127.0.0.1") if host == "moving.example" else host, *words, **more)

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", moving)
        server = Server(name="far", kind="remote", url=f"https://moving.example:{port}/mcp")
        with pytest.raises(DockyardError, match=r"127\.0\.0\.1|far"):
            async with talking(server):
                pass
    assert seen == []


async def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    for transport in ("http", "sse"):
        server = Server(name="far", kind="remote", url=f"http://127.0.0.1:{port}/mcp", transport=transport)
        with pytest.raises(DockyardError, match="far"):
            async with talking(server, tools_private=LOOPBACK):
                pass


@given(st.ip_addresses())
def test_only_public_addresses_pass_unless_listed(address: Any) -> None:
    allowed = Guard().refuses("host", str(address)) is None
    assert not allowed or (address.is_global and not address.is_multicast)
    assert Guard().listed("host", str(address)) is False
