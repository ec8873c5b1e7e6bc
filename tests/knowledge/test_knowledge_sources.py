"""Sources beyond folders, each against a real server or repository: the web, Git, S3."""

from __future__ import annotations

import email.utils
import hashlib
import subprocess
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from knowledge_bench import Bench

from dockyard.errors import InvalidRequest
from dockyard.knowledge.sources import choose
from dockyard.settings import Settings

pytestmark = pytest.mark.anyio

WHEN = email.utils.formatdate(1_700_000_000, usegmt=True)


class Site(ThreadingHTTPServer):
    """Pages by path, with a mark that changes with them; ``asked`` are the statuses that it answered with."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.pages: dict[str, bytes] = {}
        self.asked: list[tuple[str, int]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def listed(self) -> bytes:
        places = "".join(f"<url><loc>{self.url}{path}</loc></url>" for path in self.pages if path != "/sitemap.xml")
        return f"<urlset>{places}<url><loc>http://elsewhere.test/x</loc></url></urlset>".encode()


class Answer(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        body = self.server.pages.get(self.path)
        if self.path == "/sitemap.xml":
            body = self.server.listed()
        mark = f'"{hashlib.sha256(body).hexdigest()[:16]}"' if body is not None else ""
        status = 404 if body is None else 304 if self.headers["if-none-match"] == mark else 200
        self.server.asked.append((self.path, status))
        self.send_response(status)
        if body is not None and status == 200:
            self.send_header("content-type", "text/html; charset=utf-8")
            self.send_header("content-length", str(len(body)))
            self.send_header("last-modified", WHEN)
        if mark:
            self.send_header("etag", mark)
        self.end_headers()
        if body is not None and status == 200:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def served(made: ThreadingHTTPServer) -> Iterator[ThreadingHTTPServer]:
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    for made in served(Site()):
        assert isinstance(made, Site)
        yield made


def page(text: str) -> bytes:
    return f"<html><head><title>Harbour</title></head><body><h1>News</h1><p>{text}</p></body></html>".encode()


async def test_a_page_is_read_again_only_when_it_changed(bench: Bench, site: Site) -> None:
    site.pages["/news"] = page("The pilot Anders retires.")
    source = bench.source(f"{site.url}/news")
    first = await bench.sync(sources=(source.id,))
    assert (first.added, first.problems) == (1, ())
    assert await bench.paths("pilot Anders") == [f"{site.url}/news"]
    again = await bench.sync(sources=(source.id,))
    assert (again.changed, again.embedded, site.asked[-1]) == (0, 0, ("/news", 304))
    site.pages["/news"] = page("The pilot Birgit begins.")
    assert (await bench.sync(sources=(source.id,))).changed == 1
    assert await bench.paths("Anders") == []
    with bench.base.ledger() as ledger:
        (document,) = ledger.documents(source.id)
    assert document.modified == 1_700_000_000


async def test_a_page_that_is_gone_keeps_what_is_known_of_it(bench: Bench, site: Site) -> None:
    site.pages["/news"] = page("The pilot Anders retires.")
    source = bench.source(f"{site.url}/news")
    await bench.sync(sources=(source.id,))
    del site.pages["/news"]
    gone = await bench.sync(sources=(source.id,))
    assert (gone.removed, gone.kept) == (0, 1)
    assert "is gone (404)" in gone.problems[0].message
    assert await bench.paths("pilot Anders") == [f"{site.url}/news"]


async def test_a_sitemap_means_its_own_pages(bench: Bench, site: Site) -> None:
    site.pages = {"/a": page("Anders rows."), "/b": page("Birgit sails."), "/secret/c": page("Carla swims.")}
    source = bench.source(f"{site.url}/sitemap.xml", exclude=("*/secret/*",))
    assert (await bench.sync(sources=(source.id,))).added == 2
    assert await bench.paths("Carla") == []
    del site.pages["/a"]
    done = await bench.sync(sources=(source.id,))
    assert (done.removed, done.unchanged) == (1, 1)
    assert await bench.paths("Anders") == []
    assert await bench.paths("Birgit") == [f"{site.url}/b"]


async def test_private_addresses_are_the_operators_to_open(bench: Bench, site: Site) -> None:
    site.pages["/news"] = page("The pilot Anders retires.")
    bench.settings = Settings(home=bench.settings.home)
    source = bench.source(f"{site.url}/news")
    refused = await bench.sync(sources=(source.id,))
    assert refused.added == 0
    assert "not on the public internet" in refused.problems[0].message
    assert site.asked == []


Commit = Callable[..., None]


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, Commit]:
    """A repository, and how to commit files to it."""
    folder = tmp_path / "repository"
    folder.mkdir()

    def git(*words: str) -> None:
        who = ["-c", "user.name=Mira", "-c", "user.email=mira@oldane.test", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)

    def commit(**files: str | None) -> None:
        for name, text in files.items():
            path = folder / name.replace("__", "/").replace("_md", ".md")
            path.parent.mkdir(exist_ok=True)
            path.unlink() if text is None else path.write_text(text)
        git("add", "-A")
        git("commit", "-q", "-m", "change")

    git("init", "-q", "-b", "main")
    return folder, commit


async def test_a_repository_is_read_at_its_newest_commit(bench: Bench, repository: tuple[Path, Commit]) -> None:
    folder, commit = repository
    commit(docs__a_md="# Tides\n\nHigh water is at noon.\n", docs__b_md="# Winds\n\nMostly north.\n", x_md="# Other\n")
    source = bench.source(f"git+file://{folder}#main:docs")
    first = await bench.sync(sources=(source.id,))
    assert (first.added, first.problems) == (2, ())
    assert await bench.paths("high water") == ["docs/a.md"]
    assert (await bench.sync(sources=(source.id,))).unchanged == 2
    (folder / "docs" / "a.md").write_text("# Tides\n\nNot committed.\n")
    assert (await bench.sync(sources=(source.id,))).unchanged == 2
    commit(docs__a_md="# Tides\n\nHigh water is at dusk.\n", docs__b_md=None)
    done = await bench.sync(sources=(source.id,))
    assert (done.changed, done.removed) == (1, 1)
    assert await bench.paths("dusk") == ["docs/a.md"]


def _add_submodule(folder: Path, path: str) -> None:
    (folder / path).mkdir(parents=True)
    words = ["update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},{path}"]
    subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)


async def test_links_and_submodules_are_a_line_each(bench: Bench, repository: tuple[Path, Commit]) -> None:
    folder, commit = repository
    (folder / "newest.md").symlink_to("a.md")
    commit(a_md="# Tides\n\nHigh water is at noon.\n")
    _add_submodule(folder, "vendor/lib")
    commit(b_md="# Winds\n\nMostly north.\n")
    source = bench.source(f"git+file://{folder}")
    done = await bench.sync(sources=(source.id,))
    assert done.added == 2
    assert {one.path: one.message for one in done.problems} == {
        "newest.md": "it is a link, which is not followed",
        "vendor/lib": "it is a submodule, which is not fetched",
    }
    assert await bench.paths("high water") == ["a.md"]


async def test_what_git_says_is_told_and_the_index_stays(bench: Bench, repository: tuple[Path, Commit]) -> None:
    folder, commit = repository
    commit(a_md="# Tides\n\nHigh water is at noon.\n")
    source = bench.source(f"git+file://{folder}")
    await bench.sync(sources=(source.id,))
    folder.rename(folder.with_name("elsewhere"))
    done = await bench.sync(sources=(source.id,))
    assert (done.kept, done.removed) == (1, 0)
    assert "git fetch" in done.problems[0].message
    assert "does not appear to be a git repository" in done.problems[0].message
    assert await bench.paths("high water") == ["a.md"]
    with_password = bench.source("git+https://mira:secret@oldane.test/x.git")
    told = (await bench.sync(sources=(with_password.id,))).problems
    assert any("holds no password" in one.message for one in told)


class Bucket(ThreadingHTTPServer):
    """As much of S3 as listing and reading take: objects by key, listed two a page."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), BucketAnswer)
        self.objects: dict[str, bytes] = {}
        self.read: list[str] = []


