"""Verbs that keep prompts: the library in this home's store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dockyard.cli._options import AsJson

if TYPE_CHECKING:
    from dockyard.prompt.library import Library
    from dockyard.settings import Settings

Name = Annotated[str, typer.Argument(metavar="NAME", help="A prompt's name, with `:version` or `:tag` if need be.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="A further tag; may be repeated.")]


def library(settings: Settings | None = None) -> Library:
    """The prompts of this home and of the stack file that the settings name."""
    from dockyard import stack
    from dockyard.cli._connect import open_store, read_settings
    from dockyard.prompt.library import Library

    settings = settings or read_settings()
    return Library(open_store(settings), stack.of(settings))


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the prompt is called.")],
    file: Annotated[str, typer.Argument(metavar="FILE", help="The prompt, YAML or JSON; `-`: standard input.")],
    tags: Tags = None,
    as_json: AsJson = False,
) -> None:
    """Keep FILE as the next version of NAME, which becomes the current one."""
    from dockyard.cli._output import show_json

    made = library().create(name, read_text(file), tags=tuple(tags or ()))
    if as_json:
        return show_json({"name": made.name, "version": made.version, "digest": made.digest})
    print(f"{made.name}:{made.version} {made.digest}")
    return None


def ls(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Only this prompt, all versions.")] = None,
    as_json: AsJson = False,
) -> None:
    """List prompts with their current versions, or the versions of NAME."""
    import msgspec

    from dockyard.cli._output import ago, show_json, show_table

    prompts = library()
    if name is not None:
        versions = prompts.versions(name)
        if as_json:
            return show_json([msgspec.to_builtins(each) for each in versions])
        rows = [(each.version, ", ".join(each.tags), ago(each.created or None), each.digest) for each in versions]
        return show_table(("version", "tags", "created", "digest"), rows)
    from dockyard.errors import DockyardError

    found: list[dict[str, object]] = []
    for each in prompts.names():
        try:
            one = prompts.find(each)
            row = {"name": each, "version": one.version, "description": one.prompt.description, "digest": one.digest}
        except DockyardError as error:
            row = {"name": each, "version": "-", "description": f"broken: {error.message}", "digest": ""}
        found.append(dict(row))
    if as_json:
        return show_json(found)
    rows_ = [(row["name"], row["version"], row["description"]) for row in found]
    return show_table(("name", "version", "description"), rows_)


def show(name: Name, as_json: AsJson = False) -> None:
    """Print a prompt as it was written; with --json what it says."""
    import msgspec

    from dockyard.cli._output import show_json

    found = library().find(name)
    if as_json:
        about = {"name": found.name, "version": found.version, "digest": found.digest}
        return show_json({**about, "prompt": msgspec.to_builtins(found.prompt)})
    print(found.text.rstrip("\n"))
    return None


def diff(
    one: Name,
    other: Annotated[str | None, typer.Argument(metavar="OTHER", help="Another; else the version before.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what changed from OTHER to NAME line by line; without OTHER, from the version before."""
    from dockyard.cli._output import show_json
    from dockyard.errors import Conflict

    prompts = library()
    if other is None:
        found = prompts.find(one)
        versions = prompts.versions(one)
        place = next(n for n, each in enumerate(versions) if each.digest == found.digest)
        if place == 0:
            raise Conflict(f"{found.name}:{found.version} is the first version", hint="name what to compare it with")
        other = f"{one.partition(':')[0]}:{versions[place - 1].version}"
    text = prompts.diff(other, one)
    if as_json:
        return show_json({"from": other, "to": one, "diff": text})
    print(text or "no difference")
    return None


def tag(
    name: Name, word: Annotated[str, typer.Argument(metavar="TAG", help="The tag.")], as_json: AsJson = False
) -> None:
    """Give the version NAME the further tag TAG; a tag that another version has moves."""
    from dockyard.cli._output import show_json

    found = library().tag(name, word)
    if as_json:
        return show_json({"name": found.name, "version": found.version, "tag": word})
    print(f"{found.name}:{word} is {found.version}")
    return None


def rollback(
    name: Name,
    to: Annotated[str, typer.Option("--to", metavar="VERSION", help="To this version; else the one before.")] = "",
    word: Annotated[str, typer.Option("--tag", metavar="TAG", help="The tag to move.")] = "latest",
    as_json: AsJson = False,
) -> None:
    """Make an earlier version the current one. The next request already gets it; no version is lost."""
    from dockyard.cli._output import show_json

    was, now = library().rollback(name, to, tag=word)
    if as_json:
        return show_json({"name": name, "tag": word, "was": was.version, "now": now.version})
    print(f"{name}:{word} was {was.version}, and is {now.version}")
    return None


def push(
    name: Name,
    to: Annotated[str, typer.Argument(metavar="REFERENCE", help="Where to, as host/path[:tag].")],
    as_json: AsJson = False,
) -> None:
    """Send a version of a prompt to a registry."""
    from dockyard.artifact.transfer import push as send
    from dockyard.cli._connect import open_store, read_settings
    from dockyard.cli._output import show_json
    from dockyard.cli._progress import progress

    settings = read_settings()
    found = library(settings).find(name)
    with progress(quiet=as_json) as show_progress:
        sent = send(open_store(settings), found.digest, settings, to=to, on_progress=show_progress)
    if as_json:
        return show_json({"reference": to, "digest": sent.digest, "size": sent.size})
    print(f"{to} {sent.digest}")
    return None


def pull(
    reference: Annotated[str, typer.Argument(metavar="REFERENCE", help="Where from, as host/path[:tag].")],
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="What it is called here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a prompt from a registry; it becomes the next version of NAME, or of the last part of its path."""
    from dockyard.artifact.transfer import pull as fetch
    from dockyard.cli._connect import open_store, read_settings
    from dockyard.cli._output import show_json
    from dockyard.cli._progress import progress

    settings = read_settings()
    store = open_store(settings)
    with progress(quiet=as_json) as show_progress:
        entry = fetch(store, reference, settings, on_progress=show_progress)
    prompts = library(settings)
    text = prompts.text(entry.descriptor.digest)
    path = entry.reference.repository if entry.reference is not None else reference
    made = prompts.create(name or path.rpartition("/")[2], text)
    if as_json:
        return show_json({"name": made.name, "version": made.version, "digest": made.digest})
    print(f"{made.name}:{made.version} {made.digest}")
    return None


def rm(name: Name, as_json: AsJson = False) -> None:
    """Remove the prompt NAME with all its versions, or with `:version` that one."""
    from dockyard.cli._output import show_json

    gone = library().remove(name)
    if as_json:
        return show_json({"removed": gone})
    for each in gone:
        print(f"removed {each}")
    return None


def read_text(file: str) -> str:
    """A file's text, or standard input. Raises NotFound, and InvalidRequest for what is no text."""
    from dockyard.errors import InvalidRequest, NotFound

    if file == "-":
        return sys.stdin.read()
    try:
        return Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest(f"{file}: this is no text", param="file") from None
    except OSError as error:
        raise NotFound(f"{file}: {error.strerror or error}", param="file") from None
