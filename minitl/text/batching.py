"""From sentences to packed batches, and from logits back to one tag for each word.

::

    sentences --encode_dataset--> windows --batches--> PackedBatch --model--> logits --decode--> tags

A batch holds whole sentences: all windows of a long one go together, so that its tags come out of one batch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from minitl.random import permutation
from minitl.text.batch import PackedBatch
from minitl.text.encoding import EncodedDataset, EncodedWindow
from minitl.text.labels import LabelSet

MEGABATCH = 50
"""Sentences are sorted by length within this many batches: long enough to pack well, short enough to stay random."""


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
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, found {batch_size}")
    for numbers in _batched_sentences(encoded, batch_size, seed, epoch, shuffle, group_by_length):
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
    """Lay the windows of some sentences end to end."""
    windows = tuple(window for number in numbers.tolist() for window in encoded.windows[number])
    lengths = np.array([len(window.input_ids) for window in windows], dtype=np.int64)
    cu_seqlens = np.concatenate(([0], np.cumsum(lengths)))
    labels = [window.labels for window in windows if window.labels is not None]
    input_ids = np.concatenate([window.input_ids for window in windows])
    packed = PackedBatch(
        input_ids=input_ids,
        positions=np.arange(len(input_ids)) - np.repeat(cu_seqlens[:-1], lengths),
        segments=np.zeros(len(input_ids), dtype=np.int64),
        cu_seqlens=cu_seqlens,
        labels=np.concatenate(labels) if labels else None,
    )
    return Batch(packed, windows, {number: encoded.word_counts[number] for number in numbers.tolist()})


def decode(batch: Batch, logits: np.ndarray, labels: LabelSet) -> dict[int, list[str]]:
    """Turn logits into tags: the largest logit of the first piece of each word; ``O`` for a word without a piece.

    Args:
        batch: what the model read.
        logits: (T, C).
        labels: the ``C`` labels.

    Returns:
        For each sentence of the batch, by its number, exactly one tag for each word.
    """
    expected = (batch.packed.token_count, len(labels))
    if logits.shape != expected:
        raise ValueError(f"logits have shape {logits.shape}, expected (T, C) = {expected}")
    classes = logits.argmax(axis=-1)
    tags = {number: ["O"] * count for number, count in batch.word_counts.items()}
    for window, offset in zip(batch.windows, batch.packed.cu_seqlens[:-1].tolist(), strict=True):
        for word, number in zip(window.words.tolist(), classes[window.columns + offset].tolist(), strict=True):
            tags[window.sentence][word] = labels[number]
    return tags


def predict_tags(
    encoded: EncodedDataset,
    labels: LabelSet,
    logits_of: Callable[[PackedBatch], np.ndarray],
    *,
    batch_size: int = 32,
) -> list[list[str]]:
    """Tag every sentence, in order.

    Args:
        encoded: the sentences.
        labels: the labels of the model.
        logits_of: the model: a packed batch to logits (T, C) as a NumPy array.
        batch_size: sentences at a time.
    """
    tags: dict[int, list[str]] = {}
    for batch in batches(encoded, batch_size, shuffle=False):
        tags.update(decode(batch, logits_of(batch.packed), labels))
    return [tags[number] for number in range(len(encoded))]