class BucketAnswer(BaseHTTPRequestHandler):
    server: Bucket

    def do_GET(self) -> None:
        place = urllib.parse.urlsplit(self.path)
        key = urllib.parse.unquote(place.path.removeprefix("/harbour").lstrip("/"))
        if not place.path.startswith("/harbour"):
            self._answer(404, b"<Error><Code>NoSuchBucket</Code><Message>there is no such bucket</Message></Error>")
        elif key:
            self.server.read.append(key)
            self._answer(200, self.server.objects[key])
        else:
            asked = urllib.parse.parse_qs(place.query)
            self._answer(200, self._listed(asked.get("prefix", [""])[0], asked.get("continuation-token", [""])[0]))

    def _listed(self, prefix: str, after: str) -> bytes:
        keys = [key for key in sorted(self.server.objects) if key.startswith(prefix) and key > after]
        rows = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2024-05-01T10:00:00.000Z</LastModified>"
            f"<ETag>&quot;{hashlib.md5(self.server.objects[key], usedforsecurity=False).hexdigest()}&quot;</ETag>"
            f"<Size>{len(self.server.objects[key])}</Size></Contents>"
            for key in keys[:2]
        )
        more = f"<NextContinuationToken>{keys[1]}</NextContinuationToken>" if len(keys) > 2 else ""
        cut = "true" if more else "false"
        return f"<ListBucketResult><IsTruncated>{cut}</IsTruncated>{more}{rows}</ListBucketResult>".encode()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    pytest.importorskip("boto3", reason="the extra `s3` is not installed")
    for made in served(Bucket()):
        assert isinstance(made, Bucket)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{made.server_port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "none")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
        yield made


async def test_a_bucket_is_read_below_its_prefix(bench: Bench, bucket: Bucket) -> None:
    bucket.objects = {
        f"docs/{name}.md": f"# {name}\n\n{name} keeps the log.\n".encode() for name in ("ann", "bo", "cy")
    }
    bucket.objects |= {"docs/": b"", "other/dan.md": b"# dan\n"}
    source = bench.source("s3://harbour/docs/")
    first = await bench.sync(sources=(source.id,))
    assert (first.added, first.problems) == (3, ())
    assert await bench.paths("cy") == ["cy.md"]
    bucket.read.clear()
    bucket.objects["docs/bo.md"] = b"# bo\n\nbo left the harbour.\n"
    del bucket.objects["docs/ann.md"]
    done = await bench.sync(sources=(source.id,))
    assert (done.changed, done.removed, done.unchanged, bucket.read) == (1, 1, 1, ["docs/bo.md"])
    missing = bench.source("s3://lost/docs/")
    assert "can't be listed" in (await bench.sync(sources=(missing.id,))).problems[0].message


def test_a_text_is_claimed_by_one_kind(tmp_path: Path) -> None:
    assert choose("https://oldane.test/x#part") == ("url", "https://oldane.test/x")
    assert choose("git+https://oldane.test/x.git#main:docs")[0] == "git"
    assert choose("s3://bucket/prefix") == ("s3", "s3://bucket/prefix")
    assert choose(str(tmp_path))[0] == "file"
    with pytest.raises(InvalidRequest, match="is no source"):
        choose("nowhere/at/all")
