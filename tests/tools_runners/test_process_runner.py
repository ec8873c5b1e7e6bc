"""Local tool servers in a sandbox: what they can see, reach and use, and what is left of them."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockyard.errors import DockyardError, EngineUnavailable, InvalidRequest
from dockyard.sandbox import cgroup
from dockyard.tools.model import Sandbox, Secret, Server, ToolFailed
from dockyard.tools.runners import runner

from .talk import SERVER, configured, processes, script, talking

pytest.importorskip("mcp", reason="needs the extra mcp")


def missing() -> str:
    if sys.platform != "linux" or not shutil.which("bwrap"):
        return "needs bubblewrap"
    tried = subprocess.run(
        ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"], capture_output=True, text=True, timeout=20
    )
    return "" if tried.returncode == 0 else f"no sandbox can be made here: {tried.stderr.strip()}"


pytestmark = [pytest.mark.anyio, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]


async def test_it_answers_and_sees_only_what_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNRELATED_TOKEN", "not-for-tools")
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "note.txt").write_text("for the tool")
    (tmp_path / "kept").mkdir()
    server = script(
        env={"REGION": "north"},
        secrets=(Secret(name="api", env="API_KEY"),),
        read=(str(tmp_path / "given"),),
        sandbox={"write": (str(tmp_path / "kept"),)},
    )
    async with talking(server, {"api": "sesame-1"}) as talk:
        assert await talk.good("echo", text="grüße") == "grüße"
        told = dict(line.split("=", 1) for line in (await talk.good("environment")).splitlines())
        assert told.pop("PATH").startswith(os.path.dirname(sys.executable))
        told.pop("PWD", None)
        assert told == {
            "HOME": "/home/tool", "LANG": "C.UTF-8", "TMPDIR": "/tmp", "REGION": "north", "API_KEY": "sesame-1",
        }  # fmt: skip
        assert await talk.good("read", path=str(tmp_path / "given" / "note.txt")) == "for the tool"
        assert "Read-only" in await talk.bad("write", path=str(tmp_path / "given" / "note.txt"))
        assert await talk.good("write", path=str(tmp_path / "kept" / "made")) == "written"
        assert await talk.good("write", path="~/scratch") == "written"
        # The program's own environment may lie below /tmp too, where the project was checked out there.
        shown = {Path(*place.parts[:3]).name for place in (tmp_path, Path(sys.prefix), Path(__file__))}
        assert tmp_path.parts[2] in (found := set((await talk.good("listing", path="/tmp")).split()))
        assert found <= shown
    assert (tmp_path / "kept" / "made").read_text() == "was here"
    assert not (Path.home() / "scratch").exists()


SYSTEM = shutil.which("python3", path="/usr/bin")


@pytest.fixture
def for_all() -> Iterator[Path]:
    """A folder that everybody may see, with a server in it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        Path(shutil.copy(Path(__file__).with_name("plain_server.py"), folder)).chmod(0o644)
        (folder / "kept").mkdir()
        yield folder


def uids(word: str) -> set[int]:
    """Who the processes with this word are, outside."""
    files = [Path("/proc") / str(each) / "status" for each in processes(word)]
    return {int(line.split()[1]) for file in files for line in file.read_text().splitlines() if line[:4] == "Uid:"}


@pytest.mark.skipif(os.geteuid() != 0 or not SYSTEM, reason="needs root, and a Python that all may use")
@pytest.mark.parametrize("owner", [None, 4321, 0])
async def test_where_dockyard_is_root_a_server_is_nobody(owner: int | None, for_all: Path) -> None:
    """Unless it shall write where only root may, or needs what only root may see."""
    from dockyard.sandbox import user

    if not user._allowed():
        pytest.skip("the kernel lets nobody but root make a sandbox")
    server, kept = for_all / "plain_server.py", for_all / "kept"
    os.chown(kept, owner or 0, owner or 0)
    box = Sandbox(read=(str(server),), write=() if owner is None else (str(kept),))
    one = Server(name="plain", kind="process", command=(SYSTEM or "", str(server)), sandbox=box)
    async with talking(one) as talk:
        assert (await talk.good("status")).partition("Uid:")[2].split()[0] == "1000"
        (found,) = uids(str(server))
        assert user.FIRST <= found < user.FIRST + user.MANY if owner is None else found == owner
        if owner is not None:
            assert await talk.good("write", path=str(kept / "made")) == "written"
            assert os.stat(kept / "made").st_uid == owner


@pytest.mark.skipif(not os.path.isdir("/etc/ssl/private"), reason="there is no such folder here")
async def test_keys_of_the_machine_are_not_among_its_certificates() -> None:
    async with talking(script()) as talk:
        assert await talk.good("listing", path="/etc/ssl/private") == ""


