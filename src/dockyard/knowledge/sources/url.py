"""Pages and files on the web, read again only if they changed; a sitemap means all pages that it lists."""

from __future__ import annotations

import contextlib
import mimetypes
import re
from collections.abc import Iterator
from urllib.parse import urldefrag, urlsplit

import httpx

from dockyard.addresses import Guard
from dockyard.errors import DockyardError, NotFound, PayloadTooLarge, SourceUnreachable
from dockyard.knowledge.model import Problem, Sighted
from dockyard.knowledge.sources import Job, wanted
from dockyard.knowledge.sources._http import client, told

MOST_PAGES = 5000
_LOC = re.compile(rb"<loc>\s*(.*?)\s*</loc>", re.IGNORECASE | re.DOTALL)


class UrlSource:
    """An https URL; plain http where the operator listed the host in ``tools_private``."""

    def claims(self, text: str) -> str | None:
        return urldefrag(text).url if text.startswith(("https://", "http://")) else None

    @contextlib.contextmanager
    def open(self, job: Job) -> Iterator[Web]:
        with client(Guard(job.settings.tools_private)) as session:
            yield Web(session, job)


class Web:
    """A page or a sitemap's pages. What ``sight`` fetched is kept until it is read."""

    def __init__(self, session: httpx.Client, job: Job) -> None:
        self._session = session
        self._job = job
        self._held: dict[str, bytes] = {}

    def sight(self) -> Iterator[Sighted | Problem]:
        place = self._job.source.place
        if not urlsplit(place).path.endswith("sitemap.xml"):
            yield self._page(place)
            return
        host = urlsplit(place).hostname
        listing = self._get(place, {})[1]
        pages = [match.decode("utf-8", "replace").replace("&amp;", "&") for match in _LOC.findall(listing)]
        for page in list(dict.fromkeys(pages))[:MOST_PAGES]:
            if urlsplit(page).hostname != host or not wanted(page, self._job.source):
                continue
            try:
                yield self._page(page)
            except DockyardError as error:
                yield Problem(source=self._job.source.id, path=page, message=error.message, hint=error.hint or "")

    def _page(self, url: str) -> Sighted:
        known = self._job.known.get(url, "")
        kind, _, mark = known.partition(" ")
        headers = {"etag": {"if-none-match": mark}, "modified": {"if-modified-since": mark}}.get(kind, {})
        response, data = self._get(url, headers)
        if response.status_code == 304:
            return Sighted(path=url, fingerprint=known)
        etag, modified = response.headers.get("etag"), response.headers.get("last-modified")
        fingerprint = f"etag {etag}" if etag else f"modified {modified}" if modified else ""
        self._held[url] = data
        return Sighted(
            path=url,
            fingerprint=fingerprint,
            size=len(data),
            modified=_moment(modified),
            named=_name(url, response.headers.get("content-type", "")),
        )

    def _get(self, url: str, headers: dict[str, str]) -> tuple[httpx.Response, bytes]:
        most = self._job.most
        try:
            with self._session.stream("GET", url, headers=headers) as response:
                if response.status_code in (404, 410):
                    raise NotFound(f"{url} is gone ({response.status_code})")
                if response.status_code != 304 and response.status_code >= 300:
                    raise SourceUnreachable(f"{url} answered with status {response.status_code}")
                data = bytearray()
                for piece in response.iter_bytes():
                    data += piece
                    if len(data) > most:
                        raise PayloadTooLarge(f"{url} has more than {most} bytes")
                return response, bytes(data)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SourceUnreachable(f"{url} can't be read: {told(error)}") from error

    def read(self, sighted: Sighted) -> bytes:
        held = self._held.pop(sighted.path, None)
        return self._get(sighted.path, {})[1] if held is None else held


def _name(url: str, kind: str) -> str:
    """A file name that tells the format: the URL's own if it has a suffix, else by the content type."""
    path = urlsplit(url).path
    base = kind.partition(";")[0].strip().lower()
    if base in ("text/html", "application/xhtml+xml"):
        return "page.html"
    name = path.rpartition("/")[2]
    if "." in name:
        return name
    return f"page{mimetypes.guess_extension(base) or '.txt'}"


def _moment(text: str | None) -> float:
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(text).timestamp() if text else 0.0
    except (TypeError, ValueError):
        return 0.0


PLUGIN = UrlSource()
