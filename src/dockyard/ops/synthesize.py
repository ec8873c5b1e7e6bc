"""Synthetic data: instructions and answers that a model writes, and tables drawn from a learned distribution."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from dockyard.artifact.packing import pack_files
from dockyard.artifact.store import Entry
from dockyard.artifact.writers import Spec
from dockyard.errors import InvalidRequest
from dockyard.ops import Job, Params, Takes
from dockyard.ops.dataset.artifact import CARD, REPORT, Card, items_of, open_dataset
from dockyard.ops.dataset.records import Record, kind_of, text_of, write
from dockyard.ops.synthetic import table
from dockyard.ops.synthetic.endpoint import MakeApp, connected
from dockyard.ops.synthetic.report import Report, markdown
from dockyard.ops.synthetic.writing import Plan, write_records
from dockyard.ops.training.options import Count

Method = Literal["self-instruct", "evolve", "paraphrase", "documents", "answers", "table"]


class SynthesizeParams(Params, frozen=True):
    """What to write, and how much."""

    method: Annotated[
        Method,
        Meta(
            description="New tasks like the seeds, harder ones, other words for them, questions on documents, answers "
            "to prompts; or rows of a table."
        ),
    ] = "self-instruct"
    count: Annotated[Count, Meta(description="Records to make.")] = 100
    writer: Annotated[str, Meta(description="The model that writes, by the name it is served under.")] = "smollm2"
    endpoint: Annotated[
        str, Meta(description="URL of the server that serves it; a running Dockyard, or this process.")
    ] = ""
    temperature: Annotated[Annotated[float, Meta(ge=0)], Meta(description="How freely it writes.")] = 0.9
    tokens: Annotated[Count, Meta(description="Most tokens of one answer.")] = 256
    near: Annotated[
        Annotated[float, Meta(gt=0, le=1)], Meta(description="Records this similar to another one are left out.")
    ] = 0.7
    private: Annotated[Literal["drop", "redact"], Meta(description="Records with personal data.")] = "drop"
    attempts: Annotated[Count, Meta(description="Give up after so many attempts for each record wanted.")] = 6
    seed: Annotated[Annotated[int, Meta(ge=0)], Meta(description="Which seeds and rows are drawn.")] = 0


class Synthesize:
    """Make a data set: a model writes instructions and answers from SEEDS, or rows are drawn like those of a table.

    What repeats, what an evaluation has, and what holds personal data is left out, and a report that says how near the
    data came to the seeds is in the artifact. For tables it also says how alike the distributions are, and whether any
    row is nearer to a real one than real rows are to each other. What is finished is journaled: a run that is stopped
    goes on.
    """

    name = "synthesize"
    version = "1"
    params = SynthesizeParams
    takes = (
        Takes(role="seeds", kind="data", help="Examples, prompts, documents or a table.", required=True),
        Takes(role="evaluation", kind="data", help="Must not overlap with what is made; may be repeated.", many=True),
    )

    def __init__(self, make_app: MakeApp | None = None) -> None:
        self._make_app = make_app

    def run(self, job: Job, params: SynthesizeParams) -> Entry:
        seeds = open_dataset(job.store, job.artifact("seeds"))
        records = [record for part in seeds.parts.values() for record in part]
        held = [item for digest in job.artifacts("evaluation") for item in items_of(job.store, digest)]
        if params.method == "table":
            if seeds.card.kind != "table":
                raise InvalidRequest(
                    f"a table is drawn from a table, and the seeds are {seeds.card.kind} records", param="method"
                )
            made, report = table.draw(records, params.count, params.seed)
            return self._keep(job, made, report)
        plan = Plan(
            method=params.method,
            count=params.count,
            near=params.near,
            private=params.private,
            attempts=params.attempts,
            seed=params.seed,
        )
        with connected(params, self._make_app) as ask:
            made, report = write_records(job, ask, plan, seeds.card.kind, records, held)
        return self._keep(job, made, report)

    def _keep(self, job: Job, made: list[Record], report: Report) -> Entry:
        kind = kind_of(made[0]) if report.method != "table" else "table"
        assert kind is not None
        card = Card(
            kind=kind,
            records={"train": len(made)},
            removed=report.left_out,
            words=sum(len(text_of(record).split()) for record in made),
            how=f"synthetic: {report.method}",
        )
        folder = job.work / "made"
        folder.mkdir(exist_ok=True)
        write(folder / "train.jsonl", made)
        (folder / CARD).write_bytes(msgspec.json.format(msgspec.json.encode(card, order="sorted"), indent=2) + b"\n")
        (folder / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
        (folder / REPORT).write_text(markdown(report), encoding="utf-8")
        return pack_files(
            job.store,
            {path.name: path for path in sorted(folder.iterdir())},
            reference=job.reference,
            spec=Spec(format="jsonl"),
            lineage=job.lineage,
            annotations=job.annotations,
            check=False,
            on_progress=job.on_progress,
        )


PLUGIN = Synthesize()
