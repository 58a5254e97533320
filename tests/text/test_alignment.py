"""Labels on word pieces."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.errors import DataError
from minitl.text import EncodingReport, LabelSet, Sentence, TextTokenizer, encode_sentence, encode_sentences

LABELS = LabelSet(("O", "B-X", "I-X"))
words = st.lists(st.sampled_from(["angela", "Merkel", "abc", "\u200b", "x" * 101, "東京", "☃", "-"]), max_size=12)


def test_the_first_piece_carries_the_label(tokenizer: TextTokenizer) -> None:
    sentence = ["angela", "merkel", "visited", "x9"]
    tags = ["B-X", "I-X", "O", "B-X"]
    first = encode_sentence(sentence, tags, tokenizer, LABELS.ids)
    assert first.labels is not None
    assert first.labels.tolist() == [1, 2, -100, 0, 1, -100]
    assert first.piece_words.tolist() == [0, 1, 1, 2, 3, 3]
    assert first.sizes.tolist() == [1, 2, 1, 2]
    every = encode_sentence(sentence, tags, tokenizer, LABELS.ids, pieces="all")
    assert every.labels is not None
    assert every.labels.tolist() == [1, 2, 2, 0, 1, 1]


@given(words, st.data())
def test_each_word_with_a_piece_has_one_label(
    tokenizer: TextTokenizer, sentence: list[str], data: st.DataObject
) -> None:
    tags = [data.draw(st.sampled_from(LABELS.names)) for _ in sentence]
    aligned = encode_sentence(sentence, tags, tokenizer, LABELS.ids)
    assert aligned.labels is not None
    scored = aligned.labels != -100
    assert aligned.piece_words[scored].tolist() == np.flatnonzero(aligned.sizes).tolist()
    assert [LABELS[number] for number in aligned.labels[scored]] == [
        tag for tag, size in zip(tags, aligned.sizes, strict=True) if size
    ]
    pieces = tokenizer.encode_words(sentence)
    assert aligned.input_ids.tolist() == [number for word in pieces for number in word]


def test_no_tags_no_labels(tokenizer: TextTokenizer) -> None:
    assert encode_sentence(["angela"], None, tokenizer, {}).labels is None
    empty = encode_sentence([], [], tokenizer, {})
    assert len(empty.input_ids) == len(empty.piece_words) == empty.word_count == 0


def test_unknown_tags_are_named_with_their_line(tokenizer: TextTokenizer) -> None:
    sentence = Sentence(("a", "b"), ("O", "B-Z"), source="data/train", line=7)
    with pytest.raises(DataError, match=r"data/train:8: the tag 'B-Z' is none of the labels the model knows: O, B-X"):
        encode_sentences([sentence], tokenizer, LABELS.ids)
    with pytest.raises(ValueError, match="pieces must be"):
        encode_sentence(["a"], ["O"], tokenizer, LABELS.ids, pieces="last")  # type: ignore[arg-type]


def test_labels() -> None:
    labels = LabelSet.from_sentences([Sentence(("a", "b"), ("I-B", "B-A")), Sentence(("c",))])
    assert labels.names == ("O", "B-A", "I-B")
    assert LabelSet.from_id2label(labels.id2label) == labels
    assert [labels[labels.ids[name]] for name in labels] == list(labels.names)
    assert len(labels) == 3
    with pytest.raises(ValueError, match="number its labels 0 to 1"):
        LabelSet.from_id2label({1: "O", 2: "B"})
    with pytest.raises(ValueError, match="must differ"):
        LabelSet(("O", "O"))


def test_reports_add_up_and_mention_what_happened() -> None:
    report = EncodingReport(sentences=2, words=9, pieces=12, windows=2)
    assert str(report) == "2 sentences, 9 words, 12 word pieces in 2 windows"
    total = report + EncodingReport(sentences=1, vanished_words=3, unknown_words=2, overlong_words=1)
    assert total == EncodingReport(3, 9, 12, 2, vanished_words=3, unknown_words=2, overlong_words=1)
    assert "3 words vanish in tokenisation, tagged O; 2 words hold [UNK]; 1 of these" in str(total)
