"""From sentences to packed batches, and from logits back to one tag for each word.

::

    sentences --encode_dataset--> windows --batches--> PackedBatch --model--> logits --decode--> tags
                                          --word_logits, predict_tags----------------------------->

A batch for training holds whole sentences: all windows of a long one go together. For prediction a word's logits come
from one window alone, so there the windows of all sentences are sorted by length and cut into batches of bounded size,
however long a text is.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from minitl.random import permutation
from minitl.text.batch import PackedBatch
from minitl.text.encoding import EncodedDataset, EncodedWindow
from minitl.text.labels import LabelSet

MEGABATCH = 50
"""Sentences are sorted by length within this many batches: long enough to pack well, short enough to stay random."""


TOKENS_AT_ONCE = 4096
"""Most tokens of a batch for prediction: enough for any matrix product to run at full speed, and for BERT-base 50 MB in
the widest array of a layer."""


@dataclass(frozen=True)
class Batch:
    """A packed batch and what is in it: ``windows[i]`` is row ``i`` of ``packed``, i.e. tokens from ``cu_seqlens[i]``.

    ``word_counts`` holds the number of words of each sentence in the batch, by the number of the sentence.
    """

    packed: PackedBatch
    windows: tuple[EncodedWindow, ...]
    word_counts: dict[int, int]


def batch_count(encoded: EncodedDataset, batch_size: int) -> int:
    """How many batches :func:`batches` yields."""
    return -(-len(encoded) // batch_size)


def batches(
    encoded: EncodedDataset,
    batch_size: int,
    *,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = True,
    group_by_length: bool = True,
    start: int = 0,
) -> Iterator[Batch]:
    """Yield every sentence exactly once, ``batch_size`` sentences at a time (the last batch may have fewer).

    The order is a function of ``seed``, ``epoch`` and the sentences alone, on every machine. Shuffled and grouped:
    the sentences are permuted, sorted by length within each 50 batches' worth, cut into batches, and the batches
    permuted. Epoch ``e`` draws its two permutations from the streams ``2 e`` and ``2 e + 1``.

    Args:
        encoded: the sentences.
        batch_size: sentences in a batch; a long sentence counts once, whatever its windows.
        seed, epoch: choose the order; unused without ``shuffle``.
        shuffle: whether the order is random.
        group_by_length: whether sentences of similar length come together, which evens out the batches' work.
        start: how many batches to leave out at the beginning.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, found {batch_size}")
    for numbers in _batched_sentences(encoded, batch_size, seed, epoch, shuffle, group_by_length)[start:]:
        yield _pack(encoded, numbers)


def _batched_sentences(
    encoded: EncodedDataset, batch_size: int, seed: int, epoch: int, shuffle: bool, group_by_length: bool
) -> list[np.ndarray]:
    """The numbers of the sentences of each batch."""
    count = len(encoded)
    order = permutation(count, seed=seed, stream=2 * epoch) if shuffle else np.arange(count)
    if group_by_length:
        lengths = np.array([sum(len(window.input_ids) for window in windows) for windows in encoded.windows])
        span = MEGABATCH * batch_size if shuffle else count
        groups = [order[begin : begin + span] for begin in range(0, count, span)]
        order = np.concatenate([group[np.argsort(-lengths[group], kind="stable")] for group in groups])
    cut = [order[begin : begin + batch_size] for begin in range(0, count, batch_size)]
    if not (shuffle and group_by_length):
        return cut
    return [cut[number] for number in permutation(len(cut), seed=seed, stream=2 * epoch + 1)]


def _pack(encoded: EncodedDataset, numbers: np.ndarray) -> Batch:
    """Put the windows of some sentences into a batch."""
    windows = tuple(window for number in numbers.tolist() for window in encoded.windows[number])
    return Batch(_end_to_end(windows), windows, {number: encoded.word_counts[number] for number in numbers.tolist()})


def _end_to_end(windows: Sequence[EncodedWindow]) -> PackedBatch:
    """Lay windows end to end."""
    lengths = np.array([len(window.input_ids) for window in windows], dtype=np.int64)
    cu_seqlens = np.concatenate(([0], np.cumsum(lengths)))
    labels = [window.labels for window in windows if window.labels is not None]
    input_ids = np.concatenate([window.input_ids for window in windows])
    return PackedBatch(
        input_ids=input_ids,
        positions=np.arange(len(input_ids)) - np.repeat(cu_seqlens[:-1], lengths),
        segments=np.zeros(len(input_ids), dtype=np.int64),
        cu_seqlens=cu_seqlens,
        labels=np.concatenate(labels) if labels else None,
    )


