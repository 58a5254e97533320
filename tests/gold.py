"""Plain answers, written for clearness alone, sharing nothing with minitl: Python integers, loops, the math module."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

WORD = 2**32


@lru_cache(maxsize=2**16)  # four elements share a block, and a mask is needed forward and backward
def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 of one counter, after the figure in the paper (Salmon et al. 2011)."""
    left_0, right_0, left_1, right_1 = counter
    for step in range(10):
        key_0 = (key[0] + step * 0x9E3779B9) % WORD
        key_1 = (key[1] + step * 0xBB67AE85) % WORD
        high_0, low_0 = divmod(left_0 * 0xD2511F53, WORD)
        high_1, low_1 = divmod(left_1 * 0xCD9E8D57, WORD)
        left_0, right_0, left_1, right_1 = high_1 ^ right_0 ^ key_0, low_1, high_0 ^ right_1 ^ key_1, low_0
    return left_0, right_0, left_1, right_1


def word(element: int, seed: int, call: int) -> int:
    """The random word of one element, by DESIGN's convention."""
    block = element // 4
    counter = (block % WORD, block // WORD, call % WORD, call // WORD)
    return philox(counter, (seed % WORD, seed // WORD))[element % 4]


def dropped(x: np.ndarray, probability: float, seed: int, call: int, first: int = 0) -> np.ndarray:
    """``x`` after dropout, its elements numbered in C order from ``first``."""
    threshold = math.floor(probability * 2**32)
    kept = [word(first + i, seed, call) >= threshold for i in range(x.size)]
    return np.array([v / (1 - probability) if k else 0.0 for v, k in zip(x.ravel(), kept, strict=True)]).reshape(
        x.shape
    )


def each(function: object, x: np.ndarray) -> np.ndarray:
    """``function`` of every element."""
    return np.array([function(value) for value in x.ravel().tolist()], dtype=np.float64).reshape(x.shape)  # type: ignore[operator]


def total(values: Any) -> float:
    """The sum, rounded once; infinities and NaN are added as they are."""
    values = np.asarray(values, dtype=np.float64)
    return math.fsum(values) if np.isfinite(values).all() else float(values.sum())


def gelu(u: np.ndarray, approximate: str) -> np.ndarray:
    if approximate == "tanh":
        return each(lambda v: 0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))), u)
    return each(lambda v: 0.5 * v * math.erfc(-v / math.sqrt(2)), u)


def softmax(x: np.ndarray, mask: np.ndarray | None = None, scale: float = 1.0) -> np.ndarray:
    """Softmax of the last axis over the columns of the mask; zeros where the mask keeps nothing."""
    mask = np.broadcast_to(True if mask is None else mask, x.shape)
    result = np.zeros(x.shape)
    for row in np.ndindex(x.shape[:-1]):
        columns = np.flatnonzero(mask[row])
        if columns.size:
            values = x[row][columns].tolist()
            largest = float(x[row][columns].max())  # NaN if any is
            terms = [math.exp(scale * (value - largest)) for value in values]
            result[row][columns] = np.array(terms) / math.fsum(terms)
    return result


def attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    lengths: list[int],
    heads: int,
    probability: float,
    seed: int,
    call: int,
) -> np.ndarray:
    """Self-attention of each sentence, head by head and query by query."""
    width = q.shape[1] // heads
    context = np.zeros(q.shape)
    start = first = 0
    for length in lengths:
        rows = slice(start, start + length)
        for head in range(heads):
            columns = slice(head * width, (head + 1) * width)
            for query in range(length):
                scores = k[rows, columns] @ q[start + query, columns] / math.sqrt(width)
                weights = softmax(scores)
                if probability:
                    weights = dropped(weights, probability, seed, call, first + (head * length + query) * length)
                context[start + query, columns] = weights @ v[rows, columns]
        start += length
        first += heads * length * length
    return context


def cross_entropy(
    logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None, smoothing: float = 0.0
) -> float:
    """The weighted mean of negative log-likelihoods; a smoothed target is written out class by class."""
    classes = logits.shape[1]
    weights = [1.0] * classes if weights is None else weights.tolist()
    losses, divisors = [], []
    for row, largest, label in zip(logits.tolist(), logits.max(axis=1).tolist(), labels.tolist(), strict=True):
        if label == -100:
            continue
        log_sum = math.log(math.fsum(math.exp(value - largest) for value in row)) + largest
        for c in range(classes):
            target = smoothing / classes + (1 - smoothing) * (c == label)
            if target:  # a class that is no target may have a logit of -inf
                losses.append(weights[c] * target * (log_sum - row[c]))
        divisors.append(weights[label])
    return total(losses) / total(divisors) if total(divisors) else 0.0


def focal_loss(logits: np.ndarray, labels: np.ndarray, gamma: float, weights: np.ndarray | None = None) -> float:
    """Each row's negative log-likelihood times the power of what is missing to certainty, averaged by weight."""
    losses, divisors = [], []
    for row, largest, label in zip(logits.tolist(), logits.max(axis=1).tolist(), labels.tolist(), strict=True):
        if label == -100:
            continue
        weight = 1.0 if weights is None else float(weights[label])
        exponentials = [math.exp(value - largest) for value in row]
        denominator = math.fsum(exponentials)
        missing = math.fsum(value for c, value in enumerate(exponentials) if c != label) / denominator  # 1 - p
        losses.append(weight * missing**gamma * (math.log(denominator) - (row[label] - largest)))
        divisors.append(weight)
    return total(losses) / total(divisors) if total(divisors) else 0.0


def layer_norm(total: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    rows = [(row - row.mean()) / math.sqrt(((row - row.mean()) ** 2).mean() + eps) for row in total]
    return np.array(rows).reshape(total.shape) * weight + bias
