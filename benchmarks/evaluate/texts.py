"""BLEU, chrF, TER and ROUGE of a run against sacrebleu and rouge-score on the same answers: equal to the last digit."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks._bars import Row
from benchmarks.evaluate._material import in_process, questions, write_lines

SUITE = {
    "name": "texts",
    "data": "data.jsonl",
    "prompt": "Say this again: {question}",
    "reference": "{right}",
    "parameters": {"max_tokens": 40, "temperature": 0},
    "scorers": ["bleu", "chrf", {"ter": {}}, {"rouge": {"stem": True}}],
}
ITEMS = 200


def rows() -> Iterator[Row]:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU, CHRF, TER

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        asked = questions(ITEMS)
        write_lines(folder / "data.jsonl", [{**each, "right": f"{each['question']} again"} for each in asked])
        (folder / "suite.yaml").write_text(json.dumps(SUITE))
        run = in_process(folder / "home", folder / "suite.yaml", "echo")
    said = [record.answer.text if record.answer is not None else "" for record in run.records]
    right = [record.references[0] for record in run.records]
    theirs: dict[str, float] = {}
    for name, metric in (("bleu", BLEU()), ("chrf", CHRF()), ("ter", TER())):
        theirs[name] = metric.corpus_score(said, [right]).score
        signature = run.aggregate(name).metric.signature
        yield Row(f"{name}: signature", signature, "sacrebleu's", signature == str(metric.get_signature()))
    kinds = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    scorer = RougeScorer(kinds, use_stemmer=True)
    pairs = [scorer.score(one, two) for one, two in zip(right, said, strict=True)]
    theirs |= {kind: sum(each[kind].fmeasure for each in pairs) / len(pairs) for kind in kinds}
    for name, value in theirs.items():
        ours = run.aggregate(name).value
        yield Row(name, f"{ours!r} beside {value!r}", "equal", ours == value)
