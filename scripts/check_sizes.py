"""Fail where a module or a function of the package outgrew its limit, or a marker says that work is left."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src"
MODULE_LINES = 400
FUNCTION_LINES = 60
LEFT_OPEN = re.compile(r"\b(TODO|FIXME|XXX)\b")


def complaints(path: Path) -> Iterator[str]:
    """What is too long or left open in one module, as ``path:line: what``."""
    text = path.read_text()
    lines = text.splitlines()
    name = path.relative_to(SOURCE.parent)
    if len(lines) > MODULE_LINES:
        yield f"{name}:{len(lines)}: module of {len(lines)} lines (at most {MODULE_LINES})"
    for number, line in enumerate(lines, 1):
        if LEFT_OPEN.search(line):
            yield f"{name}:{number}: left open: {line.strip()}"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            length = node.end_lineno - node.lineno + 1
            if length > FUNCTION_LINES:
                yield f"{name}:{node.lineno}: {node.name} has {length} lines (at most {FUNCTION_LINES})"


def main() -> int:
    found = [line for path in sorted(SOURCE.rglob("*.py")) for line in complaints(path)]
    print("\n".join(found) or "sizes: all within their limits")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
