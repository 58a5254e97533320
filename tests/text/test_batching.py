"""From sentences to batches and back: nothing lost, nothing twice, the same order everywhere."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.errors import DataError
from minitl.text import (
    Batch,
    EncodedDataset,
    LabelSet,
    PackedBatch,
    Sentence,
    TextTokenizer,
    batch_count,
    batches,
    decode,
    encode_dataset,
    excluded_entities,
    predict_tags,
    word_logits,
)
from minitl.text.batching import TOKENS_AT_ONCE

LABELS = LabelSet(("O", "B-X", "I-X"))
some_words = st.sampled_from(["angela", "Merkel", "abcdef", "\u200b", "x" * 101, "visited", "9" * 30])


@st.composite
def tagged_sentences(draw: st.DrawFn, *, tags: bool = True) -> list[Sentence]:
    found = []
    for _ in range(draw(st.integers(1, 9))):
        words = tuple(draw(st.lists(some_words, max_size=20)))
        drawn = tuple(draw(st.sampled_from(LABELS.names)) for _ in words) if tags else None
        found.append(Sentence(words, drawn))
    return found


def perfect_logits(batch: PackedBatch) -> np.ndarray:
    """The logits of a model that knows the labels, and says B-X wherever it is not asked."""
    assert batch.labels is not None
    return np.eye(len(LABELS))[np.where(batch.labels < 0, 1, batch.labels)]


@given(tagged_sentences(), st.integers(3, 40), st.integers(1, 4), st.booleans(), st.booleans(), st.integers(0, 3))
def test_every_sentence_once_and_every_word_scored_once(
    tokenizer: TextTokenizer,
    sentences: list[Sentence],
    max_length: int,
    batch_size: int,
    shuffle: bool,
    group_by_length: bool,
    epoch: int,
) -> None:
    encoded = encode_dataset(sentences, tokenizer, LABELS.ids, max_length)
    found = list(batches(encoded, batch_size, epoch=epoch, shuffle=shuffle, group_by_length=group_by_length))
    assert len(found) == batch_count(encoded, batch_size)
    assert sorted(number for batch in found for number in batch.word_counts) == list(range(len(sentences)))
    assert sorted(len(batch.word_counts) for batch in found)[1:] == [batch_size] * (len(found) - 1)
    scored: Counter[tuple[int, int]] = Counter()
    for batch in found:
        check_batch(batch, tokenizer, max_length)
        scored.update((window.sentence, word) for window in batch.windows for word in window.words.tolist())
    expected = {
        (number, word)
        for number, sentence in enumerate(sentences)
        for word, pieces in enumerate(tokenizer.encode_words(sentence.words))
        if pieces
    }
    assert scored == Counter(expected)
    assert sum(len(words) for words in encoded.vanished) + len(expected) == encoded.report.words


def check_batch(batch: Batch, tokenizer: TextTokenizer, max_length: int) -> None:
    packed = batch.packed
    assert packed.labels is not None
    assert packed.sentence_count == len(batch.windows)
    for row, window in enumerate(batch.windows):
        begin, end = packed.cu_seqlens[row : row + 2]
        assert end - begin <= max_length
        assert packed.input_ids[begin:end].tolist() == window.input_ids.tolist()
        assert packed.positions[begin:end].tolist() == list(range(end - begin))
        assert packed.input_ids[begin] == tokenizer.cls_id
        assert packed.input_ids[end - 1] == tokenizer.sep_id
        assert np.flatnonzero(packed.labels[begin:end] != -100).tolist() == window.columns.tolist()


@given(tagged_sentences(), st.integers(3, 40), st.integers(1, 4))
def test_tags_come_back_one_for_each_word(
    tokenizer: TextTokenizer, sentences: list[Sentence], max_length: int, batch_size: int
) -> None:
    encoded = encode_dataset(sentences, tokenizer, LABELS.ids, max_length)
    predicted = predict_tags(encoded, LABELS, perfect_logits, batch_size=batch_size)
    for sentence, vanished, tags in zip(sentences, encoded.vanished, predicted, strict=True):
        assert sentence.tags is not None
        assert tags == ["O" if word in vanished else tag for word, tag in enumerate(sentence.tags)]


@given(tagged_sentences(tags=False), st.integers(3, 40))
def test_windows_do_not_matter_where_the_text_fits(
    tokenizer: TextTokenizer, sentences: list[Sentence], spare: int
) -> None:
    longest = max(sum(map(len, tokenizer.encode_words(sentence.words))) for sentence in sentences) + 2
    encoded = encode_dataset(sentences, tokenizer, {}, longest + spare)
    assert encoded.report.windows == len(sentences)
    assert encoded.report.long_sentences == encoded.report.cut_words == 0
    for sentence, (window,) in zip(sentences, encoded.windows, strict=True):
        pieces = [number for word in tokenizer.encode_words(sentence.words) for number in word]
        assert window.input_ids.tolist() == [tokenizer.cls_id, *pieces, tokenizer.sep_id]
        assert window.labels is None
    for batch in batches(encoded, 2, shuffle=False):
        assert batch.packed.labels is None


def test_a_word_too_long_for_a_window_is_cut_counted_and_tagged(tokenizer: TextTokenizer) -> None:
    sentences = [Sentence(("the", "9" * 30, "the"), ("O", "B-X", "O"))]
    encoded = encode_dataset(sentences, tokenizer, LABELS.ids, 10)
    assert encoded.report.cut_words == 1
    assert [len(window.input_ids) for window in encoded.windows[0]] == [3, 10, 3]
    assert predict_tags(encoded, LABELS, perfect_logits) == [["O", "B-X", "O"]]


def test_counts_and_excluded_entities(tokenizer: TextTokenizer) -> None:
    sentences = [
        Sentence(("angela", "\u200b", "merkel"), ("B-X", "I-X", "O")),
        Sentence(("x" * 101, "☃", "the", "\u200b"), ("B-X", "O", "B-X", "O")),
    ]
    encoded = encode_dataset(sentences, tokenizer, LABELS.ids, 512)
    report = encoded.report
    assert (report.vanished_words, report.unknown_words, report.overlong_words) == (2, 2, 1)
    assert report.excluded_entities == 1
    assert excluded_entities(sentences, encoded) == {(0, 0, 2): "a word vanishes in tokenisation"}


@pytest.fixture(scope="module")
def many(tokenizer: TextTokenizer) -> EncodedDataset:
    lengths = np.random.default_rng(0).integers(1, 60, size=1003)
    return encode_dataset([Sentence(("the",) * int(n)) for n in lengths], tokenizer, {}, 512)


def order(encoded: EncodedDataset, **options: int | bool) -> list[list[int]]:
    return [list(batch.word_counts) for batch in batches(encoded, 8, **options)]  # type: ignore[arg-type]


def test_the_order_depends_on_seed_and_epoch_alone(many: EncodedDataset) -> None:
    assert order(many, seed=1, epoch=2) == order(many, seed=1, epoch=2)
    different = [order(many, seed=seed, epoch=epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len({str(found) for found in different}) == 6
    assert order(many, shuffle=False, group_by_length=False) == [
        list(range(n, min(n + 8, 1003))) for n in range(0, 1003, 8)
    ]


def test_grouping_makes_batches_even(many: EncodedDataset) -> None:
    """Length-grouped batches waste little if padded; shuffled ones about 40 %: uniform lengths, longest of 8."""

    def padded_share(group_by_length: bool) -> float:
        lengths = [
            np.diff(batch.packed.cu_seqlens) for batch in batches(many, 8, seed=3, group_by_length=group_by_length)
        ]
        return float(sum(len(each) * each.max() for each in lengths) / sum(each.sum() for each in lengths))

    assert padded_share(True) < 1.06 < 1.5 < padded_share(False)


def test_grouping_keeps_the_order_of_lengths_random(many: EncodedDataset) -> None:
    """Batches must not come sorted, or the learning rate would meet short and long sentences at different times."""
    longest = [max(batch.word_counts.values()) for batch in batches(many, 8, seed=5)]
    assert abs(np.corrcoef(np.arange(len(longest)), longest)[0, 1]) < 0.3  # three standard errors of 126 batches


def test_wrong_arguments(tokenizer: TextTokenizer, many: EncodedDataset) -> None:
    with pytest.raises(DataError, match="found none"):
        encode_dataset([], tokenizer, {}, 512)
    with pytest.raises(ValueError, match="max_length must be at least 3"):
        encode_dataset([Sentence(("a",))], tokenizer, {}, 2)
    with pytest.raises(DataError, match="in all sentences or in none"):
        encode_dataset([Sentence(("a",)), Sentence(("a",), ("O",))], tokenizer, LABELS.ids, 512)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        next(batches(many, 0))
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        predict_tags(many, LABELS, perfect_logits, batch_size=0)
    with pytest.raises(ValueError, match=r"expected \(T, C\) = "):
        predict_tags(many, LABELS, lambda batch: np.zeros((batch.token_count, 4)))
    batch = next(batches(many, 2))
    with pytest.raises(ValueError, match=r"expected \(T, C\) = "):
        decode(batch, np.zeros((3, 3)), LABELS)


def test_a_sentence_of_a_hundred_thousand_words(tokenizer: TextTokenizer) -> None:
    """It is read in batches that do not grow with it."""
    encoded = encode_dataset([Sentence(("the",) * 100_000, ("O",) * 100_000)], tokenizer, LABELS.ids, 512)
    assert encoded.report.windows == len(encoded.windows[0])
    read: list[int] = []

    def noting(batch: PackedBatch) -> np.ndarray:
        read.append(batch.token_count)
        return perfect_logits(batch)

    assert predict_tags(encoded, LABELS, noting) == [["O"] * 100_000]
    assert TOKENS_AT_ONCE // 2 < max(read) <= TOKENS_AT_ONCE


@given(tagged_sentences(), st.integers(3, 40), st.integers(1, 4), st.sampled_from([1, 30, 100, TOKENS_AT_ONCE]))
def test_every_word_is_predicted_once_in_batches_of_bounded_size(
    tokenizer: TextTokenizer, sentences: list[Sentence], max_length: int, batch_size: int, tokens_at_once: int
) -> None:
    encoded = encode_dataset(sentences, tokenizer, LABELS.ids, max_length)
    lengths: list[list[int]] = []

    def noting(batch: PackedBatch) -> np.ndarray:
        lengths.append(np.diff(batch.cu_seqlens).tolist())
        return perfect_logits(batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minitl.text.batching.TOKENS_AT_ONCE", tokens_at_once)
        found = list(word_logits(encoded, LABELS, noting, batch_size=batch_size))
    assert all(len(each) == 1 or (len(each) <= batch_size and sum(each) <= tokens_at_once) for each in lengths)
    in_order = [length for each in lengths for length in sorted(each, reverse=True)]
    assert in_order == sorted(in_order, reverse=True)  # similar lengths come together, the longest first
    windows = [window for windows in encoded.windows for window in windows]
    assert sorted(map(id, windows)) == sorted(id(window) for window, _ in found)
    for window, logits in found:
        assert window.labels is not None
        np.testing.assert_array_equal(logits, np.eye(len(LABELS))[window.labels[window.columns]])


def test_each_epoch_has_its_own_order_without_grouping_too(many: EncodedDataset) -> None:
    different = [order(many, epoch=epoch, group_by_length=False) for epoch in (0, 1, 2)]
    assert len({str(found) for found in different}) == 3
