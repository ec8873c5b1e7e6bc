"""The chat template that an artifact brings along, for engines that take one as text."""

from __future__ import annotations

from pathlib import Path

from dockyard.errors import LoadFailed
from dockyard.types import ModelFiles


def own_template(files: ModelFiles) -> str | None:
    """The artifact's own chat template, given as text or as a file's path; None leaves it to the model's.

    Raises LoadFailed.
    """
    template = files.chat_template
    if template is None or "\n" in template or "{" in template or not Path(template).is_absolute():
        return template
    try:
        return Path(template).read_text(encoding="utf-8")
    except OSError as error:
        raise LoadFailed(f"the chat template of {files.reference} can't be read: {error}") from error
