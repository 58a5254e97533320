"""Places of entities in texts, and the words they are made of."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.text.schemes import Entity
from minitl.text.spans import CharacterSpan, Misaligned, locate_words, words_of_spans
from minitl.text.words import Word, split_words

TEXT = "Anglo-American plc, in London\u00a0today"


def found(*spans: tuple[int, int, str], misaligned: Misaligned = "error") -> list[tuple[str, str]]:
    """Type and words of the entities at places in TEXT."""
    words, entities = words_of_spans(
        TEXT, split_words(TEXT), [CharacterSpan(*one) for one in spans], misaligned=misaligned
    )
    assert all(TEXT[word.start : word.end] == word.text for word in words)
    return [(one.type, " ".join(word.text for word in words[one.start : one.end])) for one in entities]


def test_spans_in_any_order_with_white_space_at_their_ends() -> None:
    assert found((22, 30, "LOC"), (0, 19, "ORG")) == [("ORG", "Anglo-American plc ,"), ("LOC", "London")]


def test_an_entity_within_a_word() -> None:
    with pytest.raises(ValueError, match=re.escape("found 'Anglo' (ORG, characters 0 to 5) in 'Anglo-American'")):
        found((0, 5, "ORG"))
    assert found((0, 5, "ORG"), misaligned="widen") == [("ORG", "Anglo-American")]
    assert found((0, 5, "ORG"), (6, 14, "MISC"), misaligned="split") == [("ORG", "Anglo"), ("MISC", "American")]
    assert found((6, 17, "ORG"), misaligned="split") == [("ORG", "American pl")]
    with pytest.raises(ValueError, match="one entity in each word, found several in 'Anglo-American'"):
        found((0, 5, "ORG"), (6, 14, "MISC"), misaligned="widen")


@pytest.mark.parametrize("span", [(-1, 5), (3, 3), (5, 3), (30, 99)])
def test_a_place_outside_the_text(span: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"within the 35 characters of the text, found {span[0]} to {span[1]}"):
        found((*span, "LOC"))


def test_white_space_is_no_entity() -> None:
    with pytest.raises(ValueError, match="expected an entity, found white space: characters 29 to 30"):
        found((29, 30, "LOC"))


@pytest.mark.parametrize("misaligned", ["error", "widen", "split"])
def test_entities_that_overlap(misaligned: Misaligned) -> None:
    with pytest.raises(
        ValueError, match=r"do not overlap, found 'plc' \(ORG, .*\) within or across 'Anglo-American plc'"
    ):
        found((0, 18, "ORG"), (15, 18, "ORG"), misaligned=misaligned)


def test_words_are_located_in_their_text() -> None:
    assert locate_words(" a \u00a0 b\u00a0c", ["a", "b\u00a0c"]) == [Word("a", 1, 2), Word("b\u00a0c", 5, 8)]
    assert locate_words("", []) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["Paris"], "expected the word 'Paris' at character 0, found 'a b'"),
        (["a", "c"], "expected the word 'c' at character 2, found 'b'"),
        (["a"], "expected the end of the words at character 1, found ' b'"),
        (["a", "b", "c"], "expected the word 'c' at character 3, found the end of the text"),
        (["a", ""], "expected the word '' at character 1"),
    ],
)
def test_words_of_another_text(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        locate_words("a b", words)


@given(st.text(), st.data())
def test_what_is_between_words_is_never_lost(text: str, data: st.DataObject) -> None:
    """Entities at any places of any text come back as the same characters when words are split."""
    edges = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    spans = [CharacterSpan(a, b, "X") for a, b in zip(edges[::2], edges[1::2], strict=False) if text[a:b].strip()]
    words, entities = words_of_spans(text, split_words(text), spans, misaligned="split")
    assert locate_words(text, [word.text for word in words]) == words
    surfaces = [text[words[one.start].start : words[one.end - 1].end] for one in entities]
    assert surfaces == [text[one.start : one.end].strip() for one in spans]
    assert all(isinstance(one, Entity) and one.type == "X" for one in entities)
