"""Files and folders of this machine: ``./model.gguf``, ``/models/llama``, ``file:model.gguf``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from dockyard.artifact import media
from dockyard.artifact.packing import pack_files
from dockyard.artifact.reference import is_source
from dockyard.artifact.sources import SOURCE, Job, Source
from dockyard.artifact.sources._names import shard_of
from dockyard.artifact.store import Entry
from dockyard.errors import InvalidReference, NotFound
from dockyard.settings import Settings
from dockyard.types import Progress, Reference

MAX_FILES = 10_000


class Files:
    """Copies (or clones) them into the store. All shards come with the first; a folder comes as a whole."""

    name = "file"

    def claims(self, text: str) -> bool:
        return is_source(text) == "path"

    def reference(self, text: str, settings: Settings) -> Reference:  # noqa: ARG002 (the protocol's)
        """``localhost/<name of the file or folder>:latest``: no registry's name can be meant by it."""
        path = _path(text)
        stem = path.stem if path.suffix.lower() in media.WEIGHT_SUFFIXES else path.name
        name = re.sub(r"[^a-z0-9]+", "-", shard_of(stem)[0].lower()).strip("-")
        if not name:
            raise InvalidReference(f"{text!r} gives no name for the artifact", hint="`dockyard package PATH NAME` does")
        return Reference(registry="localhost", repository=name, tag="latest")

    def pull(self, job: Job) -> Entry:
        path = _path(job.text)
        if not path.exists():
            raise NotFound(f"there is no file or folder {path}", param=str(path))
        files = {str(each.relative_to(_root(path))): each for each in _files(path)}

        def seen(news: Progress) -> None:
            job.meter.bytes(news.item, news.current, news.total)

        return pack_files(
            job.store,
            files,
            reference=job.reference,
            annotations={SOURCE: f"file:{path.name}"},
            on_progress=seen,
        )


def _path(text: str) -> Path:
    text = text.strip()
    return Path(text.removeprefix("file:").removeprefix("//")).expanduser().absolute()


def _root(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _files(path: Path) -> Iterator[Path]:
    """The model's files: a folder's, without hidden ones and links; a file's with its other shards."""
    if path.is_dir():
        found = 0
        for each in sorted(path.rglob("*")):
            hidden = any(part.startswith(".") for part in each.relative_to(path).parts)
            if each.is_file() and not hidden:
                found += 1
                if found > MAX_FILES:
                    raise InvalidReference(
                        f"{path} has more than {MAX_FILES} files", hint="name the model's own folder"
                    )
                yield each
        if not found:
            raise NotFound(f"the folder {path} has no files", param=str(path))
        return
    stem, number, count = shard_of(path.stem)
    if not count:
        yield path
        return
    for place in range(1, count + 1):
        shard = path.with_name(f"{stem}-{place:05d}-of-{count:05d}{path.suffix}")
        if not shard.is_file():
            raise NotFound(f"{path.name} is shard {number} of {count}, and {shard.name} is not beside it")
        yield shard


PLUGIN: Source = Files()
