"""Text that an operation looks at: calibration for quantising and pruning, given as a file or made by the model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dockyard.errors import InvalidRequest
from dockyard.ops import Job
from dockyard.ops._checkpoint import Checkpoint
from dockyard.ops._libraries import library, threads

OPENINGS = ("The", "In", "When", "How", "A", "I", "To", "def", "What", "1.", "We", "Once", "For", "It", "My", "Yes")
"""First words of generated text; the model goes on from each."""


TOGETHER = 16
"""Runs that are generated side by side."""


def calibration(job: Job, checkpoint: Checkpoint, *, samples: int, tokens: int, seed: int) -> list[list[int]]:
    """``samples`` runs of ``tokens`` token ids: of the file in the role "calibration", or generated where none is
    given. The same file or seed gives the same ids. Raises InvalidRequest for a file that has too little text."""
    path = job.file("calibration")
    if path is not None:
        (name,) = [each for each in job.inputs.files if each.startswith("calibration/")]
        return cut(read_texts(path, name), checkpoint.tokenizer, samples=samples, tokens=tokens)
    job.note("no calibration text was given: the model writes its own")
    return generate(job, checkpoint, samples=samples, tokens=tokens, seed=seed)


def read_texts(path: Path, name: str) -> list[str]:
    """The texts of a ``.txt``, ``.md`` or ``.jsonl`` file; a line of JSON has "text", "messages", or prompt and
    completion. Raises InvalidRequest with the number of a line that is no such thing."""
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the calibration text is not UTF-8: {error}", param="calibration") from error
    if not name.endswith((".jsonl", ".json")):
        return [content]
    found = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(_text_of(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidRequest(
                f"calibration text, line {number}: no text: {error}",
                param="calibration",
                hint='a line is {"text": …}, {"messages": […]} or {"prompt": …, "completion": …}',
            ) from error
    return found


def cut(texts: Sequence[str], tokenizer: Any, *, samples: int, tokens: int) -> list[list[int]]:
    """Runs of ids from the texts, joined; spread over all of them where there is more than needed."""
    ids = [number for text in texts for number in tokenizer(text, add_special_tokens=False).input_ids]
    count = len(ids) // tokens
    if count < 1:
        raise InvalidRequest(
            f"the calibration text has {len(ids)} tokens, and one sample takes {tokens}", param="calibration"
        )
    taken = [place * count // min(samples, count) for place in range(min(samples, count))]
    return [ids[place * tokens : (place + 1) * tokens] for place in taken]


def generate(job: Job, checkpoint: Checkpoint, *, samples: int, tokens: int, seed: int) -> list[list[int]]:
    """Text that the model writes from common first words, drawn at temperature 1; several runs at a time."""
    torch = library("torch")
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    torch.manual_seed(seed)
    firsts = [tokenizer(word, add_special_tokens=False).input_ids[0] for word in OPENINGS]
    found: list[list[int]] = []
    while len(found) < samples:
        count = min(TOGETHER, samples - len(found))
        start = torch.tensor([[firsts[(len(found) + place) % len(firsts)]] for place in range(count)])
        with torch.inference_mode(), threads(model):
            made = model.generate(
                input_ids=start,
                attention_mask=torch.ones_like(start),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                min_new_tokens=tokens - 1,
                max_new_tokens=tokens - 1,
                pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id or 0,
            )
        found += [[int(each) for each in row] for row in made]
        job.step("calibration text", len(found), samples)
    return found


def perplexity(model: Any, runs: Sequence[Sequence[int]]) -> float:
    """Exponential of the mean negative log-likelihood of each run's tokens after its first."""
    import math

    torch = library("torch")
    total, count = 0.0, 0
    with torch.inference_mode(), threads(model):
        for run in runs:
            ids = torch.tensor([list(run)])
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
            loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
            total, count = total + float(loss), count + len(run) - 1
    return math.exp(total / max(1, count))


def _text_of(row: Any) -> str:
    if isinstance(row, str):
        return row
    if isinstance(row.get("text"), str):
        return str(row["text"])
    if isinstance(row.get("messages"), list):
        return "\n".join(str(turn["content"]) for turn in row["messages"])
    return f"{row['prompt']}{row['completion']}"
