"""Hugging Face: ``hf.co/Org/Repo[:QUANT][@revision]``, or any mirror of its API named by ``HF_ENDPOINT``.

The revision is resolved to a commit first, and everything is fetched at that commit. Large files are checked against
the sha256 that the commit names, small ones against their git hash; large ones resume. ``HF_TOKEN`` opens gated and
private repositories; it goes to the endpoint only, never to where that redirects.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import quote, urljoin, urlsplit

import msgspec

from dockyard.artifact import media
from dockyard.artifact.digest import valid
from dockyard.artifact.manifest import About
from dockyard.artifact.packing import pack_files
from dockyard.artifact.reference import is_source, named
from dockyard.artifact.registry.download import download
from dockyard.artifact.registry.flight import Wanted
from dockyard.artifact.registry.headers import next_link, retry_after
from dockyard.artifact.registry.transport import Response, Transport, is_loopback
from dockyard.artifact.safety import contained, is_pickle
from dockyard.artifact.sources import SOURCE, Job, Source
from dockyard.artifact.sources._names import choose_gguf, choose_projector, gguf_groups, quantization
from dockyard.artifact.store import Entry
from dockyard.errors import (
    DigestMismatch,
    DockyardError,
    InvalidReference,
    ModelNotFound,
    RateLimited,
    SourceError,
    SourceUnreachable,
    UnsafeContent,
    UnsupportedFormat,
)
from dockyard.settings import Settings
from dockyard.types import Reference

ENDPOINT = "https://huggingface.co"
MAX_SMALL = 64 << 20
"""Bytes of a file that has no sha256 in the repository, because git itself holds it."""
_MAX_LISTING = 64 << 20
_MAX_PAGES = 1000
_T = TypeVar("_T")
_NAME = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*?)(?::(?P<variant>[\w.-]+))?(?:@(?P<revision>[\w./-]+))?", re.ASCII
)
_CONFIGS = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".vocab", ".merges")
_UNUSED = re.compile(r"(^|/)(original|metal|onnx|openvino|runs|\.[^/]*)/|\.gitattributes$|training_args")


class Wish(msgspec.Struct, frozen=True):
    """What a text asks for: the repository, a variant of it, a branch, tag or commit."""

    repo: str
    variant: str | None
    revision: str


class Lfs(msgspec.Struct, frozen=True):
    """Where a large file's content is named: its sha256 and size."""

    oid: str
    size: int


class Item(msgspec.Struct, frozen=True):
    """A row of the repository's tree; ``oid`` is its git hash."""

    path: str
    size: int = 0
    oid: str = ""
    type: str = "file"
    lfs: Lfs | None = None


class Card(msgspec.Struct, frozen=True):
    """The part of a model's record that we use."""

    sha: str = ""
    gated: bool | str = False
    tags: list[str] = []


class HuggingFace:
    """Takes one GGUF variant with its projector, or all of a safetensors or ONNX repository; never a pickle."""

    name = "hf"

    def claims(self, text: str) -> bool:
        return is_source(text) == "hf"

    def reference(self, text: str, settings: Settings) -> Reference:  # noqa: ARG002 (the protocol's)
        wish(text)
        return named(text)

    def pull(self, job: Job) -> Entry:
        asked = wish(job.text)
        endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or ENDPOINT
        host = urlsplit(endpoint).netloc
        if job.settings.offline and not is_loopback(host):
            raise SourceUnreachable(
                f"{job.text} is on Hugging Face, and this Dockyard works offline", hint="unset the setting `offline`"
            )
        plain = {*job.settings.insecure_registries, *((host,) if endpoint.startswith("http://") else ())}
        transport = Transport(connections=job.settings.parallel_downloads, plain_hosts=plain)
        try:
            with job.store.lease():
                return _Repo(endpoint, asked, transport, job).pull()
        finally:
            transport.close()


def wish(text: str) -> Wish:
    """Read ``hf.co/Org/Repo[:QUANT][@revision]``. Raises InvalidReference."""
    found = _NAME.fullmatch(text.strip().partition("/")[2])
    if not found or ".." in found["repo"] or ".." in (found["revision"] or ""):
        raise InvalidReference(f"{text!r} does not name a repository", hint="write hf.co/Org/Repo[:QUANT][@revision]")
    variant = found["variant"]
    return Wish(found["repo"], None if variant in (None, "latest") else variant, found["revision"] or "main")


