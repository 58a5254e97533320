"""What happens to the scores of a block of queries: softmax and dropout, and the way back.

A key's scores for the BLOCK queries are a row, and every loop runs along a row: a register holds one number each of 16
queries, which have nothing to do with each other.

Numbers that each query has, BLOCK of them side by side, lie in one array, and in backward so do a key's weights and
their gradients: of two arrays the code would ask for each row whether they overlap, which takes longer than the row.

Without dropout the threshold is 0, which no word is below, and the distance ``word_row`` of words is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minitl.kernels.attention.operands import BLOCK, LANES, whole_registers
from minitl.kernels.compiled import compiled
from minitl.kernels.vector_math import exp

LARGEST = LOG_SUM_EXP = 0
TOTAL, MEAN, INNER = BLOCK, 2 * BLOCK, 3 * BLOCK
GRAD = BLOCK


@compiled
def softmax(scores: Any, keys: Any, vectors: Any, scale: Any, numbers: Any) -> None:
    """Turn scores into exponentials; find the largest scaled score of each query, and the sum of its exponentials."""
    whole_registers()
    for j in range(vectors * LANES):
        numbers[LARGEST + j] = -np.inf
        numbers[TOTAL + j] = 0
    for key in range(0, keys, 2):  # two at a time, for each turn waits until the one before has stored its numbers
        other = min(key + 1, keys - 1)
        row, next_row = scores[key * BLOCK : (key + 1) * BLOCK], scores[other * BLOCK : (other + 1) * BLOCK]
        for j in range(vectors * LANES):
            score, next_score = row[j] * scale, next_row[j] * scale
            larger = score if score > next_score else next_score  # loses a NaN; its exponential is in the total
            numbers[LARGEST + j] = larger if larger > numbers[LARGEST + j] else numbers[LARGEST + j]
    for key in range(keys):
        row = scores[key * BLOCK : (key + 1) * BLOCK]
        for j in range(vectors * LANES):
            exponential = exp(row[j] * scale - numbers[LARGEST + j])
            row[j] = exponential
            numbers[TOTAL + j] += exponential


@compiled
def weigh(
    exponentials: Any, keys: Any, vectors: Any, numbers: Any, words: Any, word_row: Any, threshold: Any, keep_scale: Any
) -> None:
    """Divide by the totals, and drop."""
    whole_registers()
    for j in range(vectors * LANES):
        numbers[TOTAL + j] = keep_scale / numbers[TOTAL + j]
    for key in range(keys):
        row, word = exponentials[key * BLOCK : (key + 1) * BLOCK], words[key * word_row : key * word_row + BLOCK]
        for j in range(vectors * LANES):
            row[j] = row[j] * numbers[TOTAL + j] if word[j] >= threshold else row.dtype.type(0)


@compiled
def weigh_again(
    both: Any,
    keys: Any,
    vectors: Any,
    scale: Any,
    numbers: Any,
    words: Any,
    word_row: Any,
    threshold: Any,
    keep_scale: Any,
) -> None:
    """Turn scores into weights that lack only the division by their total; drop the gradients of what is dropped."""
    whole_registers()
    for j in range(vectors * LANES):
        numbers[TOTAL + j] = 0
        numbers[MEAN + j] = 0
    for key in range(keys):
        row, word = both[2 * key * BLOCK : 2 * (key + 1) * BLOCK], words[key * word_row : key * word_row + BLOCK]
        for j in range(vectors * LANES):
            weight = exp(row[j] * scale - numbers[LOG_SUM_EXP + j])
            grad = row[GRAD + j] * keep_scale if word[j] >= threshold else row.dtype.type(0)
            row[j] = weight
            row[GRAD + j] = grad
            numbers[TOTAL + j] += weight
            numbers[MEAN + j] += weight * grad
    for j in range(vectors * LANES):
        numbers[MEAN + j] = numbers[MEAN + j] / numbers[TOTAL + j]


@compiled
def grad_scores(
    both: Any,
    keys: Any,
    vectors: Any,
    scale: Any,
    numbers: Any,
    words: Any,
    word_row: Any,
    threshold: Any,
    keep_scale: Any,
) -> None:
    """Turn the gradients of the weights into those of the scores, and the weights into those that dropout leaves."""
    whole_registers()
    for j in range(vectors * LANES):
        numbers[INNER + j] = 0
    for key in range(keys):
        row = both[2 * key * BLOCK : 2 * (key + 1) * BLOCK]
        for j in range(vectors * LANES):
            weight = row[j] / numbers[TOTAL + j]  # not a multiplication: the weight of a single key is exactly 1
            row[j] = weight
            numbers[INNER + j] += (row[GRAD + j] - numbers[MEAN + j]) * weight
    for key in range(keys):
        row, word = both[2 * key * BLOCK : 2 * (key + 1) * BLOCK], words[key * word_row : key * word_row + BLOCK]
        for j in range(vectors * LANES):
            row[GRAD + j] = row[j] * ((row[GRAD + j] - numbers[MEAN + j]) - numbers[INNER + j]) * scale
            row[j] = row[j] * keep_scale if word[j] >= threshold else row.dtype.type(0)