async def test_the_machine_is_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519").write_text("PRIVATE")
    monkeypatch.setenv("HOME", str(tmp_path))
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, talking(script()) as talk:
        for path in ("/etc/shadow", str(tmp_path / ".ssh" / "id_ed25519"), "~/.ssh/id_ed25519", "/proc/1/environ"):
            text, failed = await talk.call("read", path=path)
            assert failed or "PRIVATE" not in text, path
            assert "root:" not in text
        assert "No such file" in await talk.bad("read", path="/etc/shadow")
        for path in ("/usr/bin/new", "/etc/passwd", "/new", "/dev/new", "/proc/sys/kernel/domainname"):
            await talk.bad("write", path=path)
        assert "unreachable" in await talk.bad("dial", host="192.0.2.1", port=80)
        assert "refused" in await talk.bad("dial", host="127.0.0.1", port=port)
        assert "No such file" in await talk.bad("unix", path="/var/run/docker.sock")


async def test_listed_hosts_are_reached_and_no_others() -> None:
    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(page, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sandbox = {"hosts": (f"localhost:{port}", f"127.0.0.1:{port}", "169.254.169.254:80")}
    async with server:
        async with talking(
            script(sandbox=sandbox, env={"no_proxy": "", "NO_PROXY": ""}), tools_private=["localhost"]
        ) as talk:
            assert await talk.good("fetch", url=f"http://localhost:{port}/") == "hello"
            # Not listed by the operator, whatever the entry says; not in the entry; never anybody's.
            assert "403" in await talk.bad("fetch", url=f"http://127.0.0.1:{port}/")
            assert "403" in await talk.bad("fetch", url=f"http://localhost:{port + 1}/")
            assert "403" in await talk.bad("fetch", url="http://169.254.169.254/latest/meta-data/")
            assert "refused" in await talk.bad("dial", host="127.0.0.1", port=port)
    log = configured().home_path / "logs" / "tools" / "small.log"
    assert f"refused to connect to localhost:{port + 1}: it is not in sandbox.hosts" in log.read_text()


async def test_a_fork_bomb_stays_within_its_bound() -> None:
    async with talking(script(sandbox={"processes": 20})) as talk:
        assert 1 <= int(await talk.good("bomb")) <= 26


async def test_a_memory_hog_ends_and_the_reason_is_told() -> None:
    async def use() -> str:
        async with talking(script(sandbox={"memory": 192 << 20})) as talk:
            return await talk.bad("hog", megabytes=600)

    # Killed with its group; or, where no control group can be made, refused by the limit of each process.
    (told,) = await asyncio.gather(use(), return_exceptions=True)
    assert "MemoryError" in str(told) or "it used more memory than sandbox.memory allows" in str(told)


async def test_processor_time_is_that_of_the_whole_tree() -> None:
    group = cgroup.make(1 << 30, 0, 0)
    await group.remove()
    if not group.folders:
        pytest.skip("needs the right to make control groups")
    with pytest.raises(ToolFailed, match="more processor time"):
        async with talking(script(sandbox={"seconds": 2})) as talk:
            await talk.call("burn")


async def test_a_flooded_log_stays_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dockyard.tools.sdk.PROBE_SECONDS", 0.5)
    monkeypatch.setattr("dockyard.tools.sdk.START_SECONDS", 0.5)
    command = ("sh", "-c", "yes flood flood flood >&2 & exec yes flood >&2")
    with pytest.raises(ToolFailed, match="did not answer"):
        async with talking(Server(name="flood", kind="process", command=command)):
            pass
    log = configured().home_path / "logs" / "tools" / "flood.log"
    assert 0 < log.stat().st_size < 3 << 20


async def test_what_it_prints_beside_the_protocol_costs_no_call() -> None:
    async with talking(script()) as talk:
        assert await talk.good("raw", kind="text") == "printed"
        assert await talk.good("raw", kind="bytes") == "printed"
        assert await talk.good("raw", kind="line") == "printed"
        assert await talk.good("echo", text="still here") == "still here"


async def test_its_log_has_its_words_but_no_secret() -> None:
    async def use() -> None:
        async with talking(script(secrets=(Secret(name="s", env="S"),)), {"s": "hunter2-long"}) as talk:
            for text in ("the key is hunter2-long", "6875 68756e746572322d6c6f6e67", "x" * 100_000):
                await talk.good("complain", text=text)
            await talk.call("die")

    with pytest.raises(ToolFailed, match=r"(?s)ended with status 7.*now I am gone") as caught:
        await use()
    log = (configured().home_path / "logs" / "tools" / "small.log").read_text()
    assert "the key is ***" in log
    assert "hunter2" not in log + str(caught.value)
    assert "68756e746572322d6c6f6e67" not in log
    assert max(map(len, log.splitlines())) < 5000


def gone(name: str, *, wanted: bool = True) -> bool:
    """Whether no process (``wanted`` false: some process) has this name, within ten seconds."""
    for _ in range(200):
        if bool(processes(name)) is not wanted:
            return True
        time.sleep(0.05)
    return False


def groups() -> list[Path]:
    return list(Path("/sys/fs/cgroup").rglob(f"dockyard-tool-{os.getpid()}-*"))


@pytest.mark.parametrize("way", ["close", "error", "cancel"])
async def test_nothing_is_left_whatever_way_it_ends(way: str) -> None:
    name = f"left-by-{way}-{os.getpid()}"
    begun = asyncio.Event()

    async def use() -> None:
        async with talking(script()) as talk:
            assert await talk.good("daemon", name=name) == "left"
            while not processes(name):  # noqa: ASYNC110 - it is being forked
                await asyncio.sleep(0.01)
            begun.set()
            if way == "error":
                raise RuntimeError("ours")
            if way == "cancel":
                await asyncio.sleep(60)

    task = asyncio.create_task(use())
    waits = asyncio.create_task(begun.wait())
    await asyncio.wait([task, waits], return_when=asyncio.FIRST_COMPLETED)
    waits.cancel()
    if way == "cancel":
        task.cancel()
    (result,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(result, {"close": type(None), "error": RuntimeError, "cancel": asyncio.CancelledError}[way])
    assert not processes(name)
    assert not groups()


def test_nothing_is_left_when_dockyard_is_killed(tmp_path: Path) -> None:
    name = f"left-by-kill-{os.getpid()}"
    code = (
        "import asyncio, sys\nfrom tests.tools_runners.talk import script, talking\n"
        "async def main():\n"
        "    async with talking(script()) as talk:\n"
        f"        await talk.good('daemon', name={name!r})\n"
        "        print('ready', flush=True)\n        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    where = SERVER.parent.parent.parent
    ours = subprocess.Popen([sys.executable, "-c", code], cwd=where, stdout=subprocess.PIPE, text=True)
    try:
        assert ours.stdout is not None
        assert ours.stdout.readline() == "ready\n"
        assert gone(name, wanted=False)
    finally:
        ours.kill()
        ours.wait()
        ours.stdout.close()
    assert gone(name)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("false",), "ended with status 1; it said nothing"),
        (("sh", "-c", "echo broken >&2; exit 3"), "ended with status 3; its last words: broken"),
        (("sh", "-c", "kill -9 $$"), "ended with status 137"),
    ],
)
async def test_what_dies_at_once_is_named_with_its_last_words(command: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ToolFailed) as caught:
        async with talking(Server(name="short", kind="process", command=command)):
            pass
    assert reason in caught.value.message


