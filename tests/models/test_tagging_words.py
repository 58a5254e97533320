"""Every word has a tag, every span reproduces its characters, and several texts at once are as one by one."""

from __future__ import annotations

import os
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import WORDS, write_tiny_model

from minitl.models import BertForTokenClassification
from minitl.text import illegal_transitions
from minitl.text.decoding import AGGREGATIONS

TAGS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}
STEP = 1 if os.environ.get("MINITL_EVERY_CODE_POINT") else 997  # all of them are one of the long checks


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> BertForTokenClassification:
    folder = write_tiny_model(tmp_path_factory.mktemp("models") / "tiny", id2label=TAGS, initializer_range=2.0)
    return BertForTokenClassification.from_pretrained(folder)


def test_every_code_point_as_a_word_has_a_tag(model: BertForTokenClassification) -> None:
    points = [*range(0, sys.maxunicode + 1, STEP), 0, 0x200B, 0xD800, 0xDFFF, 0xFFFE, 0xFFFF, sys.maxunicode]
    for begin in range(0, len(points), 3000):
        sentences = [["anna", chr(point), f"in{chr(point)}oslo"] for point in points[begin : begin + 3000]]
        aggregation = AGGREGATIONS[begin // 3000 % 3] if STEP == 1 else "average"
        for words, tagged in zip(sentences, model.tag_words(sentences, aggregation=aggregation), strict=True):
            assert len(tagged.tags) == len(tagged.scores) == len(words)
            assert ((tagged.scores > 0) & (tagged.scores <= 1 + 1e-12)).all()  # roundings of a mean


@given(st.lists(st.text(st.characters(), max_size=40), max_size=5), st.booleans())
def test_spans_reproduce_their_characters(
    model: BertForTokenClassification, texts: list[str], constrained: bool
) -> None:
    texts = [f"{text} anna {text} oslo" for text in texts]
    found = model.tag_texts(texts, constrained=constrained)
    assert len(found) == len(texts)
    for text, spans in zip(texts, found, strict=True):
        assert all(text[span.start : span.end] == span.text for span in spans)
        assert all(one.end <= other.start for one, other in pairwise(spans))


def test_many_are_as_one_by_one(model: BertForTokenClassification) -> None:
    texts = [" ".join(np.random.default_rng(number).choice(WORDS, number)) for number in range(30)]
    together = model.tag_texts(texts)
    assert sum(map(len, together)) > 20
    for text, spans in zip(texts, together, strict=True):
        alone = model.tag(text)
        assert [(span.start, span.end, span.label) for span in spans] == [(s.start, s.end, s.label) for s in alone]


def test_constrained_tags_are_legal(model: BertForTokenClassification) -> None:
    words = list(np.random.default_rng(0).choice(WORDS, 400))
    free, legal = model.tag_words([words]), model.tag_words([words], constrained=True)
    assert illegal_transitions(free[0].tags, "IOB2") != []
    assert illegal_transitions(legal[0].tags, "IOB2") == []


def test_words_and_texts_are_not_confused(model: BertForTokenClassification) -> None:
    assert model.tag_words([[], ["anna"], []])[0].tags == []
    assert model.tag_words([]) == []
    for wrong in ("anna lives", ["anna lives"], [["anna", 7]]):
        with pytest.raises(TypeError, match="words"):
            model.tag_words(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="aggregation must be one of"):
        model.tag_words([["anna"]], aggregation="last")  # type: ignore[arg-type]


def test_others_may_use_the_model_between_batches_or_end_the_work(model: BertForTokenClassification) -> None:
    text = " ".join(np.random.default_rng(1).choice(WORDS, 3000))
    alone = model.tag(text)
    calls = []

    def between_batches() -> None:
        calls.append(model.tag("anna lives in oslo"))

    assert model.tag_texts([text], between_batches=between_batches) == [alone]
    assert len(calls) > 3
    assert calls == [model.tag("anna lives in oslo")] * len(calls)

    def enough() -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        model.tag_words([["anna"]], between_batches=enough)
