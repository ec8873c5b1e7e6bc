"""Text to passages: the protocol of a chunker, and the chooser.

A chunker is one file of this package, or an entry point of group ``dockyard.knowledge.chunkers``, that binds ``PLUGIN``
to a function ``(parsed, cut) -> list[Span]``. Spans are in order; each is text of the document, so that whatever is
found can be shown where it stands.
"""

from __future__ import annotations

from typing import Protocol

from dockyard import plugins
from dockyard.errors import NotFound
from dockyard.knowledge.model import Cut, Parsed, Span


class Chunker(Protocol):
    def __call__(self, parsed: Parsed, cut: Cut) -> list[Span]: ...


def chosen(name: str) -> Chunker:
    """Raises NotFound with the known names."""
    found = plugins.find("knowledge.chunkers").get(name)
    if found is None:
        known = ", ".join(plugins.find("knowledge.chunkers"))
        raise NotFound(f"there is no chunker {name!r}", param="chunker", hint=f"there are {known}")
    made: Chunker = found.load()  # by the kind's contract
    return made


def chunk(parsed: Parsed, cut: Cut) -> list[Span]:
    """The passages of a document; none is blank."""
    return [span for span in chosen(cut.chunker)(parsed, cut) if parsed.text[span.start : span.end].strip()]
