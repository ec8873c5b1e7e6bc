"""Every tool of five real servers, called through the gateway by the official clients of Python and TypeScript.

The servers are packages (``_packages.py``) in their sandboxes. Each call has an answer that must hold a certain text;
a tool that a client is shown and that no call is about counts as short, so that none is forgotten. Both clients declare
that they can be asked (sampling, elicitation, roots), since ``server-everything`` offers some tools only then.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks._bars import Row, main
from benchmarks.mcp._npm import installed
from benchmarks.mcp._packages import HOME, PACKAGES, server
from benchmarks.mcp._serving import dockyard
from dockyard.tools.model import Enabled, Profile

SDK = "@modelcontextprotocol/sdk@1.24.3"
SCRIPT = Path(__file__).with_name("real_client.mjs")
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABh6FO1AAAAABJRU5ErkJggg=="
Call = tuple[str, dict[str, Any], str]

SKIPPED = {"everything__simulate-research-query": "it is a task (an extension), and no plain call is meant for it"}


def rows() -> Iterator[Row]:
    modules = installed("client", SDK)
    for name, run in (("Python", python), ("TypeScript", lambda url, plan: typescript(modules, url, plan))):
        with tempfile.TemporaryDirectory() as folder:
            plan = prepare(Path(folder))
            profile = Profile(
                name="default", servers=tuple(Enabled(server=server(one, Path(folder))) for one in PACKAGES)
            )
            # What asks a person is tried elsewhere; here one client reads strangers' words and private files, and acts.
            with dockyard(HOME, profile, tools_rules=["allow *"], tools_pin="off") as (_, url):
                shown, wrong = run(f"{url}/mcp", plan)
        asked = {tool for tool, _, _ in plan}
        missing = sorted(set(shown) - asked - set(SKIPPED))
        servers = len({tool.partition("__")[0] for tool in shown})
        told = f"{len(asked) - len(wrong)} of {len(set(shown) - set(SKIPPED))} tools of {servers} servers answered"
        told += f"; wrong: {wrong}" if wrong else ""
        told += f"; not called: {missing}" if missing else ""
        left = [f"{tool}: {why}" for tool, why in SKIPPED.items() if tool in shown]
        told += f"; left out: {left}" if left else ""
        met = not wrong and not missing and servers == len(PACKAGES) and asked <= set(shown)
        yield Row(f"real servers from the official {name} client", told, "all tools of all five", met)


def python(url: str, plan: list[Call]) -> tuple[list[str], dict[str, str]]:
    return asyncio.run(_python(url, plan))


async def _python(url: str, plan: list[Call]) -> tuple[list[str], dict[str, str]]:
    import mcp_types as types
    from mcp import Client

    async def sample(_context: Any, _params: Any) -> Any:
        return types.CreateMessageResult(
            role="assistant", content=types.TextContent(type="text", text="a sampled word"), model="none"
        )

    async def elicit(_context: Any, params: Any) -> Any:
        content = None if getattr(params, "mode", "form") == "url" else {"name": "Ada"}
        return types.ElicitResult(action="accept", content=content)

    async def roots(_context: Any) -> Any:
        return types.ListRootsResult(roots=[types.Root(uri="file:///srv/root", name="root")])  # type: ignore[arg-type]

    wrong = {}
    async with Client(url, sampling_callback=sample, elicitation_callback=elicit, list_roots_callback=roots) as client:
        shown: list[str] = []
        for _ in range(20):
            shown = [tool.name for tool in (await client.list_tools()).tools]
            if {tool for tool, _, _ in plan} <= set(shown):
                break
            await asyncio.sleep(1)
        for tool, arguments, expected in plan:
            try:
                answer = await client.call_tool(tool, arguments)
                said = answer.model_dump_json(by_alias=True)
                if answer.is_error or expected not in said.replace("\\\\", "\\"):
                    wrong[tool] = said[:300]
            except Exception as error:  # noqa: BLE001 - a call that breaks is a finding
                wrong[tool] = f"{type(error).__name__}: {error}"[:300]
    return shown, wrong


def typescript(modules: Path, url: str, plan: list[Call]) -> tuple[list[str], dict[str, str]]:
    """The same in Node; the script lies beside its packages while it runs, since that is where Node looks for them."""
    script = modules.parent / "real_client.mjs"
    shutil.copy(SCRIPT, script)
    done = subprocess.run(
        ["node", str(script), url], input=json.dumps(plan), capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    told = json.loads(done.stdout)
    return told["shown"], told["wrong"]


def prepare(folder: Path) -> list[Call]:
    """Files and a repository to work on, and the calls in their order: tool, arguments, what must be in the answer."""
    repo, files = folder / "repo", folder / "files"
    files.mkdir()
    (files / "a.txt").write_text("first line\nsecond line\n")
    (files / "b.txt").write_text("other words\n")
    (files / "dot.png").write_bytes(base64.b64decode(PNG))
    git = ["git", "-C", str(repo), "-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "trunk", str(repo)], check=True)
    (repo / "note.txt").write_text("one\n")
    subprocess.run([*git, "add", "note.txt"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "the beginning"], check=True)
    for key, value in (("user.name", "Ada"), ("user.email", "ada@example.com")):
        subprocess.run(["git", "-C", str(repo), "config", key, value], check=True)
    (repo / "note.txt").write_text("one\ntwo\n")
    return [*_time(), *_git(str(repo)), *_everything(), *_files(files), *_memory()]


def _time() -> list[Call]:
    convert = {"source_timezone": "Europe/Oslo", "time": "12:00", "target_timezone": "Asia/Tokyo"}
    return [
        ("time__get_current_time", {"timezone": "Europe/Oslo"}, "Europe/Oslo"),
        ("time__convert_time", convert, "20:00:00"),
    ]


def _git(repo: str) -> list[Call]:
    at = {"repo_path": repo}
    return [
        ("git__git_status", at, "note.txt"),
        ("git__git_diff_unstaged", at, "+two"),
        ("git__git_add", {**at, "files": ["note.txt"]}, "staged"),
        ("git__git_diff_staged", at, "+two"),
        ("git__git_reset", at, "reset"),
        ("git__git_add", {**at, "files": ["note.txt"]}, "staged"),
        ("git__git_commit", {**at, "message": "the second"}, "committed"),
        ("git__git_log", at, "the second"),
        ("git__git_show", {**at, "revision": "HEAD"}, "+two"),
        ("git__git_diff", {**at, "target": "HEAD~1"}, "+two"),
        ("git__git_create_branch", {**at, "branch_name": "side"}, "side"),
        ("git__git_checkout", {**at, "branch_name": "side"}, "side"),
        ("git__git_branch", {**at, "branch_type": "local"}, "trunk"),
    ]


def _everything() -> list[Call]:
    url = {"url": "https://example.com/form", "message": "please"}
    return [
        ("everything__echo", {"message": "hello"}, "hello"),
        ("everything__get-annotated-message", {"messageType": "success", "includeImage": True}, "image/png"),
        ("everything__get-env", {}, "PATH"),
        ("everything__get-resource-links", {"count": 2}, "resource_link"),
        ("everything__get-resource-reference", {"resourceType": "Text", "resourceId": 2}, "demo://"),
        ("everything__get-structured-content", {"location": "Chicago"}, "temperature"),
        ("everything__get-sum", {"a": 3, "b": 4}, "7"),
        ("everything__get-tiny-image", {}, "image/png"),
        ("everything__gzip-file-as-resource", {"name": "a.gz", "data": "data:text/plain,hello"}, "a.gz"),
        ("everything__toggle-simulated-logging", {}, "logging"),
        ("everything__toggle-subscriber-updates", {}, "update"),
        ("everything__trigger-long-running-operation", {"duration": 1, "steps": 2}, "completed"),
        ("everything__get-roots-list", {}, "roots"),
        ("everything__trigger-elicitation-request", {}, "Ada"),
        ("everything__trigger-url-elicitation", url, "accept"),
        ("everything__trigger-sampling-request", {"prompt": "a word", "maxTokens": 5}, "a sampled word"),
    ]


def _files(files: Path) -> list[Call]:
    a, b, made = str(files / "a.txt"), str(files / "b.txt"), str(files / "made")
    edits = [{"oldText": "other", "newText": "edited"}]
    return [
        ("files__list_allowed_directories", {}, str(files.parent)),
        ("files__read_file", {"path": a}, "second line"),
        ("files__read_text_file", {"path": a, "head": 1}, "first line"),
        ("files__read_media_file", {"path": str(files / "dot.png")}, "image/png"),
        ("files__read_multiple_files", {"paths": [a, b]}, "other words"),
        ("files__edit_file", {"path": b, "edits": edits}, "edited"),
        ("files__create_directory", {"path": made}, "made"),
        ("files__write_file", {"path": f"{made}/c.txt", "content": "new words"}, "c.txt"),
        ("files__move_file", {"source": f"{made}/c.txt", "destination": f"{made}/d.txt"}, "d.txt"),
        ("files__list_directory", {"path": made}, "d.txt"),
        ("files__list_directory_with_sizes", {"path": str(files)}, "a.txt"),
        ("files__directory_tree", {"path": str(files)}, "d.txt"),
        ("files__search_files", {"path": str(files), "pattern": "**/d.txt"}, "d.txt"),
        ("files__get_file_info", {"path": a}, "size"),
    ]


def _memory() -> list[Call]:
    people = [{"name": name, "entityType": "person", "observations": ["counts"]} for name in ("Ada", "Bob")]
    knows = [{"from": "Ada", "to": "Bob", "relationType": "knows"}]
    return [
        ("memory__create_entities", {"entities": people}, "Ada"),
        ("memory__create_relations", {"relations": knows}, "knows"),
        ("memory__add_observations", {"observations": [{"entityName": "Ada", "contents": ["programs"]}]}, "programs"),
        ("memory__read_graph", {}, "programs"),
        ("memory__search_nodes", {"query": "programs"}, "Ada"),
        ("memory__open_nodes", {"names": ["Bob"]}, "Bob"),
        ("memory__delete_observations", {"deletions": [{"entityName": "Ada", "observations": ["counts"]}]}, "deleted"),
        ("memory__delete_relations", {"relations": knows}, "deleted"),
        ("memory__delete_entities", {"entityNames": ["Ada", "Bob"]}, "deleted"),
    ]


if __name__ == "__main__":
    sys.exit(main({"real": rows}))
