"""A model card: Markdown with the metadata block that model hubs read, results in their ``model-index`` form."""

from __future__ import annotations

from typing import Any

import msgspec

from dockyard.ops.report.facts import Facts
from dockyard.ops.report.markdown import figures, table, text

CARD = "application/vnd.dockyard.card.v1+markdown"
"""artifactType of an attached card."""


def card(facts: Facts) -> str:
    """The page; the same facts give the same text."""
    parts = [
        f"---\n{msgspec.yaml.encode(_metadata(facts)).decode()}---",
        f"# {text(facts.title)}",
        text(facts.artifact.about.description) if facts.artifact.about.description else "",
        table(("what", "value"), _rows(facts)),
        _made(facts),
        _evaluated(facts),
        _limits(facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(facts: Facts) -> dict[str, Any]:
    found: dict[str, Any] = {"library_name": "dockyard", "tags": ["dockyard"]}
    if facts.licences:
        found["license"] = [each.casefold() for each in facts.licences]
        found["license"] = found["license"][0] if len(found["license"]) == 1 else found["license"]
    bases = [name for each in facts.ancestors if each.depth == 1 and each.role == "base" for name in each.names]
    if bases:
        found["base_model"] = bases
    results = [
        {
            "task": {"type": "text-generation"},
            "dataset": {"name": each.run.suite, "type": each.run.suite, "revision": each.run.data_digest},
            "metrics": [
                {"type": one.metric.name, "name": one.metric.name, "value": one.value}
                for one in each.run.aggregates
                if one.value is not None
            ],
        }
        for each in facts.reports
    ]
    if results:
        found["model-index"] = [{"name": facts.title, "results": [each for each in results if each["metrics"]]}]
    return found


def _rows(facts: Facts) -> list[tuple[str, object]]:
    about, spec = facts.artifact.about, facts.artifact.spec
    rows: list[tuple[str, object]] = [
        ("name", facts.name),
        ("digest", facts.digest),
        ("licence", ", ".join(facts.licences) or "not stated"),
        ("architecture", spec.architecture or "not stated"),
        ("parameters", spec.param_size or "not stated"),
        ("format", " ".join(part for part in (spec.format, spec.quantization or spec.precision) if part) or "-"),
        ("context in tokens", facts.artifact.context or "not stated"),
        ("bytes", facts.artifact.manifest.size),
    ]
    if about.authors or about.vendor:
        rows.append(("made by", ", ".join(about.authors) or about.vendor))
    if about.source_url:
        rows.append(("source", about.source_url))
    return rows


def _made(facts: Facts) -> str:
    lineage = facts.artifact.lineage
    if lineage is None or not (lineage.parents or lineage.operation):
        return "## How it was made\n\nThe artifact does not say what it was made from."
    rows = [(each.role, ", ".join(each.names) or "-", each.digest, each.operation or "-") for each in facts.ancestors]
    params = ", ".join(f"{name} {value}" for name, value in sorted(lineage.params.items()))
    told = f"By `{lineage.operation}` {lineage.version or ''}{f' with {text(params)}' if params else ''}, from:"
    return f"## How it was made\n\n{told}\n\n" + table(("role", "name", "digest", "made by"), rows)


def _evaluated(facts: Facts) -> str:
    if not facts.reports:
        return "## Evaluation\n\nNo evaluation is attached: nothing is known of how well it answers."
    parts = []
    for each in facts.reports:
        run = each.run
        parts.append(f"### {text(run.suite)}\n\n{figures(run.aggregates)}\n\nReport `{each.descriptor.digest}`.")
    return "## Evaluation\n\n" + "\n\n".join(parts)


def _limits(facts: Facts) -> str:
    told = [
        "The figures hold for the items, prompts and parameters of their suites; other uses have to be measured.",
        *(
            f"{text(each.run.suite)}: {each.run.errors} of {len(each.run.records)} items had no answer and are in no "
            "figure."
            for each in facts.reports
            if each.run.errors
        ),
        *(
            f"{text(each.run.suite)}: whether the model has seen these items was not checked."
            for each in facts.reports
            if not each.run.contamination.checked
        ),
    ]
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in told)
