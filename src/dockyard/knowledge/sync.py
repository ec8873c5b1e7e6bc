"""The documents of a base's sources become its index.

    read the sources ─→ parse and cut what is new or changed ─→ embed what has no vector yet ─→ write, commit, tidy

All of it shows at once, in the ledger's one transaction at the end. A sync that is killed leaves the index as it was;
the next one finds the vectors that were made already. What goes wrong with one document is that document's problem:
its old version stays, and the rest goes on.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Sequence

import msgspec

from dockyard.errors import Cancelled, DockyardError
from dockyard.knowledge import feed
from dockyard.knowledge.bases import Base
from dockyard.knowledge.chunkers import chunk
from dockyard.knowledge.ledger import Ledger, Work
from dockyard.knowledge.model import Document, Parsed, Problem, Recipe, Row, Sighted, Source, Span, Synced
from dockyard.knowledge.models import Models
from dockyard.knowledge.parsers import Bounds
from dockyard.knowledge.parsers._apart import Apart
from dockyard.knowledge.sources import Job, Opened, reader
from dockyard.settings import Settings

PER_DOCUMENT = 1 << 20
"""Most passages of one document, and the step between the ids of two."""

WRITE_ROWS = 4096
ARTIFACT = "artifact"
"""The kind of a source whose documents came with an index that was pulled: nobody reads it again."""

Told = Callable[[str, int, int], None]
"""Called with what is done ("read", "embed", "write"), how much of it, and of how much; 0: not known."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """``sources``: only these ids. ``rebuild``: cut and embed everything again, as ``recipe`` says if it is given.

    ``prune``: believe a source that shows nothing where it had something. ``forget``: a source to take out.
    """

    sources: tuple[int, ...] | None = None
    rebuild: bool = False
    recipe: Recipe | None = None
    prune: bool = False
    forget: int | None = None


class _Changes:
    """What a sync has found out."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.gone: list[int] = []
        self.touched: list[Document] = []
        self.problems: list[Problem] = []
        self.sources: list[Source] = []
        self.reused: dict[bytes, int] = {}
        self.counts = dict.fromkeys(("added", "changed", "removed", "unchanged", "kept"), 0)
        self.seen = 0


async def sync(
    base: Base, models: Models, settings: Settings, options: Options | None = None, told: Told | None = None
) -> Synced:
    """Bring the index up to date. Raises Conflict while another sync runs, and what embedding raises; the index is
    then as before."""
    options, told = options or Options(), told or (lambda *_: None)
    begun = time.monotonic()
    stop = threading.Event()
    with base.writing():
        with base.ledger() as ledger:
            recipe = options.recipe or ledger.recipe
            if not options.rebuild:
                await feed.check(models, recipe)
            work = Work(base.folder / "work.db")
            done = False
            try:
                scanning = asyncio.to_thread(_scan, base, ledger, work, recipe, settings, options, stop, told)
                changes: _Changes = await scanning
                rows, missing = work.missing()
                embedded = await feed.embed(work, models, recipe, missing, told)
                await asyncio.to_thread(_write, base, ledger, work, recipe, changes, options, told)
                done = True
                asked = [one for one in changes.sources if one.problem or not options.prune]
                empty = [one.place for one in asked if not ledger.holds(one.id)]
            finally:
                stop.set()
                work.close(done=done)
    return Synced(
        **changes.counts,
        chunks=rows,
        embedded=embedded,
        seconds=time.monotonic() - begun,
        problems=tuple(one for one in changes.problems if options.sources is None or one.source in options.sources),
        empty=tuple(empty),
    )


def _scan(
    base: Base, ledger: Ledger, work: Work, recipe: Recipe, settings: Settings, options: Options,
    stop: threading.Event, told: Told,
) -> _Changes:  # fmt: skip
    changes = _Changes(ledger.next_number)
    bounds = Bounds(most=settings.knowledge_max_document)
    with Apart(bounds) as apart:
        scan = _Scan(base, ledger, work, recipe, options, changes, apart, stop, told)
        for source in ledger.sources():
            if source.id == options.forget:
                scan.forget(source)
            elif source.kind == ARTIFACT or (options.sources is not None and source.id not in options.sources):
                scan.leave(source)
            else:
                job = Job(
                    settings=settings,
                    folder=base.folder / "sources" / str(source.id),
                    source=source,
                    most=bounds.most,
                    known={one.path: one.fingerprint for one in ledger.documents(source.id) if one.fingerprint},
                )
                scan.source(job)
    return changes


