"""The console in a real browser, against a real server: what a person does there, and what they see."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync"]


@contextmanager
def serving(home: Path, *flags: str) -> Iterator[str]:
    """A server of this home; its URL."""
    command = [sys.executable, "-m", "dockyard", "serve", "--port", "0", *flags]
    environ = {**os.environ, "DOCKYARD_HOME": str(home)}
    server = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        for line in server.stderr:
            if found := re.search(r"console (http://\S+)/,", line):
                yield found[1]
                break
        else:
            pytest.fail("the server did not start")
    finally:
        server.terminate()
        server.communicate(timeout=30)
    assert server.returncode == 0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, starter_gguf: Path) -> Path:
    from dockyard.artifact.packing import pack_files
    from dockyard.artifact.reference import parse
    from dockyard.artifact.store import Store

    home = tmp_path_factory.mktemp("console")
    pack_files(Store(home / "store"), {starter_gguf.name: starter_gguf}, reference=parse("smollm2"), link=True)
    return home


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[str]:
    with serving(home, "--echo-tokens-per-second", "20", "--offline") as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not Path(CHROMIUM).exists():
        pytest.skip("there is no Chromium here (apt-get install chromium)")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A fresh page; a script error or a breach of the policy fails the test."""
    opened = browser.new_page()
    opened.set_default_timeout(20_000)
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
    yield opened
    opened.close()
    assert wrong == []


def test_chat_streams_and_says_what_it_took(page: Any, server: str) -> None:
    page.goto(server)
    page.select_option("#model", "echo")
    page.fill("#prompt", "one two three four five")
    page.press("#prompt", "Enter")
    page.wait_for_selector(".turn.assistant:has-text('one')")
    page.wait_for_selector(".turn.assistant:has-text('one two three four five')")
    page.wait_for_selector(".turn.assistant .soft:has-text('tokens/s')")
    assert page.inner_text(".turn.user .text") == "one two three four five"
    assert page.input_value("#prompt") == ""
    card = page.locator("#loaded .card")
    card.wait_for()
    assert "echo" in card.inner_text()
    card.get_by_role("button", name="Unload").click()
    page.wait_for_selector("#loaded:has-text('No model is in memory')")
    page.click("#clear")
    assert page.locator(".turn").count() == 0


def test_stop_ends_an_answer_and_keeps_what_came(page: Any, server: str) -> None:
    page.goto(server)
    page.select_option("#model", "echo")
    page.fill("#prompt", " ".join(f"word{number}" for number in range(400)))
    page.press("#prompt", "Enter")
    page.wait_for_selector(".turn.assistant:has-text('word5')")
    page.click("#stop")
    page.wait_for_selector(".turn.assistant .soft:has-text('stopped')")
    assert "word399" not in page.inner_text(".turn.assistant .text")
    page.wait_for_selector("#loaded:has-text('0 of')")


def test_the_store_shows_what_a_model_is(page: Any, server: str) -> None:
    page.goto(server)
    card = page.locator("#store .card", has_text="smollm2")
    card.locator(".fact", has_text="135M parameters").wait_for()
    text = card.inner_text()
    assert "llama" in text
    assert "Q4_1" in text
    assert "98.4 MB" in text
    card.locator("summary").click()
    assert "docker.io/ai/smollm2:latest" in card.inner_text()
    card.get_by_role("button", name="Chat").click()
    assert page.input_value("#model") == "smollm2"
    assert page.evaluate("document.activeElement.id") == "prompt"


def test_a_pull_that_fails_says_why(page: Any, server: str) -> None:
    page.goto(server)
    page.fill("#pull-name", "no-such-model")
    page.get_by_role("button", name="Pull").click()
    page.wait_for_selector("#pull-state:has-text('offline')")


def test_a_server_with_keys_asks_for_one(page: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "home", "--api-key", "sk-infer-1234", "--api-key", "sk-manage-1234:manage") as url:
        page.goto(url)
        page.wait_for_selector("#key-dialog[open]")
        page.fill("#key", "sk-infer-1234")
        page.get_by_role("button", name="Use it").click()
        page.wait_for_selector("#health:has-text('this key may chat, not manage')")
        page.select_option("#model", "echo")
        page.fill("#prompt", "hello")
        page.press("#prompt", "Enter")
        page.wait_for_selector(".turn.assistant:has-text('hello')")
        page.click("#key-button")
        page.fill("#key", "sk-manage-1234")
        page.press("#key", "Enter")
        page.wait_for_selector("#health:has-text('running')")


def test_every_control_has_a_name_and_dark_is_dark(page: Any, server: str) -> None:
    page.goto(server)
    page.locator("#store .card").first.wait_for()
    page.locator("#options summary").click()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, textarea, [role=meter]")]
            .filter((each) => !(each.labels?.length || each.ariaLabel || each.textContent.trim()))
            .map((each) => each.outerHTML)"""
    )
    assert nameless == []
    page.emulate_media(color_scheme="light")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_a_chat_is_put_into_a_prompt_of_the_library(page: Any, server: str, home: Path) -> None:
    from dockyard.artifact.store import Store
    from dockyard.prompt.library import Library

    library = Library(Store(home / "store"))
    for greeting in ("Dear", "Hello"):
        library.create("letter", f"variables: {{who: {{}}}}\ntemplate: '{greeting} {{{{ who }}}}: {{{{ input }}}}'")
    page.goto(server)
    card = page.get_by_label("letter", exact=True)
    card.get_by_role("button", name="Use").click()
    page.fill("#prompt-variables", "who=Ann")
    page.select_option("#model", "echo")
    page.fill("#prompt", "come soon")
    page.press("#prompt", "Enter")
    page.wait_for_selector(".turn.assistant:has-text('Hello Ann: come soon')")
    card.get_by_role("button", name="Make v1 current").click()
    card.get_by_role("button", name="Make v2 current").wait_for()
    page.fill("#prompt", "write often")
    page.press("#prompt", "Enter")
    page.wait_for_selector(".turn.assistant:has-text('Dear Ann: write often')")
