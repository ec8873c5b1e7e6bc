"""``python -m benchmarks.knowledge [group …]``; see ``make bars NAME=knowledge``."""

from __future__ import annotations

import sys

from benchmarks._bars import main
from benchmarks.knowledge import answerable, answers, indexing, killed, million, retrieval

GROUPS = {
    "indexing": indexing.rows,
    "million": million.rows,
    "banking": retrieval.banking_rows,
    "pages": retrieval.pages_rows,
    "ways": retrieval.further_rows,
    "chunkers": retrieval.chunker_rows,
    "killed": killed.rows,
    "answerable": answerable.rows,
    "judging": answerable.judging_rows,
    "answers": answers.rows,
    "judged": answers.judged_rows,
}

if __name__ == "__main__":
    sys.exit(main(GROUPS))
