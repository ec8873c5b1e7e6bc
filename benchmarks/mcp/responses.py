"""One Responses call whose model uses three real servers, with an approval in the middle, across a killed gateway.

OpenAI's own client asks, whole and streamed; the model is the scripted one, which calls what its user names. While the
call waits for a person, the gateway is killed and another takes its place. The servers are packages as people run them
(``real.py``), in their sandboxes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks._bars import Row, main
from benchmarks.mcp._packages import HOME, server
from benchmarks.mcp._serving import dockyard
from dockyard.tools.model import Enabled, Profile

TEXT = "time__get_current_time 'UTC' then git__git_status {repo!r} then memory__read_graph"
KINDS = ["mcp_call", "mcp_approval_request"]


def rows() -> Iterator[Row]:
    if shutil.which("git") is None:
        raise RuntimeError("git is needed for the git server")
    with tempfile.TemporaryDirectory() as folder:
        repo = Path(folder) / "repo"
        subprocess.run(["git", "init", "--quiet", "--initial-branch", "trunk", repo], check=True)
        names = ("time", "git", "memory")
        profile = Profile(
            name="default", servers=tuple(Enabled(server=server(name, Path(folder))) for name in names), prefix=True
        )
        for stream in (False, True):
            told = steps(profile, str(repo), stream)
            how = "streamed" if stream else "whole"
            yield Row(f"three servers, an approval and a killed gateway, {how}", told or "works", "works", not told)


def steps(profile: Profile, repo: str, stream: bool) -> str:
    """What did not go as it must, or nothing."""
    labels = ("time", "git", "memory")
    tools: list[Any] = [
        {"type": "mcp", "server_label": label, "require_approval": "always" if label == "git" else "never"}
        for label in labels
    ]
    with dockyard(HOME, profile) as (process, url):
        first = ask(url, stream, input=TEXT.format(repo=repo), tools=tools)
        kinds = [item.type for item in first.output if item.type != "mcp_list_tools"]
        if kinds != KINDS:
            return f"the first answer has {kinds}: {first.output_text[:200]}"
        (asked,) = [item for item in first.output if item.type == "mcp_approval_request"]
        process.kill()
        process.wait()
    with dockyard(HOME, profile) as (_, url):
        yes = {"type": "mcp_approval_response", "approval_request_id": asked.id, "approve": True}
        second = ask(url, stream, previous_response_id=first.id, input=[yes], tools=tools)
        done = [(item.name, item.status, item.error) for item in second.output if item.type == "mcp_call"]
        if [(name, status) for name, status, _ in done] != [("git_status", "completed"), ("read_graph", "completed")]:
            return f"the second answer has {done}"
        for word in ("UTC", "trunk", "entities"):
            if word not in second.output_text:
                return f"{word!r} is not in what the model was told: {second.output_text[:300]}"
    return ""


def ask(url: str, stream: bool, **fields: Any) -> Any:
    import openai

    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        if not stream:
            return client.responses.create(model="echo", **fields)
        events = list(client.responses.create(model="echo", stream=True, **fields))
        assert [event.sequence_number for event in events] == list(range(len(events)))
        last: Any = events[-1]
        return last.response


if __name__ == "__main__":
    sys.exit(main({"responses": rows}))
