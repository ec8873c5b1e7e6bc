"""The ``docker-model`` command: ``docker model VERB`` of Docker's command line, and what Compose's ``models:`` calls.

Compose runs ``ls --json``, ``pull MODEL``, ``configure [--context-size N] MODEL [-- FLAGS]`` and ``status --json``; its
older ``provider: {type: model}`` runs ``compose up``. Those, and the verbs that read a server, are here in Model
Runner's words; the others are Dockyard's own of that name. ``MODEL_RUNNER_HOST`` names a server elsewhere.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from dockyard.cli._docker_model import ask, configuration, endpoints, fetched, models_there, reachable, spellings

COMPATIBLE = "1.2.6"
"""Of Model Runner's command line; Compose hands runtime flags on to 1.0.6 and later."""
OWN = frozenset({"run", "push", "tag", "rm", "inspect", "show", "df", "logs", "package", "search", "stop"})

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(metavar="MODEL")]
app = typer.Typer(
    name="docker model",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=f"Models of Dockyard, for Docker. Further verbs are Dockyard's own: {', '.join(sorted(OWN))}.",
)
compose = typer.Typer(help="What Compose calls for a service with `provider: {type: model}`.")
app.add_typer(compose, name="compose", hidden=True)


def main() -> None:
    """The ``docker-model`` command."""
    sys.exit(call(sys.argv[1:]))


def call(arguments: Sequence[str]) -> int:
    """Do what the arguments say and return the exit code."""
    words = list(arguments)
    if words[:1] == ["docker-cli-plugin-metadata"]:
        print(json.dumps(metadata()))
        return 0
    # Docker runs `docker-model [its own flags] model VERB …`; Compose leaves the first words out.
    if words and (words[0] == "model" or (words[0].startswith("-") and "model" in words)):
        words = words[words.index("model") + 1 :]
    if host := os.environ.get("MODEL_RUNNER_HOST"):
        os.environ["DOCKYARD_HOST"] = host if "://" in host else f"http://{host}"
    if words and words[0] in OWN:
        from dockyard import cli

        return cli.call(words)
    try:
        done = typer.main.get_command(app).main(words, prog_name="docker model", standalone_mode=False)
        return int(done or 0)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:  # noqa: BLE001 - the one place that turns any failure into an exit code
        from dockyard.cli._failure import report

        return report(error)


def metadata() -> dict[str, str]:
    """What Docker asks each plug-in for."""
    return {
        "SchemaVersion": "0.1.0",
        "Vendor": "Dockyard",
        "Version": f"v{COMPATIBLE}",
        "ShortDescription": "Models of Dockyard",
    }


@app.command("ls")
def ls(
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only ids.")] = False,
    openai: Annotated[bool, typer.Option("--openai", help="In OpenAI's shape.")] = False,
) -> None:
    """List models."""
    from dockyard.cli._output import show_json, show_table

    if openai:
        return show_json(ask("GET", "/v1/models"))
    found = models_there()
    if quiet:
        for model in found:
            print(model["id"])
        return None
    if as_json:
        return show_json([{**model, "tags": spellings(model["tags"])} for model in found])
    rows = [
        (
            tag,
            *(model["config"].get(name) or "-" for name in ("parameters", "quantization", "architecture")),
            model["id"].partition(":")[2][:12],
            model["config"]["size"],
        )
        for model in found
        for tag in model["tags"] or ["<none>"]
    ]
    return show_table(("model name", "parameters", "quantization", "architecture", "model id", "size"), rows)


app.command("list", hidden=True)(ls)


@app.command("pull")
def pull(model: Name) -> None:
    """Fetch a model."""
    print("Model pulled successfully" if fetched(model, print) else "Using cached model")


@app.command("configure")
def configure(
    model: Name,
    flags: Annotated[list[str] | None, typer.Argument(metavar="-- FLAGS", help="Flags of llama-server.")] = None,
    context: Annotated[int | None, typer.Option("--context-size", help="Tokens that a request may span.")] = None,
    keep_alive: Annotated[str | None, typer.Option(help='How long it stays loaded unused: "5m", "0", "-1".')] = None,
    mode: Annotated[str | None, typer.Option(help="completion, embedding or reranking.")] = None,
    think: Annotated[
        bool | None, typer.Option("--think/--no-think", help="Whether it reasons before it answers.")
    ] = None,
) -> None:
    """Say how a model is to be loaded; kept over restarts."""
    from dockyard.errors import InvalidRequest

    if model == "show":
        from dockyard.cli._output import show_json

        return show_json(ask("GET", "/engines/_configure" + (f"?model={flags[0]}" if flags else "")))
    if flags and not any(flag.startswith("-") for flag in flags[:1]):
        raise InvalidRequest(f"{flags[0]!r} is no flag", hint="docker model configure MODEL -- --temp 0")
    body = configuration(model, context, flags, keep_alive=keep_alive, mode=mode, think=think)
    ask("POST", "/engines/_configure", body)
    return None


