"""Schemes: conversion keeps entities, detection finds the scheme, illegal tags are listed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.errors import DataError
from minitl.text.schemes import (
    SCHEMES,
    Entity,
    IllegalTransition,
    Scheme,
    convert,
    detect_scheme,
    illegal_transitions,
    lenient_spans,
    nearest_scheme,
    spans_to_tags,
    split_tag,
    tags_to_spans,
)

TYPES = ["PER", "SUB-ORG", "creative-work", "", "-"]
schemes = st.sampled_from(SCHEMES)


@st.composite
def sentences(draw: st.DrawFn) -> tuple[list[Entity], int]:
    """Entities that do not overlap, often touching, and the length of their sentence."""
    entities = []
    position = 0
    for _ in range(draw(st.integers(0, 6))):
        start = position + draw(st.integers(0, 2))
        position = start + draw(st.integers(1, 4))
        entities.append(Entity(draw(st.sampled_from(TYPES)), start, position))
    return entities, position + draw(st.integers(0, 2))


random_tags = st.lists(
    st.sampled_from(["O", *(f"{p}{t}" for p in "BIESLU" for t in ("", "-PER", "-X-Y"))]), max_size=12
)


@given(sentences(), schemes, schemes)
def test_conversion_there_and_back_keeps_tags_and_entities(
    sentence: tuple[list[Entity], int], source: Scheme, target: Scheme
) -> None:
    entities, length = sentence
    tags = spans_to_tags(entities, length, source)
    converted = convert(tags, source, target)
    assert tags_to_spans(converted, target) == entities
    assert convert(converted, target, source) == tags
    assert illegal_transitions(converted, target) == []


@given(sentences(), schemes)
def test_lenient_reading_agrees_on_legal_tags(sentence: tuple[list[Entity], int], scheme: Scheme) -> None:
    entities, length = sentence
    assert lenient_spans(spans_to_tags(entities, length, scheme)) == entities


@given(st.lists(sentences(), min_size=1, max_size=4), schemes)
def test_detection_finds_the_scheme_of_anything_with_an_entity(
    found: list[tuple[list[Entity], int]], scheme: Scheme
) -> None:
    tags = [spans_to_tags(entities, length, scheme) for entities, length in found]
    has_entity = any(entities for entities, _ in found)
    assert detect_scheme(tags) == (scheme if has_entity else "IOB2")


@given(random_tags)
def test_lenient_reading_covers_every_tagged_word_once(tags: list[str]) -> None:
    covered = [word for entity in lenient_spans(tags) for word in range(entity.start, entity.end)]
    assert covered == [word for word, tag in enumerate(tags) if tag != "O"]
    for entity in lenient_spans(tags):
        assert all(split_tag(tag)[1] == entity.type for tag in tags[entity.start : entity.end])


@given(random_tags, schemes)
def test_legal_means_written_back_unchanged(tags: list[str], scheme: Scheme) -> None:
    """The transition table and the writer are independent accounts of a scheme: they must agree on every sequence."""
    written_back = spans_to_tags(lenient_spans(tags), len(tags), scheme) == tags
    assert (illegal_transitions(tags, scheme) == []) == written_back


@pytest.mark.parametrize(
    ("tags", "scheme", "expected"),
    [
        (["O", "I-PER"], "IOB2", [IllegalTransition(1, "O", "I-PER")]),
        (["B-PER", "I-LOC"], "IOB2", [IllegalTransition(1, "B-PER", "I-LOC")]),
        (["B-PER"], "IOB1", [IllegalTransition(0, "O", "B-PER")]),
        (["B-PER"], "BIOES", [IllegalTransition(1, "B-PER", "O")]),
        (["E-PER", "S-PER"], "BIOES", [IllegalTransition(0, "O", "E-PER")]),
        (["S-PER"], "IOB2", [IllegalTransition(0, "O", "S-PER")]),
        (["B-PER", "E-PER"], "BILOU", [IllegalTransition(1, "B-PER", "E-PER")]),
    ],
)
def test_illegal_transitions(tags: list[str], scheme: Scheme, expected: list[IllegalTransition]) -> None:
    assert illegal_transitions(tags, scheme)[0:1] == expected


def test_single_type_tags() -> None:
    assert detect_scheme([["B", "I", "O"]]) == "IOB2"
    assert tags_to_spans(["B", "I", "O", "B"], "IOB2") == [Entity("", 0, 2), Entity("", 3, 4)]


def test_detection_refuses_a_mixture_and_names_the_place() -> None:
    tags = [["O"], ["B-PER", "O", "I-PER"]]
    with pytest.raises(DataError, match=r"sentence 1, word 2: 'I-PER' may not follow 'O'"):
        detect_scheme(tags)
    assert nearest_scheme(tags).illegal_count == 1
    with pytest.raises(DataError, match="none of"):
        detect_scheme([["S-PER"], ["U-PER"]])


@pytest.mark.parametrize("tag", ["", "X-PER", "B-", "o", "B_PER", "PER", "O-PER", " B-PER"])
def test_what_is_no_tag(tag: str) -> None:
    with pytest.raises(ValueError, match="expected a tag"):
        split_tag(tag)


@pytest.mark.parametrize("entities", [[Entity("A", 0, 2), Entity("A", 1, 3)], [Entity("A", 1, 1)], [Entity("A", 3, 5)]])
def test_entities_that_cannot_be_written(entities: list[Entity]) -> None:
    with pytest.raises(ValueError, match="overlaps"):
        spans_to_tags(entities, 4)


def test_strict_reading_refuses_illegal_tags_and_unknown_schemes() -> None:
    with pytest.raises(ValueError, match="word 0"):
        tags_to_spans(["I-PER"], "IOB2")
    with pytest.raises(ValueError, match="scheme must be one of"):
        illegal_transitions(["O"], "IOB3")  # type: ignore[arg-type]
