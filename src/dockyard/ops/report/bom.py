"""A bill of materials of a model, CycloneDX 1.6 with a modelCard (ECMA-424): what it is, holds, comes from, and scores.

Written as JSON here, since the libraries that write CycloneDX know no model cards.
"""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from dockyard import __version__
from dockyard.artifact.lineage import Ancestor
from dockyard.ops.evaluate.result import Aggregate
from dockyard.ops.report import moment
from dockyard.ops.report.facts import SPDX, Facts
from dockyard.ops.report.markdown import number

BOM = "application/vnd.cyclonedx+json"
"""artifactType and media type of an attached bill."""
_SPACE = uuid.UUID("6f1a7c1e-4a7b-5b1e-9c57-3f3a1d9b6d10")
"""Under which serial numbers are made of digests, so that the same model's bill has the same one."""


def bom(facts: Facts) -> bytes:
    """The document; the same facts give the same bytes."""
    when = max((each.run.began + each.run.seconds for each in facts.reports), default=None)
    reports = "".join(each.descriptor.digest for each in facts.reports)
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_SPACE, facts.digest + reports)}",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "dockyard", "version": __version__}]},
            "component": _model(facts),
        },
        "components": [*_files(facts), *_data(facts)],
        "dependencies": [{"ref": facts.digest, "dependsOn": [each["bom-ref"] for each in _files(facts)]}],
    }
    if when is not None:
        document["metadata"]["timestamp"] = moment(when)
    return msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=1) + b"\n"


def _model(facts: Facts) -> dict[str, Any]:
    about = facts.artifact.about
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": facts.digest,
        "name": facts.title,
        "version": about.version or facts.digest[:19],
        "hashes": [_hash(facts.digest)],
        "properties": [{"name": "io.dockyard.reference", "value": facts.name}],
        "modelCard": _card(facts),
    }
    if about.description:
        found["description"] = about.description
    if about.authors:
        found["authors"] = [{"name": each} for each in about.authors]
    if facts.licences:
        found["licenses"] = [{"license": _licence(each)} for each in facts.licences]
    if about.source_url:
        found["externalReferences"] = [{"type": "distribution", "url": about.source_url}]
    models = [each for each in facts.ancestors if each.role != "dataset"]
    if models:
        found["pedigree"] = {"ancestors": [_ancestor(each) for each in models]}
    return found


def _card(facts: Facts) -> dict[str, Any]:
    spec, lineage = facts.artifact.spec, facts.artifact.lineage
    inputs = spec.capabilities.get("inputTypes") or ["text"]
    outputs = spec.capabilities.get("outputTypes") or ["text"]
    parameters: dict[str, Any] = {
        "task": "text-generation" if "text" in outputs else str(outputs[0]),
        "inputs": [{"format": str(each)} for each in inputs],
        "outputs": [{"format": str(each)} for each in outputs],
    }
    if spec.architecture:
        parameters |= {"architectureFamily": "transformer", "modelArchitecture": spec.architecture}
    data = _data(facts)
    if data:
        parameters["datasets"] = [{"ref": each["bom-ref"]} for each in data]
    said = {
        "param_size": spec.param_size,
        "quantization": spec.quantization,
        "format": spec.format,
        "operation": lineage.operation if lineage else None,
    }
    return {
        "modelParameters": parameters,
        "quantitativeAnalysis": {
            "performanceMetrics": [
                _metric(each.run.suite, one) for each in facts.reports for one in each.run.aggregates
                if one.value is not None
            ]
        },
        "considerations": {"technicalLimitations": _limits(facts)},
        "properties": [{"name": f"io.dockyard.{name}", "value": value} for name, value in said.items() if value],
    }  # fmt: skip


def _metric(suite: str, each: Aggregate) -> dict[str, Any]:
    found: dict[str, Any] = {"type": each.metric.name, "value": repr(each.value), "slice": f"{suite}, n={each.n}"}
    if each.interval is not None:
        found["confidenceInterval"] = {"lowerBound": repr(each.interval.low), "upperBound": repr(each.interval.high)}
    return found


def _limits(facts: Facts) -> list[str]:
    if not facts.reports:
        return ["no evaluation is attached"]
    return [_limit(each.run.suite, one) for each in facts.reports for one in each.run.aggregates]


def _limit(suite: str, each: Aggregate) -> str:
    told = [f"could not be computed for {each.errors} of {each.n + each.errors} items"] if each.errors else []
    if each.detectable is None:
        told.append("what difference could be told is not known")
    else:
        told.append(f"differences below {number(each.detectable)} can't be told apart")
    return f"{suite}: {each.metric.name}: {'; '.join(told)}"


def _files(facts: Facts) -> list[dict[str, Any]]:
    found = {}
    for each in facts.artifact.layers:
        ref = f"{each.path}@{each.descriptor.digest}"
        found[ref] = {
            "type": "data" if each.role == "dataset" else "file",
            "bom-ref": ref,
            "name": each.path,
            "hashes": [_hash(each.descriptor.digest)],
        }
    return list(found.values())


def _data(facts: Facts) -> list[dict[str, Any]]:
    return [_ancestor(each) | {"type": "data"} for each in facts.ancestors if each.role == "dataset"]


def _ancestor(each: Ancestor) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": each.digest,
        "name": each.names[0] if each.names else each.digest,
        "hashes": [_hash(each.digest)],
    }


def _hash(digest: str) -> dict[str, str]:
    kind, _, text = digest.partition(":")
    return {"alg": {"sha256": "SHA-256", "sha512": "SHA-512"}[kind], "content": text}


def _licence(name: str) -> dict[str, str]:
    return {"id": name} if name in SPDX.values() else {"name": name}
