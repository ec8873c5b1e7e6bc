"""What a question asks apart from names, and how far a sentence has words for it."""

from __future__ import annotations

import struct

import pytest

from dockyard.knowledge.asked import asked_words, content, cover, unit, unnamed, without_names, without_names_of


@pytest.mark.parametrize(
    ("question", "kept"),
    [
        ("How deep is the well of the Barick brewery?", "How deep is the well of the brewery?"),
        ("Who runs the shop in New Torane?", "Who runs the shop in?"),
        ("What does it cost?", "What does it cost?"),
        ("Barick: what is the fee?", "Barick: what is the fee?"),
        ("Welche Gebühr zahlt Mira Oldane im Hafen Barick?", "Welche Gebühr zahlt Mira Oldane im Hafen Barick?"),
        ("", ""),
    ],
)
def test_a_question_without_its_names(question: str, kept: str) -> None:
    assert without_names(question) == kept


def test_without_names_no_preposition_is_left_over() -> None:
    assert unnamed("When must engines be off in Barick?") == "When must engines be off?"
    assert unnamed("Who runs the shop in New Torane") == "Who runs the shop"
    assert unnamed("What is the quay of the Barick harbour made of?") == "What is the quay of the harbour made of?"
    assert unnamed("What is it made of?") == "What is it made of?"
    assert unnamed("Which berth in Barick is kept free?") == "Which berth is kept free?"
    assert unnamed("Whom do I see in New Torane if it rains?") == "Whom do I see if it rains?"
    assert unnamed("In Barick, when must engines be off?") == "when must engines be off?"
    assert unnamed("How deep is the water of Barick harbour?") == "How deep is the water of harbour?"


@pytest.mark.parametrize(
    ("sentence", "kept"),
    [
        ("The crane of Nordholm lifts 4,200 kilograms.", "The crane lifts 4,200 kilograms."),
        ("Nordholm's crane is run by Teo Brandt.", "crane is run by Teo Brandt."),
        ("In Nordholm, the crane stands still on Sundays.", "the crane stands still on Sundays."),
        ("Nordholm.", "Nordholm."),
    ],
)
def test_a_sentence_without_the_names_of_the_question(sentence: str, kept: str) -> None:
    assert without_names_of("What can the crane of Nordholm lift?", sentence) == kept
    assert without_names_of("What can the crane lift?", sentence) == sentence


def test_words_that_a_sentence_has_to_answer_to() -> None:
    assert asked_words("How deep is the well of the Barick brewery?", "The brewery of Barick") == ["deep", "well"]
    assert asked_words("What about the brewery?", "The brewery of Barick") == ["brewery"]
    assert asked_words("", "anything") == []
    assert content("The well, the WELL and a well go 40 metres down.") == ["well", "WELL", "go", "40", "metres", "down"]


def test_each_word_asked_for_finds_the_nearest() -> None:
    def vector(*numbers: float) -> tuple[float, ...]:
        return unit(struct.pack(f"<{len(numbers)}f", *numbers))

    east, north, between = vector(2, 0), vector(0, 5), vector(1, 1)
    assert cover([east, north], [east, between]) == pytest.approx((1 + 0.5**0.5) / 2)
    assert cover([east], [north]) == pytest.approx(0)
    assert cover([], [east]) == cover([east], []) == 0.0
    assert unit(struct.pack("<2f", 0, 0)) == (0.0, 0.0)