def select(items: list[Item], asked: Wish) -> list[Item]:
    """The files to fetch. Raises ModelNotFound for an unknown variant, UnsafeContent where all weights are pickles."""
    paths = [item.path for item in items if item.type == "file"]
    groups = gguf_groups(paths)
    if groups:
        chosen = choose_gguf(paths, asked.variant)
        if not chosen:
            known = sorted({quantization(name) or name.rpartition("/")[2] for name in groups})
            raise ModelNotFound(
                f"{asked.repo} has no variant {asked.variant!r}", hint=f"it has {', '.join(known)}", param="variant"
            )
        projector = choose_projector(paths)
        chosen = [*chosen, *((projector,) if projector else ())]
    else:
        if asked.variant is not None:
            raise ModelNotFound(f"{asked.repo} has no GGUF files, so no variant {asked.variant!r}", param="variant")
        chosen = _folder(paths, asked.repo)
    notes = [path for path in paths if "/" not in path and media.role_of_path(path) == "licence"]
    readme = [path for path in paths if path == "README.md"]
    wanted = {*chosen, *notes, *readme}
    return [item for item in items if item.path in wanted and item.type == "file"]


def _folder(paths: list[str], repo: str) -> list[str]:
    """Weights of one format, with the configuration beside them."""
    useful = [path for path in paths if not _UNUSED.search(path)]
    for suffix in (".safetensors", ".onnx"):
        weights = [path for path in useful if path.lower().endswith(suffix)]
        if not weights and suffix == ".onnx":
            weights = [path for path in paths if path.lower().endswith((".onnx", ".onnx_data"))]
        sharded = [path for path in weights if re.search(r"-\d{5}-of-\d{5}\.", path)]
        top = {path.rpartition("/")[0] for path in sharded}
        weights = [path for path in weights if path in sharded or path.rpartition("/")[0] not in top]
        if weights:
            return [*weights, *(path for path in useful if path.lower().endswith(_CONFIGS))]
    graphs = [path for path in paths if path.endswith(".xml") and f"{path[:-4]}.bin" in paths]
    if any(path.rpartition("/")[2].startswith("openvino_") for path in graphs):
        weights = [f"{path[:-4]}.bin" for path in graphs]
        return [*graphs, *weights, *(path for path in useful if path.lower().endswith(_CONFIGS))]
    pickles = [path for path in paths if is_pickle(path, b"\x80\x02")]
    if pickles:
        raise UnsafeContent(
            f"{repo} has its weights only as pickles, which can run code: {', '.join(pickles[:3])}",
            hint="look for a safetensors or GGUF version of this model",
            param=pickles[0],
        )
    raise UnsupportedFormat(f"{repo} has no weights in GGUF, safetensors or ONNX")


