"""The embedded corpus keeps its promises: size, types, scheme, unseen entities, no sentence twice."""

from collections import Counter
from collections.abc import Iterable

import pytest

from minitl.text import Dataset, Sentence, illegal_transitions, load_corpus, tags_to_spans

Surface = tuple[str, str]


@pytest.fixture(scope="module")
def corpus() -> Dataset:
    return load_corpus()


def surfaces(sentences: Iterable[Sentence]) -> Counter[Surface]:
    """How often each entity occurs, as (words, type)."""
    return Counter(
        (" ".join(sentence.words[entity.start : entity.end]), entity.type)
        for sentence in sentences
        for entity in tags_to_spans(sentence.tags or (), "IOB2")
    )


def test_every_tag_is_legal_iob2(corpus: Dataset) -> None:
    assert corpus.scheme == "IOB2"
    for sentence in corpus.train + corpus.dev + corpus.test:
        assert illegal_transitions(sentence.tags or (), "IOB2") == [], sentence.place()


def test_size_and_types(corpus: Dataset) -> None:
    assert len(corpus.train + corpus.dev + corpus.test) >= 600
    for part in (corpus.train, corpus.dev, corpus.test):
        assert {kind for _, kind in surfaces(part)} == {"PER", "ORG", "LOC", "MISC"}
    assert set(corpus.labels) == {
        "O",
        *(f"{prefix}-{kind}" for prefix in "BI" for kind in ("PER", "ORG", "LOC", "MISC")),
    }


def test_enough_sentences_without_an_entity(corpus: Dataset) -> None:
    sentences = corpus.train + corpus.dev + corpus.test
    empty = sum(set(sentence.tags or ()) == {"O"} for sentence in sentences)
    assert empty >= 0.08 * len(sentences)


def test_half_of_the_test_entities_are_new(corpus: Dataset) -> None:
    seen, tested = set(surfaces(corpus.train)), set(surfaces(corpus.test))
    assert len(tested - seen) >= 0.5 * len(tested)


def test_no_sentence_is_in_two_parts(corpus: Dataset) -> None:
    train, dev, test = ({part_of.words for part_of in part} for part in (corpus.train, corpus.dev, corpus.test))
    assert not train & dev
    assert not train & test
    assert not dev & test
