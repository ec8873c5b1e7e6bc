"""Indexes that a stack file declares are made before it is served, and follow what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("lancedb", reason="the extra `knowledge` is not installed")

from dockyard import stack as stacks
from dockyard.cli import call
from dockyard.cli._declared import refresh
from dockyard.errors import InvalidRequest
from dockyard.knowledge.bases import Base, Bases
from dockyard.settings import Settings

STACK = """
models: {vectors: echo}
knowledge:
  rules: {index: harbour, sources: [docs], embedding: vectors, rerank: none%s}
  other: {index: elsewhere}
routes:
  desk: {model: vectors, knowledge: rules}
"""


class Project:
    """A folder with a stack file and documents, and a home."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings(home=str(folder / "home"), stack=str(folder), log_level="error")
        (folder / "docs").mkdir()
        (folder / "docs" / "bylaws.md").write_text("# Bylaws\n\nBoats pay 45 crowns.\n")

    def serve(self, more: str = "", text: str = STACK) -> None:
        (self.folder / "dockyard.yaml").write_text(text % more)
        refresh(stacks.of(self.settings), self.settings)

    def base(self) -> Base:
        return Bases(self.settings.home_path).get("harbour")

    def documents(self) -> list[str]:
        with self.base().ledger() as ledger:
            return [one.path for one in ledger.documents()]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


Told = Callable[[], str]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    return lambda: capsys.readouterr().err


def test_an_index_is_made_and_follows_its_sources(project: Project, told: Told) -> None:
    project.serve()
    assert told().startswith("knowledge rules: 1 added, 0 changed, 0 removed")
    assert project.base().recipe().embedder == "echo"
    (project.folder / "docs" / "new.txt").write_text("The ferry leaves at noon.")
    project.serve()
    assert "1 added, 0 changed, 0 removed, 1 unchanged" in told()
    (project.folder / "more").mkdir()
    (project.folder / "more" / "x.md").write_text("# X\n\nMore.\n")
    project.serve(text=STACK.replace("[docs]", "[more]"))
    assert project.documents() == ["x.md"]
    with pytest.raises(FileNotFoundError):
        (project.folder / "home" / "knowledge" / "elsewhere").stat()


def test_what_the_file_changes_is_made_again(project: Project, told: Told) -> None:
    project.serve()
    project.serve(", options: {chunker: fixed, size: 200}")
    cut = project.base().recipe().cut
    assert (cut.chunker, cut.size) == ("fixed", 200)
    told()
    project.serve(", options: {chunker: fixed, size: 200}")
    assert "0 embedded" in told()
    project.serve(", options: {readers: [mira]}")
    with project.base().ledger() as ledger:
        assert [one.readers for one in ledger.sources()] == [("mira",)]
        assert [one.readers for one in ledger.documents()] == [("mira",)]


def test_an_index_that_cannot_be_brought_up_to_date_is_served_as_it_was(project: Project, told: Told) -> None:
    project.serve()
    told()
    with project.base().writing():
        project.serve()
    assert "knowledge rules is served as it was: knowledge base 'harbour' is being changed" in told()
    assert project.documents() == ["bylaws.md"]


def test_one_that_was_never_made_and_cannot_be_is_an_error(project: Project) -> None:
    with pytest.raises(InvalidRequest, match=r"knowledge\.rules\.sources: 'nowhere' is no source"):
        project.serve(text=STACK.replace("[docs]", "[nowhere]"))


def test_check_says_what_is_wrong(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (project.folder / "dockyard.yaml").write_text(STACK % ", options: {chunks: 3}")
    assert call(["stack", "check", str(project.folder), "--json"]) == 1
    (line,) = json.loads(capsys.readouterr().out)["problems"]
    assert line.startswith("knowledge.rules: knowledge.rules.options:")
    assert "chunker" in line