class _Repo:
    """One repository at one commit, on its way into the store."""

    def __init__(self, endpoint: str, asked: Wish, transport: Transport, job: Job) -> None:
        self._endpoint = endpoint
        self._asked = asked
        self._transport = transport
        self._job = job
        token = os.environ.get("HF_TOKEN", "").strip()
        self._authorization = f"Bearer {token}" if token else None

    def pull(self) -> Entry:
        card = self._card()
        items = select(self._tree(card.sha), self._asked)
        for item in items:
            contained(item.path, f"hf.co/{self._asked.repo}")
        large = [item for item in items if item.lfs is not None]
        files = {
            contained(item.path): self._job.store.blob_path(f"sha256:{item.lfs.oid}") for item in large if item.lfs
        }
        wanted = [self._wanted(item, item.lfs, card.sha) for item in large if item.lfs]
        download(
            self._job.store,
            wanted,
            self._transport,
            connections=self._job.settings.parallel_downloads,
            on_bytes=self._job.meter.bytes,
        )
        for item in items:
            if item.lfs is None:
                kept = self._job.store.add_bytes(self._small(item, card.sha))
                files[contained(item.path)] = self._job.store.blob_path(kept.digest)
        variant = f":{self._asked.variant}" if self._asked.variant else ""
        licences = tuple(tag.partition(":")[2] for tag in card.tags if tag.startswith("license:"))
        return pack_files(
            self._job.store,
            files,
            reference=self._job.reference,
            about=About(
                name=self._asked.repo.partition("/")[2],
                vendor=self._asked.repo.partition("/")[0],
                revision=card.sha,
                source_url=f"{ENDPOINT}/{self._asked.repo}",
                licenses=licences,
            ),
            annotations={SOURCE: f"hf.co/{self._asked.repo}{variant}@{card.sha}"},
        )

    def _card(self) -> Card:
        url = f"{self._endpoint}/api/models/{self._asked.repo}/revision/{quote(self._asked.revision, safe='')}"
        with self._get(url) as reply:
            card = self._decode(reply, Card)
        if not re.fullmatch(r"[0-9a-f]{40,64}", card.sha):
            raise SourceError(f"Hugging Face names no commit for {self._asked.repo}@{self._asked.revision}")
        return card

    def _tree(self, commit: str) -> list[Item]:
        url: str | None = f"{self._endpoint}/api/models/{self._asked.repo}/tree/{commit}?recursive=true"
        found: list[Item] = []
        for _ in range(_MAX_PAGES):
            if url is None:
                break
            with self._get(url) as reply:
                following = next_link(reply.headers.get("Link"))
                found += self._decode(reply, list[Item])
            url = urljoin(url, following) if following else None
            if url is not None and not url.startswith(self._endpoint):
                raise SourceError(f"Hugging Face sends the listing of {self._asked.repo} to another host")
        for item in found:
            if item.size < 0 or (item.lfs is not None and (item.lfs.size < 0 or not valid(f"sha256:{item.lfs.oid}"))):
                raise SourceError(
                    f"Hugging Face lists {item.path} of {self._asked.repo} without a usable digest or size"
                )
        return found

    def _wanted(self, item: Item, lfs: Lfs, commit: str) -> Wanted:
        return Wanted(
            digest=f"sha256:{lfs.oid}",
            size=lfs.size,
            where=f"{item.path} of hf.co/{self._asked.repo}",
            open=lambda headers: self._open(item.path, commit, headers),
        )

    def _small(self, item: Item, commit: str) -> bytes:
        if item.size > MAX_SMALL:
            raise UnsafeContent(f"{item.path} of {self._asked.repo} has {item.size} bytes and no sha256 to check")
        with self._open(item.path, commit, {}) as reply:
            if reply.status != 200:
                raise self._failure(reply)
            data = reply.body(MAX_SMALL)
        git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        if len(data) != item.size or (len(item.oid) == 40 and git != item.oid):
            raise DigestMismatch(f"{item.path} of {self._asked.repo} is not what commit {commit[:12]} names")
        self._job.meter.bytes(item.path, len(data), len(data))
        return data

    def _open(self, path: str, commit: str, headers: Mapping[str, str]) -> Response:
        url = f"{self._endpoint}/{self._asked.repo}/resolve/{commit}/{quote(path)}"
        return self._transport.request("GET", url, headers=headers, authorization=self._authorization)

    def _get(self, url: str) -> Response:
        reply = self._transport.request("GET", url, authorization=self._authorization)
        if reply.status != 200:
            raise self._failure(reply)
        return reply

    def _decode(self, reply: Response, kind: type[_T]) -> _T:
        try:
            return msgspec.json.decode(reply.body(_MAX_LISTING), type=kind)
        except msgspec.DecodeError as error:
            raise SourceError(f"Hugging Face answered something unexpected for {self._asked.repo}: {error}") from error

    def _failure(self, reply: Response) -> DockyardError:
        what = f"hf.co/{self._asked.repo}"
        why = reply.headers.get("X-Error-Code", "")
        wait = retry_after(reply.headers.get("Retry-After"))
        reply.close()
        if reply.status in (401, 403):
            known = "set HF_TOKEN to a token that may read it" if self._authorization is None else "HF_TOKEN may not"
            return SourceError(
                f"{what} is private, gated, or not there ({reply.status})",
                hint=f"{known}; gated models are opened on their page on Hugging Face",
            )
        if reply.status == 404:
            told = f" at revision {self._asked.revision!r}" if "Revision" in why else ""
            return ModelNotFound(f"{what}{told} is not on Hugging Face")
        if reply.status == 429:
            return RateLimited(f"{what}: Hugging Face asks to wait (429)", hint="set HF_TOKEN", retry_after=wait)
        return SourceError(f"{what}: Hugging Face answered {reply.status}")


PLUGIN: Source = HuggingFace()
