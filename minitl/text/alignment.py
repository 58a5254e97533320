"""Words and word pieces: which piece belongs to which word, and which pieces carry the word's label.

::

    words            Angela    Merkel         visited
    pieces           angela    mer   ##kel    visited
    piece_words      0         1     1        2
    labels           B-PER     I-PER -100     O

Three kinds of words need care, and each is counted:

- A word can vanish: the tokenizer drops zero-width spaces and control characters. It has no piece, so nothing can be
  said about it: it is never scored and is predicted ``O``. The pieces stay exactly those of transformers.
- A run of more than 100 letters becomes a single [UNK], and the word is predicted from that.
- A word can hold characters the vocabulary lacks and become [UNK] as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from minitl.errors import DataError
from minitl.text.batch import IGNORED
from minitl.text.conll import Sentence
from minitl.text.tokenizer import TextTokenizer

Pieces = Literal["first", "all"]


@dataclass(frozen=True)
class AlignedSentence:
    """A sentence of ``W`` words in ``P`` pieces, special tokens not included.

    Attributes:
        input_ids: (P,) ids of the pieces.
        piece_words: (P,) number of the word of each piece, rising.
        labels: (P,) label number of each piece, -100 where it is not scored; None for a sentence without tags.
        word_count: ``W``.
    """

    input_ids: np.ndarray
    piece_words: np.ndarray
    labels: np.ndarray | None
    word_count: int

    @property
    def sizes(self) -> np.ndarray:
        """(W,) number of pieces of each word, 0 for a word that vanished."""
        return np.bincount(self.piece_words, minlength=self.word_count)


@dataclass(frozen=True)
class EncodingReport:
    """What became of the words of a data set. ``str()`` gives a line for people; reports can be added.

    Attributes:
        sentences, words, pieces: totals; pieces without special tokens, each counted once.
        windows: what the model reads; equal to ``sentences`` where every sentence fits.
        long_sentences: sentences that need more than one window.
        vanished_words: words without a piece, predicted ``O``.
        unknown_words: words with an [UNK] among their pieces.
        overlong_words: those of the unknown words that are longer than the tokenizer's limit (100 characters).
        cut_words: words with more pieces than a window holds, of which only the first are read.
        excluded_entities: gold entities with a vanished word, which no tagger can find.
    """

    sentences: int = 0
    words: int = 0
    pieces: int = 0
    windows: int = 0
    long_sentences: int = 0
    vanished_words: int = 0
    unknown_words: int = 0
    overlong_words: int = 0
    cut_words: int = 0
    excluded_entities: int = 0

    def __add__(self, other: "EncodingReport") -> "EncodingReport":
        return EncodingReport(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(self)))

    def __str__(self) -> str:
        parts = [f"{self.sentences} sentences, {self.words} words, {self.pieces} word pieces in {self.windows} windows"]
        remarks = {
            "{} sentences longer than the limit, read in overlapping windows": self.long_sentences,
            "{} words vanish in tokenisation, tagged O": self.vanished_words,
            "{} words hold [UNK]": self.unknown_words,
            "{} of these because of their length": self.overlong_words,
            "{} words cut to the pieces that fit a window": self.cut_words,
            "{} gold entities cannot be found because a word of theirs vanishes": self.excluded_entities,
        }
        parts += [remark.format(count) for remark, count in remarks.items() if count]
        return "; ".join(parts)


def encode_sentence(
    words: Sequence[str],
    tags: Sequence[str] | None,
    tokenizer: TextTokenizer,
    label_ids: Mapping[str, int],
    *,
    pieces: Pieces = "first",
) -> AlignedSentence:
    """Tokenise one sentence and carry its tags over to the pieces.

    Args:
        words: the words.
        tags: one tag for each word, or None.
        tokenizer: makes the pieces.
        label_ids: number of each tag.
        pieces: ``"first"`` labels the first piece of each word (Devlin et al. 2019, section 5.3), ``"all"`` every one.

    Raises:
        DataError: if a tag has no number.
    """
    sentence = Sentence(tuple(words), None if tags is None else tuple(tags))
    return encode_sentences([sentence], tokenizer, label_ids, pieces=pieces)[0]


def encode_sentences(
    sentences: Sequence[Sentence],
    tokenizer: TextTokenizer,
    label_ids: Mapping[str, int],
    *,
    pieces: Pieces = "first",
) -> list[AlignedSentence]:
    """:func:`encode_sentence` for many sentences at once, which is faster."""
    if pieces not in ("first", "all"):
        raise ValueError(f"pieces must be 'first' or 'all', found {pieces!r}")
    encoded = tokenizer.encode_sentences([sentence.words for sentence in sentences])
    aligned = []
    for sentence, (input_ids, piece_words) in zip(sentences, encoded, strict=True):
        labels = None
        if sentence.tags is not None:
            labels = np.array(_label_numbers(sentence, label_ids), dtype=np.int64)[piece_words]
            if pieces == "first":
                labels[1:][piece_words[1:] == piece_words[:-1]] = IGNORED
        aligned.append(AlignedSentence(input_ids, piece_words, labels, len(sentence.words)))
    return aligned


def _label_numbers(sentence: Sentence, label_ids: Mapping[str, int]) -> list[int]:
    """The number of the tag of each word."""
    assert sentence.tags is not None
    try:
        return [label_ids[tag] for tag in sentence.tags]
    except KeyError:
        word = next(number for number, tag in enumerate(sentence.tags) if tag not in label_ids)
        raise DataError(
            f"{sentence.place(word)}: the tag {sentence.tags[word]!r} is none of the labels the model knows: "
            f"{', '.join(label_ids)}"
        ) from None