class _Scan:
    """Goes through sources and puts what is new into the work file."""

    def __init__(
        self, base: Base, ledger: Ledger, work: Work, recipe: Recipe, options: Options, changes: _Changes, apart: Apart,
        stop: threading.Event, told: Told,
    ) -> None:  # fmt: skip
        self._base = base
        self._ledger = ledger
        self._work = work
        self._recipe = recipe
        self._options = options
        self._changes = changes
        self._apart = apart
        self._stop = stop
        self._told = told
        self._mark = f"{recipe.embedder}\0{recipe.passage_prefix}\0{recipe.dimension}\0".encode() + recipe.probe

    def forget(self, source: Source) -> None:
        """Take out all documents of a source."""
        numbers = [one.number for one in self._ledger.documents(source.id)]
        self._changes.gone += numbers
        self._changes.counts["removed"] += len(numbers)

    def leave(self, source: Source) -> None:
        """A source that is not asked; its problems stay, and its documents."""
        self._changes.problems += [one for one in self._ledger.problems() if one.source == source.id]
        for one in self._ledger.documents(source.id):
            self._same(one, one)

    def source(self, job: Job) -> None:
        """Everything that a source shows; one that can't be told about keeps its documents."""
        source = job.source
        known = {one.path: one for one in self._ledger.documents(source.id)}
        seen: set[str] = set()
        problem = ""
        try:
            with reader(source.kind).open(job) as opened:
                for one in opened.sight():
                    if self._stop.is_set():
                        raise Cancelled("the sync was cancelled")
                    if isinstance(one, Problem):
                        self._failed(one, known.get(one.path), seen)
                        continue
                    seen.add(one.path)
                    self._document(opened, source, one, known.get(one.path))
        except Cancelled:
            raise
        except (DockyardError, OSError) as error:
            problem = error.message if isinstance(error, DockyardError) else str(error)
            hint = (error.hint or "") if isinstance(error, DockyardError) else ""
            self._changes.problems.append(Problem(source=source.id, path=source.place, message=problem, hint=hint))
        missing = [one for path, one in known.items() if path not in seen]
        if not seen and not problem:
            problem = self._empty(source, missing)
        if problem and missing:
            for left in missing:
                self._same(left, left)
                self._changes.counts["kept"] += 1
        else:
            self._changes.gone += [one.number for one in missing]
            self._changes.counts["removed"] += len(missing)
        now = time.time() if not problem else source.synced
        self._changes.sources.append(msgspec.structs.replace(source, synced=now, problem=problem))

    def _empty(self, source: Source, missing: Sequence[Document]) -> str:
        """A source that shows nothing: told, and believed only with ``prune`` if it had something."""
        told, hint = f"{source.place} has no documents", ""
        if missing and self._options.prune:
            return ""
        if missing:
            told += f"; the {len(missing)} that the index has of it are kept"
            hint = "`dockyard knowledge sync --prune` takes them out"
        self._changes.problems.append(Problem(source=source.id, path=source.place, message=told, hint=hint))
        return told

    def _failed(self, problem: Problem, known: Document | None, seen: set[str]) -> None:
        self._changes.problems.append(problem)
        seen.add(problem.path)
        if known is not None:
            self._changes.counts["kept"] += 1
            self._same(known, known)

    def _document(self, opened: Opened, source: Source, sighted: Sighted, known: Document | None) -> None:
        now = time.time()
        readers = source.readers if sighted.readers is None else sighted.readers
        self._changes.seen += 1
        self._told("read", self._changes.seen, 0)
        if known is not None and sighted.fingerprint and sighted.fingerprint == known.fingerprint:
            self._changes.counts["unchanged"] += 1
            self._same(known, self._again(known, source, readers, now))
            return
        try:
            data = opened.read(sighted)
            digest = hashlib.sha256(data).hexdigest()
            if known is not None and known.digest == digest:
                self._changes.counts["unchanged"] += 1
                fresh = self._again(known, source, readers, now)
                fresh = msgspec.structs.replace(fresh, fingerprint=sighted.fingerprint, modified=sighted.modified)
                self._same(known, fresh)
                return
            parsed = self._apart.parse(data, sighted.named or sighted.path)
            spans = chunk(parsed, self._recipe.cut)
        except (DockyardError, OSError) as error:
            told = error.message if isinstance(error, DockyardError) else error.strerror or str(error)
            hint = (error.hint or "") if isinstance(error, DockyardError) else ""
            problem = Problem(source=source.id, path=sighted.path, message=told, hint=hint)
            self._failed(problem, known, set())
            return
        made = Document(
            number=0, source=source.id, path=sighted.path, digest=digest, fingerprint=sighted.fingerprint,
            size=len(data), modified=sighted.modified, fetched=now, title=parsed.title or sighted.path,
            readers=readers, attributes=source.attributes, file=str(source.about.get("file_id") or ""),
        )  # fmt: skip
        if known is not None:
            self._reuse(known)
            self._changes.gone.append(known.number)
        self._add(made, parsed, spans)
        self._changes.counts["added" if known is None else "changed"] += 1
        for note in parsed.notes:
            self._changes.problems.append(Problem(source=source.id, path=sighted.path, message=note))

    def _reuse(self, known: Document) -> None:
        """Passages that stay the same in a document that changed have their vectors already."""
        if self._options.rebuild:
            return
        store = self._base.vectors(self._recipe, self._ledger.place)
        old = store.rows(self._ledger.snapshot, [known.number])
        self._work.keep((self._hash(row.words), row.vector) for row in old)

    def _hash(self, words: str) -> bytes:
        """What a passage's vector depends on."""
        return hashlib.blake2b(self._mark + words.encode(), digest_size=20).digest()

    def _again(self, known: Document, source: Source, readers: tuple[str, ...], now: float) -> Document:
        """The same document, seen now."""
        return msgspec.structs.replace(
            known, fetched=now, readers=readers, attributes={**known.attributes, **source.attributes}
        )

    def _same(self, known: Document, fresh: Document) -> None:
        """A document whose text stays; in a rebuild it is cut and embedded again from what the ledger has."""
        if not self._options.rebuild:
            if fresh != known:
                self._changes.touched.append(fresh)
            return
        parsed = self._ledger.parsed(known.number)
        self._add(fresh, parsed, chunk(parsed, self._recipe.cut))
        self._changes.gone.append(known.number)

    def _add(self, document: Document, parsed: Parsed, spans: Sequence[Span]) -> None:
        number = self._changes.number
        self._changes.number += 1
        spans = spans[:PER_DOCUMENT]
        made = msgspec.structs.replace(document, number=number, chunks=len(spans), characters=len(parsed.text))
        rows = [self._row(number, place, parsed.text, span) for place, span in enumerate(spans)]
        self._work.add(made, parsed, rows)

    def _row(self, number: int, place: int, text: str, span: Span) -> tuple[Row, bytes]:
        body = text[span.start : span.end]
        words = f"{span.heading}\n{body}" if span.heading else body
        row = Row(
            id=number * PER_DOCUMENT + place, doc=number, words=words, heading=span.heading, start=span.start,
            end=span.end, page=span.page, above=span.above, below=span.below,
        )  # fmt: skip
        return row, self._hash(words)


def _write(
    base: Base, ledger: Ledger, work: Work, recipe: Recipe, changes: _Changes, options: Options, told: Told
) -> None:
    """The index first, then the ledger, which makes it count."""
    old, snapshot, before = ledger.place, ledger.snapshot, ledger.recipe
    place = f"a{int(old[1:]) + 1}" if options.rebuild else old
    total = work.missing()[0]
    wrote = False
    if total or changes.gone or options.rebuild or not snapshot:
        store = base.vectors(recipe, place)
        store.rollback("" if options.rebuild else snapshot)
        if changes.gone and not options.rebuild:
            store.remove(changes.gone)
        written = 0
        for rows in work.whole(WRITE_ROWS):
            store.add(rows)
            written += len(rows)
            told("write", written, total)
        snapshot, wrote = store.commit(), True
    ledger.commit(
        work,
        snapshot=snapshot,
        place=place,
        next_number=changes.number,
        gone=changes.gone,
        touched=changes.touched,
        sources=changes.sources,
        problems=changes.problems,
        without=options.forget,
        recipe=options.recipe,
    )
    if place != old:
        base.forget(before, old)
    elif wrote:
        base.vectors(recipe, place).tidy(snapshot)
