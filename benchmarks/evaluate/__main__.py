"""``python -m benchmarks.evaluate [group …]``; see ``make bars NAME=evaluate``."""

from __future__ import annotations

import sys

from benchmarks._bars import main
from benchmarks.evaluate import arena, code, harness, judge, load, proof, resume, significance, texts

GROUPS = {
    "texts": texts.rows,
    "harness": harness.rows,
    "significance": significance.rows,
    "code": code.rows,
    "resume": resume.rows,
    "load": load.rows,
    "arena": arena.rows,
    "judge": judge.rows,
    "proof": proof.rows,
}

if __name__ == "__main__":
    sys.exit(main(GROUPS))
