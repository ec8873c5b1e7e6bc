"""Recipes: a model changed step by step, judged, and named only if it passes.

    name: house-style
    base: smollm2
    data:
      talks: {from: talks.jsonl, validation: 0.1, private: redact}
    steps:
      - tune: {data: talks, method: lora, steps: 60}
      - merge: {}
      - quantize: {to: gguf-q8_0}
    evaluate: [style.yaml]
    gate: gate.yaml
    publish: house-style:approved

A step is an operation with its parameters; a parameter that is one of the operation's inputs (``data``, ``teacher``,
``adapter`` …) names a data set of the recipe, another step's ``as``, a model, or a file beside the recipe. The model
that a step starts from is what the step before made; after a step that made an adapter, the adapter and its base.

Each step is content-addressed: what was made before is found, and a recipe that was stopped goes on where it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from dockyard.artifact.digest import of_bytes
from dockyard.errors import InvalidRequest, NotFound
from dockyard.ops._yaml import decoded
from dockyard.ops.gate import Gate
from dockyard.types import Json

SHIPPED = Path(__file__).parent / "shipped"

Step = dict[str, Json]


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a recipe says. ``gate`` is a file's path, or the rules; ``publish`` the name that a pass gives."""

    name: Annotated[str, Meta(pattern="^[a-z0-9]+([._-][a-z0-9]+)*$", max_length=60)]
    base: str
    steps: Annotated[tuple[Step, ...], Meta(min_length=1)]
    description: str = ""
    data: dict[str, dict[str, Json]] = {}
    evaluate: tuple[str, ...] = ()
    gate: str | Gate | None = None
    publish: str | None = None

    def __post_init__(self) -> None:
        if self.gate is not None and not self.evaluate:
            raise ValueError("a gate needs evaluations to decide by: name suites in `evaluate`")


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe with the folder that its files are named from, and its digest."""

    recipe: Recipe
    folder: Path
    digest: str


def read(name: str | Path) -> Opened:
    """The recipe in a YAML file, or the shipped one of this name. Raises NotFound, and InvalidRequest that names the
    place of what is wrong."""
    path = Path(name)
    if not path.is_file() and (SHIPPED / f"{name}.yaml").is_file():
        return _decoded(SHIPPED / f"{name}.yaml", Path.cwd())
    return _decoded(path, path.parent)


def shipped() -> dict[str, Recipe]:
    """The recipes that come along, by name."""
    return {path.stem: _decoded(path, path.parent).recipe for path in sorted(SHIPPED.glob("*.yaml"))}


def changed(opened: Opened, *, base: str | None = None, name: str | None = None, data: dict[str, str]) -> Opened:
    """The recipe with another base, another name, or other files for its data. Raises InvalidRequest for data that the
    recipe does not have."""
    recipe = opened.recipe
    sets = dict(recipe.data)
    for key, path in data.items():
        if key not in sets:
            raise InvalidRequest(
                f"the recipe has no data {key!r}", param="data", hint=f"it has {', '.join(sets) or 'none'}"
            )
        sets[key] = {**sets[key], "from": str(Path(path).absolute()) if Path(path).is_file() else path}
    recipe = msgspec.structs.replace(recipe, base=base or recipe.base, name=name or recipe.name, data=sets)
    return msgspec.structs.replace(opened, recipe=recipe)


def _decoded(path: Path, folder: Path) -> Opened:
    try:
        data = path.read_bytes()
        return Opened(recipe=decoded(data, Recipe), folder=folder, digest=of_bytes(data))
    except (FileNotFoundError, IsADirectoryError):
        known = ", ".join(each.stem for each in sorted(SHIPPED.glob("*.yaml")))
        raise NotFound(
            f"there is no recipe in {path}", param=str(path), hint=f"a YAML file, or one that comes along: {known}"
        ) from None
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise InvalidRequest(f"{path}: {error}", param=str(path), hint="see docs/concepts/fine-tuning.md") from error
