"""Sentences as the model reads them: tokenised, labelled, and cut into windows where they are long."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from minitl.errors import DataError
from minitl.text.alignment import AlignedSentence, EncodingReport, Pieces, encode_sentences
from minitl.text.batch import IGNORED
from minitl.text.conll import Sentence
from minitl.text.schemes import lenient_spans
from minitl.text.tokenizer import TextTokenizer
from minitl.text.windows import Window, plan_windows


@dataclass(frozen=True)
class EncodedWindow:
    """What the model reads of one sentence at once: ``L`` tokens with [CLS] and [SEP], of which ``K`` words are scored.

    Attributes:
        sentence: number of the sentence in its data set.
        input_ids: (L,) token ids.
        labels: (L,) label numbers, -100 where nothing is scored; None without tags.
        words: (K,) numbers of the words scored in this window that have a piece.
        columns: (K,) column of the first piece of each of them.
        piece_words: (L - 2,) number of the word of each piece between [CLS] and [SEP].
    """

    sentence: int
    input_ids: np.ndarray
    labels: np.ndarray | None
    words: np.ndarray
    columns: np.ndarray
    piece_words: np.ndarray

    @property
    def scored_pieces(self) -> tuple[np.ndarray, np.ndarray]:
        """All pieces of the scored words: their columns (M,), and (K,) how many each word has."""
        if not len(self.words):
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        first, last = np.searchsorted(self.piece_words, [self.words[0], self.words[-1] + 1])
        counts = np.diff(np.append(self.columns, last + 1))  # a word's pieces end where the next one's begin
        return np.arange(first, last) + 1, counts


@dataclass(frozen=True)
class EncodedDataset:
    """Sentences ready to be batched.

    Attributes:
        windows: for each sentence its windows, at least one.
        word_counts: number of words of each sentence.
        vanished: for each sentence the words that have no piece.
        report: what was counted on the way.
    """

    windows: tuple[tuple[EncodedWindow, ...], ...]
    word_counts: tuple[int, ...]
    vanished: tuple[tuple[int, ...], ...]
    report: EncodingReport

    def __len__(self) -> int:
        """The number of sentences."""
        return len(self.windows)


def encode_dataset(
    sentences: Sequence[Sentence],
    tokenizer: TextTokenizer,
    label_ids: Mapping[str, int],
    max_length: int,
    *,
    pieces: Pieces = "first",
) -> EncodedDataset:
    """Tokenise sentences, align their tags, and cut the long ones into overlapping windows.

    Args:
        sentences: all with tags or all without.
        tokenizer: makes the pieces.
        label_ids: number of each tag, as ``LabelSet.ids``.
        max_length: the most tokens the model may read at once, [CLS] and [SEP] included.
        pieces: which pieces carry the label, ``"first"`` or ``"all"`` of a word.

    Raises:
        DataError: if there is no sentence, a tag has no number, or only some sentences have tags.
        ValueError: if ``max_length`` leaves no room for a piece.
    """
    if not sentences:
        raise DataError("expected sentences to encode, found none")
    if max_length < 3:
        raise ValueError(f"max_length must be at least 3 ([CLS], a piece, [SEP]), found {max_length}")
    untagged = [sentence.place() for sentence in sentences if sentence.tags is None]
    if untagged and len(untagged) != len(sentences):
        raise DataError(f"{untagged[0]}: expected tags in all sentences or in none, found {len(untagged)} without")
    windows, vanished, report = [], [], EncodingReport()
    for number, aligned in enumerate(encode_sentences(sentences, tokenizer, label_ids, pieces=pieces)):
        sizes = aligned.sizes
        plan = plan_windows(sizes.tolist(), max_length - 2)
        windows.append(tuple(_encode_window(number, aligned, window, max_length, tokenizer) for window in plan))
        vanished.append(tuple(np.flatnonzero(sizes == 0).tolist()))
        report += _report(sentences[number], aligned, vanished[-1], len(plan), max_length, tokenizer)
    counts = tuple(len(sentence.words) for sentence in sentences)
    return EncodedDataset(tuple(windows), counts, tuple(vanished), report)


def _encode_window(
    number: int, aligned: AlignedSentence, window: Window, max_length: int, tokenizer: TextTokenizer
) -> EncodedWindow:
    """Cut one window out of a sentence and put [CLS] and [SEP] around it."""
    first, last = np.searchsorted(aligned.piece_words, [window.start, window.stop])
    last = min(last, first + max_length - 2)  # only a single word can be too long for a window
    piece_words = aligned.piece_words[first:last]
    input_ids = np.concatenate(([tokenizer.cls_id], aligned.input_ids[first:last], [tokenizer.sep_id]))
    scored = (piece_words >= window.scored_start) & (piece_words < window.scored_stop)
    labels = None
    if aligned.labels is not None:
        labels = np.full(len(input_ids), IGNORED, dtype=np.int64)
        labels[1:-1][scored] = aligned.labels[first:last][scored]
    starts_word = np.diff(piece_words, prepend=-1) > 0
    columns = np.flatnonzero(starts_word & scored)
    return EncodedWindow(number, input_ids, labels, piece_words[columns], columns + 1, piece_words)


def _report(
    sentence: Sentence,
    aligned: AlignedSentence,
    vanished: tuple[int, ...],
    windows: int,
    max_length: int,
    tokenizer: TextTokenizer,
) -> EncodingReport:
    """Count one sentence."""
    unknown = set(aligned.piece_words[aligned.input_ids == tokenizer.unk_id].tolist())
    return EncodingReport(
        sentences=1,
        words=aligned.word_count,
        pieces=len(aligned.input_ids),
        windows=windows,
        long_sentences=int(windows > 1),
        vanished_words=len(vanished),
        unknown_words=len(unknown),
        overlong_words=sum(len(sentence.words[word]) > tokenizer.max_word_characters for word in unknown),
        cut_words=int((aligned.sizes > max_length - 2).sum()),
        excluded_entities=len(_entities_with(sentence, vanished)),
    )


def _entities_with(sentence: Sentence, words: Sequence[int]) -> list[tuple[int, int]]:
    """Start and end of the gold entities that contain one of ``words``."""
    if not words or sentence.tags is None:
        return []
    entities = lenient_spans(sentence.tags)
    return [(entity.start, entity.end) for entity in entities if any(entity.start <= w < entity.end for w in words)]


def excluded_entities(sentences: Sequence[Sentence], encoded: EncodedDataset) -> dict[tuple[int, int, int], str]:
    """The gold entities no tagger can find because a word of theirs vanished.

    Returns:
        (sentence, start, end) of each with the reason, as :func:`minitl.metrics.accounting` takes it.
    """
    return {
        (number, *entity): "a word vanishes in tokenisation"
        for number, (sentence, vanished) in enumerate(zip(sentences, encoded.vanished, strict=True))
        for entity in _entities_with(sentence, vanished)
    }
