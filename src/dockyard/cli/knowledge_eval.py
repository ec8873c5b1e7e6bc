"""``dockyard knowledge eval``: how well a base finds and answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dockyard.cli._knowledge import BaseName
from dockyard.cli._options import AsJson, Host
from dockyard.cli.knowledge_ask import Judge

if TYPE_CHECKING:
    from dockyard.knowledge.evaluate import Answers, Retrieval


def evaluate(
    name: BaseName,
    questions: Annotated[
        Path | None, typer.Option("--questions", metavar="FILE.jsonl", help="A set; else --generate writes one.")
    ] = None,
    generate: Annotated[int, typer.Option(min=0, help="So many questions, written by --model.")] = 0,
    save: Annotated[Path | None, typer.Option("--save", metavar="FILE.jsonl", help="Keep the set here.")] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="MODEL", help="Who writes questions and answers.")
    ] = "",
    answer: Annotated[bool, typer.Option("--answers", help="Ask the questions, too.")] = False,
    judge: Judge = "",
    as_json: AsJson = False,
    host: Host = None,
) -> None:
    """Measure NAME: recall, nDCG, MRR and context precision of each way to search; with --answers what is answered."""
    import msgspec

    from dockyard.cli._knowledge import bases, with_models
    from dockyard.cli._output import show_json
    from dockyard.errors import InvalidRequest
    from dockyard.knowledge import questions as sets
    from dockyard.knowledge.answer import Ask
    from dockyard.knowledge.evaluate import answers, retrieval
    from dockyard.knowledge.model import Search

    if questions is None and not generate:
        raise InvalidRequest("which questions?", param="questions", hint="--questions FILE, or --generate 50 -m MODEL")
    if generate and not model:
        raise InvalidRequest("a model has to write the questions", param="model", hint="name it with --model")
    if judge and not answer:
        raise InvalidRequest("a judge is asked where questions are answered", param="judge", hint="add --answers")
    given = sets.read(questions) if questions is not None else []

    async def work(settings: Any, models: Any) -> tuple[list[Retrieval], Answers | None]:
        base = bases(settings).get(name)
        asked = given or await sets.written(base, models, model, generate)
        if save is not None:
            save.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in asked))
        ways = {
            "vector": Search(mode="vector", rerank=False),
            "words": Search(mode="words", rerank=False),
            "hybrid": Search(rerank=False),
        }
        if base.recipe().reranker:
            ways["hybrid + reranker"] = Search()
        found = await retrieval(base, models, asked, ways)
        return found, await answers(base, models, asked, Ask(writer=model, judge=judge)) if answer else None

    ranked, said = with_models(host, work)
    if as_json:
        show_json({"retrieval": ranked, "answers": said.figures if said else None})
        return
    _table(ranked, said)


def _table(ranked: list[Retrieval], said: Answers | None) -> None:
    from dockyard.cli._output import show_table

    figures = list(ranked[0].figures)
    rows = [(one.name, *(_interval(one.figures[figure]) for figure in figures)) for one in ranked]
    show_table(("search", *figures), rows)
    if said is not None:
        print()
        show_table(("answers", "share", "of"), [(n, _interval(i), i.questions) for n, i in said.figures.items()])


def _interval(value: Any) -> str:
    return f"{value.mean:.2f} ({value.low:.2f}-{value.high:.2f})"
