"""Find models by a word: Docker Hub, Hugging Face and the configured hubs, asked at the same time."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec

from dockyard.artifact.registry.client import Registry
from dockyard.artifact.registry.transport import Policy, Transport, is_loopback
from dockyard.artifact.sources.hf import ENDPOINT
from dockyard.errors import DockyardError, SourceError, SourceUnreachable
from dockyard.settings import Settings

DOCKER_HUB = "https://hub.docker.com"
SECONDS = 6.0
"""How long each place may take; all are asked at once."""
_T = TypeVar("_T")
_MAX_BYTES = 8 << 20
_POLICY = Policy(attempts=1, first_contact=1, connect=SECONDS / 2, read=SECONDS / 2)


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A model that was found; ``reference`` is what ``pull`` takes, ``source`` the place that told."""

    reference: str
    source: str
    description: str = ""
    pulls: int = 0
    stars: int = 0
    updated: str = ""


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """Hits by place, most used first, and for each place that could not be asked the reason."""

    hits: list[Hit]
    unreachable: dict[str, str]


class _HubRow(msgspec.Struct):
    name: str = ""
    namespace: str = ""
    description: str | None = ""
    pull_count: int = 0
    star_count: int = 0
    last_updated: str | None = ""


class _HubPage(msgspec.Struct):
    results: list[_HubRow] = []


class _FaceRow(msgspec.Struct, rename={"updated": "lastModified"}):
    id: str = ""
    downloads: int = 0
    likes: int = 0
    pipeline_tag: str | None = ""
    updated: str | None = ""


def search(term: str, settings: Settings, *, limit: int = 32, docker_hub: str = DOCKER_HUB) -> SearchResult:
    """Ask every place for models whose name has ``term`` in it; "" lists what there is. At most ``limit`` a place.

    ``docker_hub`` is the base URL of Docker Hub's API or a mirror's, as ``HF_ENDPOINT`` is for Hugging Face.

    A place that fails or is too slow is named in ``unreachable`` with the reason, and the others still count.
    """
    places: dict[str, Callable[[], list[Hit]]] = {
        "docker hub": lambda: _docker_hub(docker_hub, term, settings, limit),
        "hugging face": lambda: _hugging_face(term, settings, limit),
    }
    for hub in settings.hubs:
        places[hub] = functools.partial(_hub, hub, term, settings, limit)
    hits: list[Hit] = []
    unreachable: dict[str, str] = {}
    pool = ThreadPoolExecutor(len(places), thread_name_prefix="dockyard-search")
    running = {name: pool.submit(ask) for name, ask in places.items()}
    for name, future in running.items():
        try:
            hits += future.result(SECONDS * 2)
        except TimeoutError:
            unreachable[name] = f"no answer in {SECONDS * 2:g} seconds"
        except DockyardError as error:
            unreachable[name] = error.message
    pool.shutdown(wait=False, cancel_futures=True)
    return SearchResult(hits=hits, unreachable=unreachable)


def _docker_hub(base: str, term: str, settings: Settings, limit: int) -> list[Hit]:
    namespace = settings.default_namespace or "ai"
    query = {"page_size": str(min(100, limit if not term else 100)), "ordering": "-pull_count"}
    query |= {"name": term} if term else {}
    url = f"{base.rstrip('/')}/v2/repositories/{namespace}/?{urlencode(query)}"
    rows = _ask(url, settings, _HubPage).results
    rows = [row for row in rows if term.lower() in f"{row.name} {row.description or ''}".lower()]
    rows.sort(key=lambda row: -row.pull_count)
    return [
        Hit(
            reference=f"{row.namespace or namespace}/{row.name}",
            source="docker hub",
            description=row.description or "",
            pulls=row.pull_count,
            stars=row.star_count,
            updated=row.last_updated or "",
        )
        for row in rows[:limit]
    ]


def _hugging_face(term: str, settings: Settings, limit: int) -> list[Hit]:
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or ENDPOINT
    query = {"search": term, "limit": str(limit), "sort": "downloads", "direction": "-1", "filter": "gguf"}
    url = f"{endpoint}/api/models?{urlencode({key: value for key, value in query.items() if value})}"
    token = os.environ.get("HF_TOKEN", "").strip()
    rows = _ask(url, settings, list[_FaceRow], authorization=f"Bearer {token}" if token else None)
    return [
        Hit(
            reference=f"hf.co/{row.id}",
            source="hugging face",
            description=row.pipeline_tag or "",
            pulls=row.downloads,
            stars=row.likes,
            updated=row.updated or "",
        )
        for row in rows[:limit]
        if row.id
    ]


def _hub(host: str, term: str, settings: Settings, limit: int) -> list[Hit]:
    if settings.offline and not is_loopback(host):
        raise SourceUnreachable("this Dockyard works offline")
    with Registry(host, insecure=settings.insecure_registries, policy=_POLICY) as registry:
        names = (name for name in registry.catalog() if term.lower() in name.lower())
        return [Hit(reference=f"{host}/{name}", source=host) for name, _ in zip(names, range(limit), strict=False)]


def _ask(url: str, settings: Settings, kind: type[_T], authorization: str | None = None) -> _T:
    host = urlsplit(url).netloc
    if settings.offline and not is_loopback(host):
        raise SourceUnreachable("this Dockyard works offline")
    plain = {*settings.insecure_registries, *((host,) if url.startswith("http://") else ())}
    transport = Transport(policy=_POLICY, plain_hosts=plain)
    try:
        with transport.request(
            "GET", url, headers={"Accept": "application/json"}, authorization=authorization
        ) as reply:
            if reply.status != 200:
                raise SourceError(f"{host} answered {reply.status}")
            try:
                return msgspec.json.decode(reply.body(_MAX_BYTES), type=kind)
            except msgspec.DecodeError as error:
                raise SourceError(f"{host} answered something unexpected: {error}") from error
    finally:
        transport.close()
