"""Verbs that fill in a prompt, ask a model with it, test it and search for a better one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from dockyard.cli._options import AsJson, Host

if TYPE_CHECKING:
    from dockyard.client import AsyncClient
    from dockyard.prompt.library import Found
    from dockyard.prompt.model import Prompt
    from dockyard.prompt.optimize import Row
    from dockyard.settings import Settings

T = TypeVar("T")

Named = Annotated[str, typer.Argument(metavar="NAME", help="A prompt's name, or the file of one.")]
Vars = Annotated[
    list[str] | None, typer.Option("--var", metavar="NAME=VALUE", help="What a variable stands for; may be repeated.")
]
Said = Annotated[str, typer.Argument(metavar="INPUT", help="What the user says; `-`: standard input.")]
Asked = Annotated[str, typer.Option("--model", "-m", metavar="MODEL", help="Whom to ask; else the prompt's own.")]


def render(name: Named, said: Said = "", variables: Vars = None, as_json: AsJson = False) -> None:
    """Print the messages that a prompt becomes. Nothing is asked; examples chosen by vectors are the first ones."""
    import msgspec

    from dockyard.cli._output import show_json
    from dockyard.prompt.render import composed
    from dockyard.types import Message

    prompt = _found(name).prompt
    select = prompt.select
    examples = prompt.examples if select is None else prompt.examples[: select.count]
    message = Message(role="user", content=_text(said))
    messages = composed(prompt, _variables(variables), (message,), examples)
    if as_json:
        return show_json([msgspec.to_builtins(one) for one in messages])
    for one in messages:
        print(f"[{one.role}]\n{one.content}\n")
    return None


def run(
    name: Named,
    said: Said,
    variables: Vars = None,
    model: Asked = "",
    seed: Annotated[int | None, typer.Option(help="Makes a random answer repeatable.")] = None,
    reasoning: Annotated[bool, typer.Option("--reasoning", help="Also print what was thought first.")] = False,
    as_json: AsJson = False,
    host: Host = None,
) -> None:
    """Ask a model with a prompt and print its answer, without the reasoning before it."""
    from dockyard.cli._output import note, show_json

    found, given = _found(name), _variables(variables)
    settings = _ready(found.prompt, model, host, quiet=as_json)
    fields = {} if seed is None else {"seed": seed}

    async def ask(client: AsyncClient) -> Any:
        from dockyard.prompt.trial import Asker

        return await Asker(client, model, **fields).ask(found.prompt, _text(said), given)

    answer = _over(settings, host, ask)
    if as_json:
        import msgspec

        about = {"prompt": found.name, "version": found.version, "digest": found.digest}
        return show_json({**about, **msgspec.to_builtins(answer)})
    if reasoning and answer.reasoning:
        note(answer.reasoning)
    print(answer.text)
    return None


def check(
    name: Named,
    model: Asked = "",
    seed: Annotated[int | None, typer.Option(help="Makes random answers repeatable.")] = None,
    as_json: AsJson = False,
    host: Host = None,
) -> int:
    """Run a prompt's tests; exit code 1 if one does not pass."""
    from dockyard.cli._output import show_json

    found = _found(name)
    settings = _ready(found.prompt, model, host, quiet=as_json)
    fields = {} if seed is None else {"seed": seed}

    def tell(outcome: Any) -> None:
        if not as_json:
            why = f": {outcome.failed} ({outcome.answer[:60]!r})" if outcome.failed else ""
            print(f"{'passed' if outcome.passed else 'FAILED'}  {outcome.name}{why}", flush=True)

    async def ask(client: AsyncClient) -> Any:
        from dockyard.prompt import trial

        return await trial.run(trial.Asker(client, model, **fields), found.prompt, on_outcome=tell)

    outcomes = _over(settings, host, ask)
    passed = sum(one.passed for one in outcomes)
    if as_json:
        import msgspec

        about = {"prompt": found.name, "version": found.version, "digest": found.digest}
        show_json({**about, "passed": passed, "tests": [msgspec.to_builtins(one) for one in outcomes]})
    else:
        print(f"{passed} of {len(outcomes)} passed")
    return 0 if passed == len(outcomes) else 1


