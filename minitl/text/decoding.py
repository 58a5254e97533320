"""From the model's logits of pieces to one tag for each word: pieces are brought together, illegal tags kept out.

A word's pieces vote in one of three ways, which transformers' pipelines know under the same names:

first      the first piece alone, which is the one that was trained, unless all were
average    the mean of the pieces' probabilities
max        the piece that is surest of itself

Then either each word takes its likeliest tag, or the sentence takes its likeliest legal sequence of tags, in which no
``I-PER`` follows an ``O``: the path of the largest product of probabilities (Viterbi 1967), found word by word.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, get_args

import numpy as np

from minitl.text.encoding import EncodedWindow
from minitl.text.schemes import Scheme, follows, split_tag

Aggregation = Literal["first", "average", "max"]
AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities (N, C) of logits (N, C), in float64."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    normalised: np.ndarray = exponentials / exponentials.sum(axis=1, keepdims=True)
    return normalised


def word_probabilities(window: EncodedWindow, logits: np.ndarray, aggregation: Aggregation = "first") -> np.ndarray:
    """Return the probabilities (K, C) of the words that a window scores.

    Args:
        window: what the model read.
        logits: (L, C) of its tokens.
        aggregation: how the pieces of a word vote.

    Raises:
        ValueError: another word for ``aggregation``.
    """
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"aggregation must be one of {', '.join(AGGREGATIONS)}, not {aggregation!r}")
    if aggregation == "first" or not len(window.words):
        return softmax(logits[window.columns])
    columns, counts = window.scored_pieces
    probabilities = softmax(logits[columns])  # (M, C)
    begins = np.cumsum(counts) - counts
    if aggregation == "average":
        means: np.ndarray = np.add.reduceat(probabilities, begins, axis=0) / counts[:, None]
        return means
    surest = probabilities.max(axis=1)
    best_of_word = np.maximum.reduceat(surest, begins)
    is_best = surest == np.repeat(best_of_word, counts)
    first_best = np.minimum.reduceat(np.where(is_best, np.arange(len(surest)), len(surest)), begins)
    return probabilities[first_best]


def scheme_of_labels(labels: Sequence[str]) -> Scheme:
    """Return the scheme that a model's labels are of: BIOES or BILOU if one of their letters occurs, else IOB2.

    >>> scheme_of_labels(["O", "B-PER", "I-PER"]), scheme_of_labels(["O", "S-PER"])
    ('IOB2', 'BIOES')
    """
    prefixes = {split_tag(label)[0] for label in labels}
    if prefixes & {"L", "U"}:
        return "BILOU"
    if prefixes & {"E", "S"}:
        return "BIOES"
    return "IOB2" if "B" in prefixes else "IOB1"


@lru_cache(maxsize=16)
def legal_transitions(labels: tuple[str, ...], scheme: Scheme) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which labels may begin a sentence (C,), follow which (C, C), and end a sentence (C,), as bool.

    ``[i, j]`` of the second is about label ``j`` after label ``i``.
    """
    outside = ("O", "")
    tags = [split_tag(label) for label in labels]
    start = np.array([follows(scheme, outside, tag) for tag in tags])
    between = np.array([[follows(scheme, before, tag) for tag in tags] for before in tags])
    end = np.array([follows(scheme, tag, outside) for tag in tags])
    return start, between, end


def best_legal_path(probabilities: np.ndarray, labels: tuple[str, ...], scheme: Scheme) -> np.ndarray:
    """Return the legal sequence of labels with the largest product of probabilities, (W,) label numbers.

    Args:
        probabilities: (W, C) of the words of one sentence.
        labels: the C labels.
        scheme: whose rules hold.

    Raises:
        ValueError: no sequence is legal: the labels lack what the scheme needs.
    """
    count = len(probabilities)
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    start, between, end = legal_transitions(labels, scheme)
    with np.errstate(divide="ignore"):  # the logarithm of 0 is -inf: never chosen
        scores = np.log(np.maximum(probabilities, 1e-300))
    forbidden = np.where(between, 0.0, -np.inf)
    came_from = np.zeros((count, len(labels)), dtype=np.int32)
    best = scores[0] + np.where(start, 0.0, -np.inf)
    for word in range(1, count):
        candidates = best[:, None] + forbidden  # (C, C), from and to
        came_from[word] = candidates.argmax(axis=0)
        best = candidates.max(axis=0) + scores[word]
    best = best + np.where(end, 0.0, -np.inf)
    path = np.zeros(count, dtype=np.int64)
    path[-1] = best.argmax()
    if not np.isfinite(best[path[-1]]):
        raise ValueError(f"no sequence of {count} of the labels {', '.join(labels)} is legal in {scheme}")
    for word in range(count - 1, 0, -1):
        path[word - 1] = came_from[word, path[word]]
    return path
