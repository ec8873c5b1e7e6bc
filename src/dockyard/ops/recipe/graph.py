"""A recipe as a graph, in Mermaid's words: what goes into which step, and what the plan says of each."""

from __future__ import annotations

from collections.abc import Sequence

from dockyard.ops.recipe import Opened
from dockyard.ops.recipe.run import Planned
from dockyard.ops.recipe.steps import tasks


def mermaid(opened: Opened, planned: Sequence[Planned] = ()) -> str:
    """``graph LR`` from base and data through the steps to the published name."""
    recipe = opened.recipe
    states = {each.step: each.state for each in planned}
    lines = ["graph LR", f'  base(["{recipe.base}"])']
    lines += [f'  d_{_id(name)}[("{name}")]' for name in recipe.data]
    before, labels = "base", {name: f"d_{_id(name)}" for name in recipe.data}
    for task in tasks(opened):
        node = f"s{task.number}"
        state = states.get(task.title)
        lines.append(f'  {node}["{task.operation.name}{f"<br/>{state}" if state else ""}"]')
        lines.append(f"  {before} --> {node}")
        for role, words in task.given.items():
            for at, word in enumerate(words):
                other = labels.get(word, f"{node}_{_id(role)}{at}")
                if word not in labels:
                    lines.append(f'  {other}(["{word}"])')
                lines.append(f"  {other} -- {role} --> {node}")
        if task.label:
            labels[task.label] = node
        before = node
    if recipe.evaluate:
        lines += [f'  e{{{{"{", ".join(recipe.evaluate)}"}}}}', f"  {before} --> e", "  base --> e"]
        before = "e"
    if recipe.gate is not None:
        lines += ['  g{"gate"}', f"  {before} --> g"]
        before = "g"
    if recipe.publish is not None:
        passed = "-- pass " if recipe.gate is not None else ""
        lines += [f'  p(["{recipe.publish}"])', f"  {before} {passed}--> p"]
    return "\n".join(lines) + "\n"


def _id(name: str) -> str:
    return "".join(each if each.isalnum() else "_" for each in name)
