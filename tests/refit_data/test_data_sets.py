"""Data sets: what is read, what is refused and where, what is left out; the same files give the same digest."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from dockyard.artifact.store import Store
from dockyard.cli import call
from dockyard.errors import Conflict, InvalidRequest, NotFound
from dockyard.ops.data import DataParams, create
from dockyard.ops.dataset import near, overlap, private
from dockyard.ops.dataset.artifact import open_dataset
from dockyard.ops.dataset.records import Kind, read

WORDS = [f"word{number}" for number in range(400)]


@pytest.fixture
def shelf(tmp_path: Path) -> Store:
    return Store(tmp_path / "home" / "store")


def write(path: Path, *records: object) -> Path:
    path.write_text("".join(f"{record if isinstance(record, str) else json.dumps(record)}\n" for record in records))
    return path


def pairs(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"What is {number} and one?", "completion": f"It is {number + 1}."} for number in range(count)]


SAMPLES: dict[Kind, dict[str, object]] = {
    "messages": {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    "completion": {"prompt": "a", "completion": "b"},
    "text": {"text": "some words"},
    "preference": {"prompt": "a", "chosen": "b", "rejected": "c"},
    "unpaired": {"prompt": "a", "completion": "b", "label": True},
    "prompts": {"prompt": "a", "answer": "b"},
    "table": {"age": 3, "town": "Bern"},
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_each_kind_is_known_by_its_columns(kind: Kind, tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.jsonl", SAMPLES[kind])) == (kind, [SAMPLES[kind]])


def test_formats_say_the_same(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    records = pairs(3)
    jsonl = write(tmp_path / "a.jsonl", *records)
    table = tmp_path / "a.csv"
    table.write_text("prompt,completion\n" + "".join(f'"{r["prompt"]}","{r["completion"]}"\n' for r in records))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "a.parquet")
    assert read(jsonl) == read(table) == read(tmp_path / "a.parquet") == ("completion", records)


def test_other_tools_columns_are_read(tmp_path: Path) -> None:
    alpaca = write(tmp_path / "a.jsonl", {"instruction": "Add", "input": "1 2", "output": "3"})
    assert read(alpaca) == ("completion", [{"prompt": "Add\n\n1 2", "completion": "3"}])
    shared = write(
        tmp_path / "b.jsonl", {"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]}
    )
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    assert read(shared) == ("messages", [{"messages": turns}])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"prompt": "a", "completion":', "not JSON"),
        ("[1]", "JSON object"),
        ({"prompt": "a"}, "completion"),
        ({"prompt": "a", "completion": " "}, "empty"),
        ({"prompt": "a", "completion": 3}, "text or a list"),
        ({"prompt": [{"role": "robot", "content": "x"}], "completion": "b"}, "role"),
    ],
)
def test_a_wrong_line_is_named_with_its_file(line: object, reason: str, shelf: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *pairs(2), "", line)
    with pytest.raises(InvalidRequest, match=reason) as caught:
        create(shelf, [path])
    assert f"{path}:4: " in caught.value.message
    assert shelf.entries(everything=True) == []


@pytest.mark.parametrize(
    ("kind", "record", "reason"),
    [
        ("messages", {"messages": [{"role": "user", "content": "x"}]}, "assistant"),
        ("messages", {"messages": []}, "list of messages"),
        ("preference", {"prompt": "a", "chosen": "b", "rejected": "b"}, "the same"),
        ("unpaired", {"prompt": "a", "completion": "b", "label": "yes"}, "true or false"),
        ("table", {"a": [1], "b": 2}, "more than one value"),
    ],
)
def test_each_kind_has_its_rules(kind: Kind, record: dict[str, object], reason: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        read(write(tmp_path / "a.jsonl", record), kind)


def test_broken_tables_are_named_with_their_line(tmp_path: Path) -> None:
    ragged = tmp_path / "a.csv"
    ragged.write_text("prompt,completion\na,b\nc\n")
    with pytest.raises(InvalidRequest, match=r"a\.csv:3: 1 cells"):
        read(ragged)
    ragged.write_bytes(b"prompt,completion\n\xff,b\n")
    with pytest.raises(InvalidRequest, match="UTF-8"):
        read(ragged)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(InvalidRequest, match="Parquet"):
        read(tmp_path / "a.parquet")
    with pytest.raises(InvalidRequest, match="no record"):
        read(write(tmp_path / "empty.jsonl"))
    with pytest.raises(NotFound):
        read(tmp_path / "none.jsonl")


def test_the_same_files_are_the_same_data_set(shelf: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *pairs(20), pairs(1)[0])
    params = DataParams(validation=0.2, test=0.1)
    first = create(shelf, [path], params, reference=shelf.named("a"))
    again = create(Store(tmp_path / "other" / "store"), [path], params)
    assert first.entry.descriptor.digest == again.entry.descriptor.digest
    found = open_dataset(shelf, "a")
    assert found.card.records == {"validation": 4, "test": 2, "train": 14}
    assert found.card.removed == {"repeated": 1}
    other = create(shelf, [path], DataParams(validation=0.2, test=0.1, seed=1))
    assert other.entry.descriptor.digest != first.entry.descriptor.digest
    more = create(shelf, ["a"], reference=shelf.named("b"))
    assert open_dataset(shelf, more.entry.descriptor.digest).card.records == {"train": 20}


def test_one_prompt_is_on_one_side(shelf: Store, tmp_path: Path) -> None:
    records = [{"prompt": f"Q{number % 10}", "completion": f"A{number}"} for number in range(100)]
    create(shelf, [write(tmp_path / "a.jsonl", *records)], DataParams(test=0.3), reference=shelf.named("a"))
    parts = open_dataset(shelf, "a").parts
    sides = [{record["prompt"] for record in parts[part]} for part in ("train", "test")]
    assert not sides[0] & sides[1]
    assert len(parts["test"]) == 30


def test_an_empty_part_is_refused(shelf: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *pairs(3))
    with pytest.raises(InvalidRequest, match="'test' would be empty"):
        create(shelf, [path], DataParams(test=0.1))
    with pytest.raises(InvalidRequest, match="'train' would be empty"):
        create(shelf, [write(tmp_path / "b.jsonl", *pairs(1))], DataParams(test=0.9))


def test_near_duplicates_are_found_and_others_are_not() -> None:
    draw = random.Random(1)
    base = [" ".join(draw.choices(WORDS, k=60)) for _ in range(200)]
    changed = [text.replace(text.split()[30], "changed", 1) for text in base[:50]]
    records = [{"text": text} for text in [*base, *changed]]
    found = near.near(records, 0.7)
    assert {(place, other) for place, other, _ in found} == {(200 + at, at) for at in range(50)}
    assert near.exact([{"text": "One, two."}, {"text": "one two"}, {"text": "three"}]) == [1]


def test_overlap_is_thirteen_words_or_all_of_a_short_item() -> None:
    item = " ".join(WORDS[:20])
    assert overlap.overlap([f"x {' '.join(WORDS[4:17])} y"], [[item]]) == [(0, 0)]
    assert overlap.overlap([f"x {' '.join(WORDS[4:16])} y"], [[item]]) == []
    asked = ["what is the capital of France", "It is Paris, as far as is known."]
    assert overlap.overlap(["say: What is the capital of France, please?"], [asked]) == [(0, 0)]
    assert overlap.overlap(["a yes b it is Paris as far"], [["yes"], asked]) == []


def test_an_evaluation_that_overlaps_is_refused_or_left_out(shelf: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *pairs(6))
    held = write(tmp_path / "held.jsonl", {"question": "What is 3 and one?", "answer": "It is 4."})
    with pytest.raises(Conflict, match=r"1 of 6 records .* record 4"):
        create(shelf, [path], against=[held])
    create(shelf, [path], DataParams(overlapping="drop"), against=[held], reference=shelf.named("a"))
    assert open_dataset(shelf, "a").card.removed == {"in an evaluation": 1}
    create(shelf, [held], DataParams(kind="table"), reference=shelf.named("held"))
    with pytest.raises(Conflict):
        create(shelf, [path], against=["held"])


PRIVATE = {
    "email": "write to jane.doe+x@example.co.uk now",
    "card": "card 4111 1111 1111 1111 ok",
    "iban": "IBAN DE89 3704 0044 0532 0130 00 ok",
    "ssn": "his number is 078-05-1120.",
    "ip": "from 203.0.113.7 came",
    "phone": "call +41 44 668 18 00 today",
    "key": "key ghp_abcdefghijklmnopqrstuvwxyz0123456789 ok",
}


@pytest.mark.parametrize("sort", PRIVATE)
def test_personal_data_is_found_and_taken_out(sort: str) -> None:
    assert [finding.sort for finding in private.find(PRIVATE[sort])] == [sort]
    assert f"[{sort.upper()}]" in private.redact(PRIVATE[sort])
    assert private.find(private.redact(PRIVATE[sort])) == []


def test_figures_are_not_personal_data() -> None:
    for text in (
        "In 2026-11-29 it was 3.14159265358979 and 1234567890123456.",
        "version 1.2.3.4.5, 10:30, item 4111111111111112",
        "pi 3.14159 26535 89793 and 12345 67890",
        "127.0.0.1 is the loopback; 2024-2025; 1,000,000",
    ):
        assert private.find(text) == []


@pytest.mark.parametrize(("how", "left"), [("report", 6), ("redact", 6), ("drop", 5)])
def test_personal_data_is_dealt_with_as_asked(how: str, left: int, shelf: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *pairs(5), {"prompt": "Who?", "completion": "a@b.org"})
    create(shelf, [path], DataParams(private=how), reference=shelf.named("a"))  # type: ignore[arg-type]
    found = open_dataset(shelf, "a")
    assert len(found.parts["train"]) == left
    assert found.card.private == {"email": 1}
    assert ("a@b.org" in str(found.parts)) is (how == "report")
    with pytest.raises(InvalidRequest, match="1 records hold personal data: 1 email"):
        create(shelf, [path], DataParams(private="refuse"))


def test_the_verbs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write(tmp_path / "a.jsonl", *pairs(10), pairs(1)[0], {"prompt": "Who?", "completion": "a@b.org"}))
    assert call(["data", "create", path, "qa", "--test", "0.2", "--private", "redact", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["records"] == {"test": 2, "train": 9}
    assert call(["data", "show", "qa", "-n", "1"]) == 0
    assert '{"prompt":' in capsys.readouterr().out
    assert call(["data", "export", "qa", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    assert len((tmp_path / "out" / "train.jsonl").read_text().splitlines()) == 9
    assert call(["data", "check", path]) == 1
    out = capsys.readouterr().out
    assert "record 11: repeats an earlier one" in out
    assert "record 12: holds personal data: email" in out
    assert call(["data", "check", "qa", "--against", str(tmp_path / "out" / "test.jsonl"), "--json"]) == 1
    assert "item 1 of the evaluation" in str(json.loads(capsys.readouterr().out)["findings"])
    other = str(write(tmp_path / "b.jsonl", SAMPLES["table"]))
    for mixed in ([other, "qa"], ["qa", "--kind", "table"]):
        assert call(["data", "check", *mixed]) == 2
        assert "qa holds completion, not table" in capsys.readouterr().err
    write(Path(path), "{")
    assert call(["data", "create", path, "qa"]) == 2
    assert f"{path}:1: not JSON" in capsys.readouterr().err
    assert call(["data", "create", path, "qa", "--kind", "poem"]) == 2
    assert call(["data", "show", "nothing"]) == 3


def test_a_folder_is_no_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("notes", str(tmp_path / "notes")):
        assert call(["synthesize", name, "--method", "documents"]) == 2
        told = capsys.readouterr().err
        assert f"error: {name} is a folder, not a data set\nhint: give a file of JSONL, CSV or Parquet" in told


def test_what_is_made_says_how_like_its_seeds_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(1)
    rows = [{"berth": draw.randint(1, 9), "length": draw.gauss(80, 20)} for _ in range(60)]
    ships = write(tmp_path / "ships.jsonl", *rows)
    assert call(["synthesize", str(ships), "more-ships", "--method", "table", "--count", "20"]) == 0
    assert call(["data", "create", str(ships), "ships"]) == 0
    capsys.readouterr()
    assert call(["data", "show", "more-ships", "--report"]) == 0
    told = capsys.readouterr().out
    assert "20 records from 60 seeds" in told
    assert "| closer_than_real |" in told
    assert call(["data", "show", "ships", "--report"]) == 2
    assert "ships has no report" in capsys.readouterr().err


def test_rows_that_differ_in_a_number_are_no_repeats(tmp_path: Path, shelf: Store) -> None:
    rows = [
        {"berth": 1, "flag": "CH"},
        {"berth": 2, "flag": "CH"},
        {"berth": 1, "flag": "CH"},
        {"berth": 1, "flag": "DK"},
    ]
    signs = [{"east": "5", "north": "1.5"}, {"east": "-5", "north": "1.5"}, {"east": "5", "north": "15"}]
    for given, kept in ((rows, [rows[0], rows[1], rows[3]]), (signs, signs)):
        made = open_dataset(shelf, create(shelf, [write(tmp_path / "a.jsonl", *given)]).entry.descriptor.digest)
        assert made.parts["train"] == kept