async def test_what_never_answers_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dockyard.tools.sdk.PROBE_SECONDS", 0.2)
    monkeypatch.setattr("dockyard.tools.sdk.START_SECONDS", 0.5)
    with pytest.raises(ToolFailed, match="did not answer 'initialize'"):
        async with talking(Server(name="mute", kind="process", command=("sleep", "4321"))):
            pass
    assert not processes("\0004321")


@pytest.mark.parametrize(
    "path", ["/", "/etc", "/proc", "/run", "~", "~/.ssh/id", "relative", "/nowhere/at/all", "HOME"]
)
def test_what_no_server_gets_is_refused(path: str) -> None:
    settings = configured()
    settings.home_path.mkdir(parents=True, exist_ok=True)
    path = str(settings.home_path) if path == "HOME" else path
    server = Server(name="greedy", kind="process", command=("true",), sandbox=Sandbox(read=(path,)))
    assert "greedy" in (runner("process", settings).refuses(server) or "")


async def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineUnavailable, match="no program 'not-a-program'"):
        async with talking(Server(name="x", kind="process", command=("not-a-program",))):
            pass
    with pytest.raises(ToolFailed, match="needs the secret 'token'") as caught:
        async with talking(script(secrets=(Secret(name="token", env="T"),))):
            pass
    assert caught.value.hint == "dockyard mcp secret set token"
    with pytest.raises(DockyardError, match="does not declare"):
        async with talking(script(env={"A": "${PATH}"})):
            pass
    monkeypatch.setattr("dockyard.sandbox.jail.found", lambda name: "")
    with pytest.raises(EngineUnavailable, match="needs bwrap") as missing:
        async with talking(script()):
            pass
    assert "apt-get install bubblewrap" in (missing.value.hint or "")


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match="no kind of tool server 'wasm'") as caught:
        runner("wasm", configured())
    assert "process" in (caught.value.hint or "")