def decode(batch: Batch, logits: np.ndarray, labels: LabelSet) -> dict[int, list[str]]:
    """Turn logits into tags: the largest logit of the first piece of each word; ``O`` for a word without a piece.

    Args:
        batch: what the model read.
        logits: (T, C).
        labels: the ``C`` labels.

    Returns:
        For each sentence of the batch, by its number, exactly one tag for each word.
    """
    tags = {number: ["O"] * count for number, count in batch.word_counts.items()}
    for window, rows in _rows_of_words(batch.windows, batch.packed, logits, labels):
        for word, number in zip(window.words.tolist(), rows.argmax(axis=-1).tolist(), strict=True):
            tags[window.sentence][word] = labels[number]
    return tags


def _rows_of_words(
    windows: Sequence[EncodedWindow], packed: PackedBatch, logits: np.ndarray, labels: LabelSet
) -> Iterator[tuple[EncodedWindow, np.ndarray]]:
    """Yield each window with the logits of its words' first pieces, (K, C)."""
    for window, rows in _rows_of_windows(windows, packed, logits, labels):
        yield window, rows[window.columns]


def _rows_of_windows(
    windows: Sequence[EncodedWindow], packed: PackedBatch, logits: np.ndarray, labels: LabelSet
) -> Iterator[tuple[EncodedWindow, np.ndarray]]:
    """Yield each window with the logits of its tokens (L, C)."""
    expected = (packed.token_count, len(labels))
    if logits.shape != expected:
        raise ValueError(f"logits have shape {logits.shape}, expected (T, C) = {expected}")
    offsets = packed.cu_seqlens.tolist()
    for window, begin, end in zip(windows, offsets[:-1], offsets[1:], strict=True):
        yield window, logits[begin:end]


def word_logits(
    encoded: EncodedDataset,
    labels: LabelSet,
    logits_of: Callable[[PackedBatch], np.ndarray],
    *,
    batch_size: int = 32,
) -> Iterator[tuple[EncodedWindow, np.ndarray]]:
    """Run a model over all windows; yield each with the logits (K, C) of the ``K`` words it scores, in any order.

    A word's logits are those of its first piece; :func:`window_logits` has those of all. Every word that has a piece is
    in exactly one window. What is held at once does not grow with the sentences: a batch has up to ``batch_size``
    windows of similar length, and no more than 4,096 tokens.

    Args:
        encoded: the sentences.
        labels: the ``C`` labels of the model.
        logits_of: the model: a packed batch to logits (T, C) as a NumPy array.
        batch_size: the most windows at a time; a sentence has one, but a long one.
    """
    for window, rows in window_logits(encoded, labels, logits_of, batch_size=batch_size):
        yield window, rows[window.columns]


def window_logits(
    encoded: EncodedDataset,
    labels: LabelSet,
    logits_of: Callable[[PackedBatch], np.ndarray],
    *,
    batch_size: int = 32,
) -> Iterator[tuple[EncodedWindow, np.ndarray]]:
    """Run a model over all windows; yield each with the logits (L, C) of its tokens; see :func:`word_logits`."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, found {batch_size}")
    waiting = [window for windows in encoded.windows for window in windows]
    waiting.sort(key=lambda window: len(window.input_ids))
    while waiting:
        longest = len(waiting[-1].input_ids)
        count = min(batch_size, max(1, TOKENS_AT_ONCE // longest))
        group = waiting[-count:]
        del waiting[-count:]
        packed = _end_to_end(group)
        yield from _rows_of_windows(group, packed, logits_of(packed), labels)


def predict_tags(
    encoded: EncodedDataset,
    labels: LabelSet,
    logits_of: Callable[[PackedBatch], np.ndarray],
    *,
    batch_size: int = 32,
) -> list[list[str]]:
    """Tag every sentence, in order: exactly one tag for each word, ``O`` for a word without a piece.

    Args:
        encoded, labels, logits_of, batch_size: as for :func:`word_logits`.
    """
    tags = [["O"] * count for count in encoded.word_counts]
    for window, logits in word_logits(encoded, labels, logits_of, batch_size=batch_size):
        for word, number in zip(window.words.tolist(), logits.argmax(axis=1).tolist(), strict=True):
            tags[window.sentence][word] = labels[number]
    return tags