def optimize(
    name: Named,
    data: Annotated[
        Path, typer.Option("--data", metavar="FILE", help="Questions: JSONL with `input` and `output` or `references`.")
    ],
    model: Asked = "",
    scorer: Annotated[str, typer.Option("--scorer", metavar="NAME", help="What an answer is worth.")] = "exact-match",
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the winner to this file.")] = None,
    instructions: Annotated[
        Path | None, typer.Option("--instructions", metavar="FILE", help="Further wordings to try, one a line.")
    ] = None,
    proposer: Annotated[
        str, typer.Option("--proposer", metavar="MODEL", help="A model that is asked for further wordings.")
    ] = "",
    requests: Annotated[int, typer.Option(min=20, help="Requests that the search may make.")] = 400,
    examples: Annotated[int, typer.Option(min=0, max=32, help="Examples to show at most.")] = 4,
    seed: Annotated[int, typer.Option(help="Decides who is asked what.")] = 0,
    as_json: AsJson = False,
    host: Host = None,
) -> None:
    """Search for better instructions and examples, and say what they are worth on questions that were held out."""
    from dockyard.cli._output import note, show_json
    from dockyard.prompt import optimize as search
    from dockyard.scorers import Chosen

    found, rows = _found(name), read_rows(data)
    wordings = instructions.read_text(encoding="utf-8").splitlines() if instructions is not None else []
    settings = _ready(found.prompt, model, host, quiet=as_json)
    budget = search.Budget(requests=requests, examples=examples, seed=seed)

    async def ask(client: AsyncClient) -> Any:
        from dockyard.prompt.trial import Asker

        return await search.optimize(
            Asker(client, model),
            found.prompt,
            rows,
            Chosen(name=scorer),
            budget=budget,
            instructions=[line.strip() for line in wordings if line.strip()],
            proposer=Asker(client, proposer, temperature=0.8, max_tokens=200) if proposer else None,
            on_note=note,
        )

    result = _over(settings, host, ask)
    if out is not None:
        from dockyard.prompt.writing import as_yaml

        out.write_text(as_yaml(result.prompt), encoding="utf-8")
    if as_json:
        import msgspec

        return show_json(msgspec.to_builtins(result))
    told = result.held_out
    print(f"winner: {result.name} ({result.requests} requests, {result.failed} failed)")
    print(f"held out, {told.asked} questions: {told.before:.3f} before, {told.after:.3f} after")
    print(
        f"difference {told.difference:+.3f}, 95 % between {told.low:+.3f} and {told.high:+.3f}: better? {told.better}"
    )
    return None


def read_rows(file: Path) -> list[Row]:
    """The questions of a JSONL file. Raises InvalidRequest with the line's number."""
    import msgspec

    from dockyard.cli.prompt_library import read_text
    from dockyard.errors import InvalidRequest
    from dockyard.prompt.optimize import Row

    rows = []
    for number, line in enumerate(read_text(str(file)).splitlines(), 1):
        if not line.strip():
            continue
        try:
            told = msgspec.json.decode(line)
            references = told.get("references") or [told["output"]]
            variables = {str(key): str(value) for key, value in (told.get("variables") or {}).items()}
            rows.append(Row(input=str(told["input"]), references=tuple(map(str, references)), variables=variables))
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
            raise InvalidRequest(
                f"{file}, line {number}: not a question: {error}",
                param=f"line {number}",
                hint='a line reads {"input": "…", "output": "…"}',
            ) from None
    return rows


def _found(name: str) -> Found:
    """The prompt in a file, or of the library."""
    from dockyard.cli.prompt_library import library, read_text
    from dockyard.prompt.library import Found
    from dockyard.prompt.model import read

    if name.endswith((".yaml", ".yml", ".json")):
        from dockyard.artifact.digest import of_bytes

        text = read_text(name)
        return Found(name=name, version="file", digest=of_bytes(text.encode()), prompt=read(text, name), text=text)
    return library().find(name)


def _variables(given: list[str] | None) -> dict[str, Any]:
    from dockyard.errors import InvalidRequest

    found = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidRequest(f"--var {text!r} is not NAME=VALUE", param="var")
        found[name] = value
    return found


def _text(said: str) -> str:
    from dockyard.cli.prompt_library import read_text

    return read_text("-") if said == "-" else said


def _ready(prompt: Prompt, model: str, host: str | None, *, quiet: bool) -> Settings:
    """The settings, once the model is here, unless a named server has it."""
    from dockyard import stack
    from dockyard.cli._connect import fetch_missing, named_server, read_settings

    settings = read_settings()
    wanted = model or prompt.model
    if wanted and named_server(host) is None and wanted not in stack.of(settings).aliases():
        fetch_missing(wanted, settings, quiet=quiet)
    return settings


def _over(settings: Settings, host: str | None, ask: Callable[[AsyncClient], Awaitable[T]]) -> T:
    """What ``ask`` gives, over the running server or an application in this process."""
    import asyncio

    from dockyard.cli._connect import find_server
    from dockyard.cli._session import terminable
    from dockyard.cli.run import in_process

    async def exchange() -> T:
        with terminable():
            async with find_server(host, settings) or in_process(settings) as client:
                return await ask(client)

    return asyncio.run(exchange())
