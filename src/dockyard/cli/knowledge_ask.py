"""Verbs that find and answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dockyard.cli._knowledge import BaseName
from dockyard.cli._options import AsJson, Host

if TYPE_CHECKING:
    from dockyard.knowledge.model import Answer, Hit
    from dockyard.knowledge.retrieve import Results

Words = Annotated[list[str], typer.Argument(metavar="QUESTION", help="What to look for.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="Passages, at most.")]
Filter = Annotated[
    list[str] | None,
    typer.Option("--filter", metavar="KEY=VALUE", help="Only documents with this attribute; `*` matches any text."),
]
Reader = Annotated[str | None, typer.Option("--as", metavar="KEY", help="Search as the key of this name may.")]

Judge = Annotated[
    str, typer.Option("--judge", metavar="MODEL", help="Let this model judge whether the best sentences answer.")
]


def search(
    name: BaseName,
    question: Words,
    limit: Limit = 5,
    mode: Annotated[Literal["hybrid", "vector", "words"], typer.Option(help="What is compared.")] = "hybrid",
    rerank: Annotated[bool, typer.Option("--rerank/--no-rerank", help="Let the reranker order what was found.")] = True,
    diversity: Annotated[float, typer.Option(min=0, max=1, help="Trade relevance for difference (MMR).")] = 0.0,
    expand: Annotated[bool, typer.Option("--expand", help="Widen each passage to its section.")] = False,
    rewrite: Annotated[
        str, typer.Option(metavar="MODEL", help="Let this model word the question in other ways, too.")
    ] = "",
    where: Filter = None,
    reader: Reader = None,
    as_json: AsJson = False,
    host: Host = None,
) -> None:
    """Find the passages of NAME that say most on a question."""
    from dockyard.cli._knowledge import bases, with_models
    from dockyard.cli._output import note, show_json
    from dockyard.knowledge.model import Search
    from dockyard.knowledge.retrieve import search as run

    options = Search(
        limit=limit, mode=mode, rerank=rerank, diversity=diversity, expand=expand, rewrite=rewrite,
        filters=filters_of(where), reader=reader,
    )  # fmt: skip

    async def work(settings: Any, models: Any) -> Results:
        return await run(bases(settings).get(name), models, " ".join(question), options)

    found = with_models(host, work)
    for text in found.notes:
        note(text)
    if as_json:
        return show_json([shown(hit) for hit in found.hits])
    for hit in found.hits:
        _print_hit(hit)
    if not found.hits:
        note("nothing was found")
    return None


def ask(
    name: BaseName,
    question: Words,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="MODEL", help="Who writes the answer; without it, it is quoted.")
    ] = "",
    judge: Judge = "",
    limit: Limit = 5,
    least: Annotated[
        float | None, typer.Option(min=0, max=1, help="Confidence below which it is not in the documents.")
    ] = None,
    where: Filter = None,
    reader: Reader = None,
    as_json: AsJson = False,
    host: Host = None,
) -> int:
    """Answer a question from NAME; each sentence is checked and cited. Exit code 3: the answer is not there."""
    from dockyard import guards
    from dockyard.cli._knowledge import bases, with_models
    from dockyard.cli._output import show_json
    from dockyard.knowledge.answer import LEAST, Ask
    from dockyard.knowledge.answer import ask as run
    from dockyard.knowledge.model import Search

    found_options = Search(limit=limit, filters=filters_of(where), reader=reader)

    async def work(settings: Any, models: Any) -> Answer:
        options = Ask(
            search=found_options,
            writer=model,
            judge=judge,
            least=LEAST if least is None else least,
            guards=guards.chosen(settings),
            classifier=guards.classifier(),
        )
        return await run([bases(settings).get(name)], models, " ".join(question), options)

    answer = with_models(host, work)
    if as_json:
        show_json({**_builtins(answer), "hits": [shown(hit) for hit in answer.hits]})
    else:
        _print_answer(answer)
    return 0 if answer.found else 3


def filters_of(texts: list[str] | None) -> dict[str, Any] | None:
    """``KEY=VALUE`` texts as one filter. Raises InvalidRequest."""
    from dockyard.cli._mcp import value_of
    from dockyard.errors import InvalidRequest

    parts = []
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InvalidRequest(f"{text!r} is not KEY=VALUE", param="filter")
        parts.append({"type": "glob" if "*" in value else "eq", "key": key, "value": value_of(value)})
    return {"type": "and", "filters": parts} if parts else None


def shown(hit: Hit) -> dict[str, Any]:
    """A hit to print as JSON."""
    found = _builtins(hit)
    for name in ("vector", "chunk", "above", "below"):
        found.pop(name)
    return found


def _builtins(value: Any) -> dict[str, Any]:
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(value)
    return found


def _print_hit(hit: Hit) -> None:
    where = f", page {hit.page}" if hit.page else ""
    print(f"{hit.score:.2f}  {hit.document.path} [{hit.start}-{hit.end}{where}]  {hit.heading}".rstrip())
    print("      " + " ".join(hit.text.split())[:300])


def _print_answer(answer: Answer) -> None:
    from dockyard.cli._knowledge import moment
    from dockyard.cli._output import note

    print(answer.text)
    for one in answer.citations:
        page = f", page {one.page}" if one.page else ""
        quote = " ".join(one.quote.split())
        print(f"  [{one.number}] {one.path} [{one.start}-{one.end}{page}], seen {moment(one.fetched)}")
        print(f"      “{quote[:300]}”")
    if answer.dropped:
        note(f"{len(answer.dropped)} sentences of the model were left out: no passage carries them")
    if answer.held_back:
        note(f"{answer.held_back} passages were held back by a guard")
