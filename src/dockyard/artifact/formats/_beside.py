"""Small files beside the weights: JSON settings, chat templates and licences, read within bounds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from dockyard.errors import ArtifactError, UnsafeContent, UnsupportedFormat
from dockyard.types import Json

MAX_JSON = 32 << 20
MAX_TEXT = 1 << 20

_LICENCES = (
    ("Apache-2.0", re.compile(r"Apache License\s+Version 2\.0", re.IGNORECASE)),
    ("MIT", re.compile(r"\bMIT License\b|Permission is hereby granted, free of charge", re.IGNORECASE)),
    ("BSD-3-Clause", re.compile(r"Redistribution and use in source and binary forms.*Neither the name", re.DOTALL)),
    ("BSD-2-Clause", re.compile(r"Redistribution and use in source and binary forms")),
    ("MPL-2.0", re.compile(r"Mozilla Public License,? Version 2\.0", re.IGNORECASE)),
    ("AGPL-3.0", re.compile(r"GNU AFFERO GENERAL PUBLIC LICENSE", re.IGNORECASE)),
    ("GPL-3.0", re.compile(r"GNU GENERAL PUBLIC LICENSE\s+Version 3", re.IGNORECASE)),
    ("CC-BY-4.0", re.compile(r"Creative Commons Attribution 4\.0", re.IGNORECASE)),
    ("Gemma", re.compile(r"Gemma Terms of Use", re.IGNORECASE)),
    ("Llama", re.compile(r"LLAMA [\d.]+ COMMUNITY LICENSE", re.IGNORECASE)),
)
_SPDX = {name.lower(): name for name, _ in _LICENCES} | {
    name.lower(): name for name in ("LGPL-3.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC0-1.0", "OpenRAIL")
}


def find(name: str, weights: Sequence[Path], files: Sequence[Path]) -> Path | None:
    """The file of this name in the weights' folder, else the first so named among ``files``."""
    near = [weights[0].parent / name] if weights else []
    for path in (*near, *(path for path in files if path.name == name)):
        if path.is_file():
            return path
    return None


def read_object(path: Path | None) -> dict[str, Json]:
    """A JSON object of at most 32 MB; empty for None. Raises UnsupportedFormat that names the file."""
    if path is None:
        return {}
    if path.stat().st_size > MAX_JSON:
        raise UnsupportedFormat(f"{path}: {path.stat().st_size} bytes of settings", hint=f"at most {MAX_JSON} are read")
    return decode_object(path.read_bytes(), str(path))


def decode_object(data: bytes, where: str) -> dict[str, Json]:
    """A JSON object out of bytes; ``where`` names them in the error."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UnsupportedFormat(f"{where}: not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise UnsupportedFormat(f"{where}: expected a JSON object")
    return found


def read_text(path: Path | None) -> str | None:
    """At most 1 MB of text; None for None."""
    if path is None:
        return None
    with path.open("rb") as file:
        return file.read(MAX_TEXT).decode("utf-8", "replace")


def chat_template(weights: Sequence[Path], files: Sequence[Path]) -> str | None:
    """The template beside the weights: ``chat_template.jinja``, else what ``tokenizer_config.json`` says."""
    for name in ("chat_template.jinja", "template.jinja"):
        if text := read_text(find(name, weights, files)):
            return text
    for name in ("chat_template.json", "tokenizer_config.json"):
        found = read_object(find(name, weights, files)).get("chat_template")
        if isinstance(found, list):
            named = {item.get("name"): item.get("template") for item in found if isinstance(item, dict)}
            found = named.get("default") or next(iter(named.values()), None)
        if isinstance(found, str):
            return found
    return None


def licence(weights: Sequence[Path], files: Sequence[Path]) -> str | None:
    """SPDX name of the licence: from the model card's front matter, else recognised in a licence file's text."""
    if card := read_text(find("README.md", weights, files)):
        front = re.match(r"---\s*\n(.*?)\n---", card, re.DOTALL)
        if front and (line := re.search(r"^license:\s*[\"']?([\w.+-]+)", front[1], re.MULTILINE)):
            return spdx(line[1])
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "LICENCE.txt", "LICENCE.md", "COPYING"):
        if text := read_text(find(name, weights, files)):
            return recognise(text)
    return None


def recognise(text: str) -> str | None:
    """SPDX name of a licence by its text, or None."""
    return next((name for name, pattern in _LICENCES if pattern.search(text)), None)


def spdx(name: str) -> str:
    """The usual spelling of a licence's name; an unknown one comes back as it is."""
    return _SPDX.get(name.lower(), name)


def contained(folder: Path, name: str, where: Path) -> Path:
    """``folder/name`` for a name that another file states. Raises UnsafeContent where it would leave the folder."""
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or "\\" in name or "\0" in name:
        raise UnsafeContent(f"{where}: names the file {name!r}, outside its folder", param=name)
    return folder / name


def require(path: Path, where: Path) -> Path:
    """``path``, which ``where`` says belongs to the model. Raises ArtifactError where it is missing."""
    if not path.is_file():
        raise ArtifactError(f"{where}: needs {path.name}, which is not beside it", param=str(path))
    return path
