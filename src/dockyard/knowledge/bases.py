"""Knowledge bases on disk: ``<home>/knowledge/NAME/`` with a ledger, a vector store's folder, and what a sync prepares.

A base is made aside and renamed into place, and removed the other way round; so it is whole or absent.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from dockyard.errors import Conflict, DockyardError, NotFound
from dockyard.knowledge.ledger import Ledger
from dockyard.knowledge.model import Document, Recipe, check_name
from dockyard.knowledge.vectors import Place, Vectors, left, open_vectors

LEDGER = "ledger.db"


class Base:
    """One knowledge base. Safe to read from many threads and processes; one writes at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        self._guard = threading.Lock()
        self._stores: dict[str, Vectors] = {}
        self._seen: tuple[str, list[Document]] | None = None
        self.checked = False
        """Whether the embedding model was seen to be the index's own, since this was opened."""

    def ledger(self) -> Ledger:
        """The ledger, opened; close it."""
        try:
            return Ledger(self.folder / LEDGER)
        except NotFound:
            raise NotFound(f"there is no knowledge base {self.name!r}", param="name") from None

    def recipe(self) -> Recipe:
        with self.ledger() as ledger:
            return ledger.recipe

    def place(self, recipe: Recipe, name: str) -> Place:
        collection = name
        if recipe.url:
            parts = ["dockyard", self.name, recipe.mark, name]
            collection = "_".join(part for part in parts if part).replace("-", "_").replace(".", "_")
        return Place(folder=self.folder / "vectors", name=collection, dimension=recipe.dimension, url=recipe.url)

    def vectors(self, recipe: Recipe, name: str) -> Vectors:
        """The vector store's collection of this name; kept open."""
        with self._guard:
            if name not in self._stores:
                self._stores[name] = open_vectors(recipe.store, self.place(recipe, name))
            return self._stores[name]

    def forget(self, recipe: Recipe, name: str) -> None:
        """Close and drop a collection that is not in use any more, whoever had it open."""
        store = self.vectors(recipe, name)
        with self._guard:
            self._stores.pop(name, None)
        store.drop()

    def documents(self) -> tuple[str, list[Document]]:
        """A mark of the state, and the documents in it; from memory as long as nothing has changed."""
        mark = self.mark()
        if self._seen is None or self._seen[0] != mark:
            with self.ledger() as ledger:
                self._seen = (mark, ledger.documents())
        return self._seen

    def mark(self) -> str:
        """Changes whenever the ledger does."""
        try:
            stat = (self.folder / LEDGER).stat()
        except OSError:
            raise NotFound(f"there is no knowledge base {self.name!r}", param="name") from None
        return f"{stat.st_mtime_ns}-{stat.st_size}-{stat.st_ino}"

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """The right to write. Raises Conflict where somebody else has it."""
        lock = FileLock(str(self.folder / "lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise Conflict(
                f"knowledge base {self.name!r} is being changed by another sync", hint="wait until it is done"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def close(self) -> None:
        with self._guard:
            for store in self._stores.values():
                store.close()
            self._stores.clear()


class Bases:
    """All bases of a home; each is opened once."""

    def __init__(self, home: Path) -> None:
        self.root = home / "knowledge"
        self._open: dict[str, Base] = {}

    def create(self, recipe: Recipe) -> Base:
        """A new, empty base. Raises Conflict if the name is taken."""
        check_name(recipe.name)
        target = self.root / recipe.name
        if target.exists():
            raise Conflict(
                f"there is a knowledge base {recipe.name!r} already", param="name", hint="`dockyard knowledge ls`"
            )
        made = msgspec.structs.replace(
            recipe, created=recipe.created or time.time(), mark=secrets.token_hex(4) if recipe.url else ""
        )
        with self.making(recipe.name) as part:
            with Ledger(part / LEDGER, create=True) as ledger:
                ledger.write_recipe(made)
        return self.get(recipe.name)

    @contextlib.contextmanager
    def making(self, name: str) -> Iterator[Path]:
        """A folder that becomes the base when the block ends well. Raises Conflict where it is there by then."""
        self.root.mkdir(parents=True, exist_ok=True)
        part = self.root / f".making-{secrets.token_hex(8)}"
        part.mkdir()
        try:
            yield part
            try:
                part.rename(self.root / name)
            except OSError:
                raise Conflict(f"there is a knowledge base {name!r} already", param="name") from None
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def get(self, name: str) -> Base:
        """Raises NotFound with near names."""
        check_name(name)
        if not (self.root / name / LEDGER).exists():
            self._open.pop(name, None)
            known = [one.name for one in self.all()]
            hint = f"there are {', '.join(known)}" if known else f"`dockyard knowledge create {name}` makes it"
            raise NotFound(f"there is no knowledge base {name!r}", param="knowledge", hint=hint)
        if name not in self._open:
            self._open[name] = Base(self.root / name)
        return self._open[name]

    def all(self) -> list[Base]:
        if not self.root.is_dir():
            return []
        names = sorted(path.name for path in self.root.iterdir() if not path.name.startswith("."))
        whole = [name for name in names if (self.root / name / LEDGER).exists()]
        return [self._open.setdefault(name, Base(self.root / name)) for name in whole]

    def remove(self, name: str, *, force: bool = False) -> str:
        """Remove a base; what of it is left on a server that can't be used, which only ``force`` allows, or "".

        Raises NotFound, Conflict while it is written, and what dropping its collection raises: nothing is removed then.
        """
        base = self.get(name)
        with base.writing():
            with base.ledger() as ledger:
                recipe, place = ledger.recipe, ledger.place
            remains = self._dropped(base, recipe, place, force=force) if recipe.url else ""
            gone = self.root / f".gone-{secrets.token_hex(8)}"
            base.close()
            base.folder.rename(gone)
        self._open.pop(name, None)
        shutil.rmtree(gone, ignore_errors=True)
        return remains

    def _dropped(self, base: Base, recipe: Recipe, place: str, *, force: bool) -> str:
        try:
            base.vectors(recipe, place).drop()
        except DockyardError as error:
            remains = left(recipe.store, base.place(recipe, place))
            if force:
                return remains
            error.message += "; nothing was removed"
            error.hint = f"bring it back, or `dockyard knowledge rm {base.name} --force`: then {remains}"
            raise
        return ""

    def close(self) -> None:
        for base in self._open.values():
            base.close()
        self._open.clear()
