"""The console's files: what they may load, and that they need no key while what they ask for does."""

from __future__ import annotations

import re
from importlib import resources

import pytest
from litestar import Litestar

from dockyard.client import AsyncClient
from dockyard.console import POLICY, handlers

PAGE = resources.files("dockyard.console").joinpath("page")


@pytest.mark.anyio
async def test_the_page_and_its_files_are_served_under_a_strict_policy() -> None:
    async with AsyncClient(app=Litestar(route_handlers=handlers(), openapi_config=None)) as client:
        page = await client._send("GET", "/")
        text = b"".join([part async for part in page.body()]).decode()
        assert page.headers["content-security-policy"] == POLICY
        assert page.headers["content-type"].startswith("text/html")
        named = set(re.findall(r'(?:src|href)="(/console/[^"]+)"', text))
        assert {"/console/app.js", "/console/style.css", "/console/icon.svg"} <= named
        for path in named:
            reply = await client._send("GET", path)
            assert reply.status == 200
            assert reply.headers["x-content-type-options"] == "nosniff"
            await reply.aclose()
        assert not text.count("<style") + text.count(" style=") + text.count("onclick=")


def test_nothing_comes_from_elsewhere_and_no_text_becomes_markup() -> None:
    for file in PAGE.iterdir():
        text = file.read_text()
        assert re.findall(r"https?://(?!www\.w3\.org)", text) == [], file.name
        assert "innerHTML" not in text
        assert "eval(" not in text


def test_the_policy_allows_only_the_server_itself() -> None:
    parts = dict(part.strip().split(" ", 1) for part in POLICY.split(";"))
    assert parts.pop("default-src") == "'none'"
    assert set(parts.values()) <= {"'self'", "'none'"}


@pytest.mark.anyio
async def test_an_unchanged_file_is_not_sent_twice() -> None:
    async with AsyncClient(app=Litestar(route_handlers=handlers(), openapi_config=None)) as client:
        first = await client._transport.send("GET", "/", {}, b"")
        again = await client._transport.send("GET", "/", {"if-none-match": first.headers["etag"]}, b"")
        assert (first.status, again.status) == (200, 304)


@pytest.mark.anyio
async def test_the_page_is_there_for_those_who_only_ask() -> None:
    async with AsyncClient(app=Litestar(route_handlers=handlers(), openapi_config=None)) as client:
        reply = await client._send("HEAD", "/")
        assert reply.status == 200
        await reply.aclose()
