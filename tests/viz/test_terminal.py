"""Entities in the terminal: colours only where wanted, control characters never."""

import io
import re
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.text import Entity
from minitl.viz import colour_entities, wants_colour


@dataclass(frozen=True)
class Span:
    text: str
    label: str
    start: int
    end: int


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


TEXT = "Angela Merkel visited Paris."
SPANS = [Span("Paris", "LOC", 22, 27), Span("Angela Merkel", "PER", 0, 13)]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "TERM"):
        monkeypatch.delenv(name, raising=False)


def without_colour(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_brackets() -> None:
    assert colour_entities(TEXT, SPANS, colour=False) == "[Angela Merkel PER] visited [Paris LOC]."
    words = ["Angela", "Merkel", "visited", "Paris", "."]
    found = colour_entities(words, [Entity("PER", 0, 2), Entity("", 3, 4)], colour=False)
    assert found == "[Angela Merkel PER] visited [Paris] ."


def test_colours() -> None:
    text = colour_entities(TEXT, SPANS, colour=True)
    assert without_colour(text) == " Angela Merkel PER  visited  Paris LOC ."
    assert text.count("\x1b[0m") == 2
    per, loc = re.findall(r"\x1b\[([0-9;]{3,})m", text)
    assert per != loc


@pytest.mark.parametrize(
    ("environment", "terminal", "expected"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, True, False),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "0"}, False, False),
        ({"CLICOLOR_FORCE": "1", "TERM": "dumb"}, False, True),
        ({"CLICOLOR_FORCE": "0"}, True, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
    ],
)
def test_when_colours_are_wanted(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], terminal: bool, expected: bool
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stream = Terminal() if terminal else io.StringIO()
    assert wants_colour(stream) is expected
    assert ("\x1b" in colour_entities(TEXT, SPANS, stream=stream)) is expected


@given(st.text(min_size=1), st.text(), st.booleans(), st.data())
def test_no_control_character_of_the_text_gets_through(
    text: str, label: str, colour: bool, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    span = Span(text[start:end], label, start, end)
    shown = without_colour(colour_entities(text, [span], colour=colour))
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]", shown)
    shown.encode("utf-8")


def test_escapes_and_what_shapes_emoji() -> None:
    words = ["\x1b[31mred", "a\tb", "\U0001f468\u200d\U0001f469", "\u200b", "\ud83d"]
    expected = "\\x1b[31mred a\\tb \U0001f468\u200d\U0001f469 \\u200b \\ud83d"
    assert colour_entities(words, [], colour=False) == expected


@pytest.mark.parametrize("spans", [[(0, 2), (1, 3)], [(1, 1)], [(2, 4)], [(-1, 1)]])
def test_impossible_spans(spans: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="overlaps the one before"):
        colour_entities("abc", [Entity("X", start, end) for start, end in spans], colour=False)