@app.command("status")
def status(as_json: Json = False) -> int:
    """Say whether the server runs, and where containers reach it."""
    from dockyard.cli._output import show_json
    from dockyard.errors import ServerUnreachable

    try:
        found = {"running": True, "backends": ask("GET", "/engines/status"), "kind": "Dockyard", **endpoints()}
    except ServerUnreachable as error:
        if not as_json:
            raise
        show_json({"running": False, "backends": {}, "kind": "Dockyard", "error": error.message})
        return 4
    if as_json:
        show_json(found)
        return 0
    print(f"Dockyard is running on {found['endpointHost']}")
    print(f"Containers reach it on {found['endpoint']}" if reachable(found["endpoint"]) else NOT_REACHABLE)
    for backend, state in found["backends"].items():
        print(f"{backend}: {state}")
    return 0


NOT_REACHABLE = (
    "Only containers on the host's network reach it: for others, `dockyard serve --host 0.0.0.0` with a key, and give "
    "them that key."
)


@app.command("ps")
def ps(as_json: Json = False) -> None:
    """List loaded models."""
    from dockyard.cli._output import show_json, show_table

    found = ask("GET", "/engines/ps")
    if as_json:
        return show_json(found)
    names = ("model_name", "backend_name", "mode", "last_used")
    return show_table(("model name", "backend", "mode", "last used"), [[one[name] for name in names] for one in found])


@app.command("unload")
def unload(
    models: Annotated[list[str] | None, typer.Argument(metavar="MODEL")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every model.")] = False,
    backend: Annotated[str, typer.Option(help="Only what this backend has loaded.")] = "",
) -> None:
    """Unload models that are idle."""
    body = {"all": everything, "backend": backend, "models": models or []}
    print(f"Unloaded {ask('POST', '/engines/unload', body)['unloaded_runners']} model(s).")


@app.command("requests")
def requests(model: Annotated[str | None, typer.Option(help="Only this model's.")] = None) -> None:
    """Show the last requests of each model."""
    from dockyard.cli._output import show_json

    show_json(ask("GET", "/engines/requests" + (f"?model={model}" if model else "")))


@app.command("version")
def version() -> None:
    """Show the versions."""
    from dockyard import __version__

    print(f"Dockyard {__version__}, as Docker Model Runner {COMPATIBLE}")


@compose.callback()
def _project(project_name: Annotated[str, typer.Option(help="Compose's project.")] = "") -> None:
    """Models belong to no project."""


@compose.command("up")
def up(
    service: Annotated[str, typer.Argument()] = "",  # noqa: ARG001 - Compose names the service that waits for it
    model: Annotated[list[str] | None, typer.Option("--model")] = None,
    context: Annotated[int | None, typer.Option("--context-size")] = None,
    flags: Annotated[str | None, typer.Option("--runtime-flags")] = None,
    backend: Annotated[str, typer.Option()] = "llama.cpp",
) -> int:
    """Pull and configure the models, and tell Compose where they are."""
    import shlex

    from dockyard.errors import DockyardError

    if not model:
        _tell("error", "options.model is required")
        return 1
    try:
        for name in model:
            fetched(name, lambda text: _tell("info", text))
            ask("POST", f"/engines/{backend}/_configure", configuration(name, context, shlex.split(flags or "")))
        endpoint = endpoints()["endpoint"]
    except DockyardError as error:
        _tell("error", f"{error.message} ({error.hint})" if error.hint else error.message)
        return 1
    _tell("setenv", f"URL={endpoint}")
    for name in model:
        _tell("setenv", f"MODEL={name}")
    return 0


@compose.command("down")
def down(
    service: Annotated[str, typer.Argument()] = "",
    model: Annotated[list[str] | None, typer.Option("--model")] = None,
) -> None:
    """Nothing to take down: a model that is not used is unloaded by itself."""


@compose.command("metadata")
def describe() -> None:
    """The options that a provider service may have."""
    options = [
        ("model", "The model to serve", True, "string"),
        ("context-size", "Tokens that a request may span", False, "integer"),
        ("runtime-flags", "Flags of llama-server", False, "string"),
        ("backend", "The backend that serves it", False, "string"),
    ]
    parameters = [{"name": n, "description": d, "required": r, "type": t} for n, d, r, t in options]
    told = {
        "description": "Dockyard's models",
        "up": {"parameters": parameters},
        "down": {"parameters": parameters[:1]},
    }
    print(json.dumps(told))


def _tell(kind: str, message: str) -> None:
    print(json.dumps({"type": kind, "message": message}), flush=True)


if __name__ == "__main__":
    main()
