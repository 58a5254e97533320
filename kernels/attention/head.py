"""One head of one sentence: scores, softmax, dropout and products while all of it is in the cache.

Queries are taken in blocks of BLOCK. The scores of a block lie in memory with a key a row and a query a column:

    scores (length, BLOCK)      scores[key, query] = k[key] . q[query]

What a softmax does with the weights of a query (the largest, the sum, a division) it then does for a whole register of
queries at once, and no register's lanes need to be added up. And a long sentence takes length x BLOCK numbers, never
length x length. A tile reads its first operand in either direction, so no product minds that the scores lie on their
side (g: the gradient of the context, a block of queries as q is):

    forward    scores = k q^T        context = weights^T v
    backward   scores = k q^T        grad_weights = v g^T
               grad_v += weights g   grad_k += grad_scores q    grad_q = grad_scores^T k

Only q^T and g^T are needed as second operands, and are copied to lie on their side.

Tiles and vectors reach beyond the last key and the last query. What is there is zero or left from another head; it is
computed with like the rest, a lane or a row for itself, and never written into what is returned.

Both tasks take the arrays; (scale, dropout's threshold and factor of what is kept, seed, call); (first row of the
sentence, length, head, number of the head's first dropout element); and memory: floats, as many as the functions
``..._room`` say, and random words of a block twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minitl.kernels.attention.operands import (
    BLOCK,
    LANES,
    OVERWRITE,
    STEPS,
    address,
    draw,
    head_rows,
    product,
    rounded_up,
    transpose,
    write_rows,
)
from minitl.kernels.attention.weights import (
    GRAD,
    LARGEST,
    LOG_SUM_EXP,
    TOTAL,
    grad_scores,
    softmax,
    weigh,
    weigh_again,
)
from minitl.kernels.compiled import compiled
from minitl.kernels.matmul.packing import place
from minitl.kernels.matmul.tile import ROWS


def forward_room(width: int) -> tuple[int, int]:
    """Return how many floats ``forward_head`` needs for every key, and beside them."""
    columns = rounded_up.py_func(width, LANES)
    return BLOCK + 2 * columns, (2 + columns) * BLOCK + (2 * BLOCK + ROWS) * columns


def backward_room(width: int) -> tuple[int, int]:
    """Return how many floats ``backward_head`` needs for every key, and beside them."""
    columns = rounded_up.py_func(width, LANES)
    return 2 * BLOCK + 4 * columns, (4 + 2 * columns) * BLOCK + (3 * BLOCK + ROWS) * columns


@compiled
def padded(length: Any) -> Any:
    """Return for how many keys there must be room, so that the last tile and the last vector fit."""
    return rounded_up(length + ROWS - 1, LANES)


@compiled
def may_stay(x: Any, length: Any, width: Any) -> Any:
    """Tell whether a tile may read a head's rows where they are.

    Whole vectors, at least a tile of rows, and so few that they share the nearest cache: rows that lie a multiple of
    2048 bytes apart have an eighth of it, or less, to themselves.
    """
    return width % LANES == 0 and ROWS <= length <= BLOCK // 2 and x.shape[1] * x.itemsize % 2048 != 0


@compiled
def fits(count: Any, steps: Any, width: Any) -> Any:
    """Tell whether a product of ``count`` rows can be written where it belongs, see ``product``."""
    return width % LANES == 0 and (count % ROWS == 0 or (count >= ROWS and steps <= STEPS))


@compiled
def _split(memory: Any, count: Any) -> Any:
    return memory[:count], memory[count:]


@compiled
def across(count: Any) -> Any:
    """Return how many columns of scores to compute for so many queries: four vectors go faster than three."""
    return BLOCK if count > 2 * LANES else rounded_up(count, LANES)


@compiled
def forward_head(arrays: Any, options: Any, where: Any, memory: Any, random: Any) -> None:
    """Compute the context; and the two parts of the logarithm of the softmax's divisor: the largest score, and the
    total of the exponentials beside it.
    """
    q, k, v, context, largest, total = arrays
    scale, threshold, keep_scale, seed, call = options
    start, length, head, first = where
    size, width = q.itemsize, q.shape[1] // total.shape[0]
    column, rows, columns = head * width, padded(length), rounded_up(width, LANES)
    numbers, memory = _split(memory, 2 * BLOCK)
    q_columns, memory = _split(memory, columns * BLOCK)
    scores, memory = _split(memory, rows * BLOCK)
    k_room, memory = _split(memory, rows * columns)
    v_room, memory = _split(memory, rows * columns)
    q_room, out_room = _split(memory, BLOCK * columns)
    words, in_order = _split(random, rows * BLOCK)

    near = may_stay(q, length, width)
    k_at, k_row = head_rows(k, start, length, column, width, k_room, near)
    v_at, v_row = head_rows(v, start, length, column, width, v_room, near)
    q_columns_at, scores_at, block_row = address(q_columns), address(scores), BLOCK * size
    word_row = BLOCK if threshold > 0 else 0
    for begin in range(0, length, BLOCK):
        query, count = start + begin, min(BLOCK, length - begin)
        vectors = (count + LANES - 1) // LANES
        q_at, q_row = head_rows(q, query, count, column, width, q_room, near and count >= LANES)
        transpose(q, q_at, q_row, q_columns_at, block_row, count, width)
        n = across(count)
        product(q, k_at, k_row, size, q_columns_at, block_row, width, scores_at, block_row, length, n, OVERWRITE)
        softmax(scores, length, vectors, scale, numbers)
        for j in range(count):
            largest[head, query + j], total[head, query + j] = numbers[LARGEST + j], numbers[TOTAL + j]
        if threshold > 0:
            draw(words, in_order, length, count, first + np.uint64(begin * length), seed, call)
        weigh(scores, length, vectors, numbers, words, word_row, threshold, keep_scale)
        in_place = fits(count, length, width)
        out_at, out_row = address(out_room), columns * size
        if in_place:
            out_at, out_row = place(context, query, column), context.shape[1] * size
        product(q, scores_at, size, block_row, v_at, v_row, length, out_at, out_row, count, columns, OVERWRITE)
        if not in_place:
            write_rows(out_room, context, query, count, column, width)


@compiled
def backward_head(arrays: Any, options: Any, where: Any, memory: Any, random: Any) -> None:
    """Compute the gradients of q, k and v."""
    grad_context, q, k, v, grad_q, grad_k, grad_v, log_sum_exp = arrays
    scale, threshold, keep_scale, seed, call = options
    start, length, head, first = where
    size, width = q.itemsize, q.shape[1] // log_sum_exp.shape[0]
    column, rows, columns = head * width, padded(length), rounded_up(width, LANES)
    numbers, memory = _split(memory, 4 * BLOCK)
    q_columns, memory = _split(memory, columns * BLOCK)
    g_columns, memory = _split(memory, columns * BLOCK)
    both, memory = _split(memory, 2 * rows * BLOCK)
    k_room, memory = _split(memory, rows * columns)
    v_room, memory = _split(memory, rows * columns)
    grad_k_room, memory = _split(memory, rows * columns)
    grad_v_room, memory = _split(memory, rows * columns)
    q_room, memory = _split(memory, BLOCK * columns)
    g_room, out_room = _split(memory, BLOCK * columns)
    words, in_order = _split(random, rows * BLOCK)

    near = may_stay(q, length, width)
    k_at, k_row = head_rows(k, start, length, column, width, k_room, near)
    v_at, v_row = head_rows(v, start, length, column, width, v_room, near)
    sum_k, sum_v, sum_row = address(grad_k_room), address(grad_v_room), columns * size
    if near:  # then there is one block only, and its sums can be written where they belong
        sum_k, sum_v, sum_row = place(grad_k, start, column), place(grad_v, start, column), q.shape[1] * size
    q_columns_at, g_columns_at, column_row = address(q_columns), address(g_columns), BLOCK * size
    weights, grads, row = address(both), address(both) + GRAD * size, 2 * BLOCK * size
    word_row = BLOCK if threshold > 0 else 0
    for begin in range(0, length, BLOCK):
        query, count = start + begin, min(BLOCK, length - begin)
        vectors, n, add = (count + LANES - 1) // LANES, across(count), np.int64(begin > 0)
        q_at, q_row = head_rows(q, query, count, column, width, q_room, near and count >= LANES)
        g_at, g_row = head_rows(grad_context, query, count, column, width, g_room, near and count >= LANES)
        transpose(q, q_at, q_row, q_columns_at, column_row, count, width)
        transpose(q, g_at, g_row, g_columns_at, column_row, count, width)
        product(q, k_at, k_row, size, q_columns_at, column_row, width, weights, row, length, n, OVERWRITE)
        product(q, v_at, v_row, size, g_columns_at, column_row, width, grads, row, length, n, OVERWRITE)
        for j in range(count):
            numbers[LOG_SUM_EXP + j] = log_sum_exp[head, query + j]
        if threshold > 0:
            draw(words, in_order, length, count, first + np.uint64(begin * length), seed, call)
        weigh_again(both, length, vectors, scale, numbers, words, word_row, threshold, keep_scale)
        grad_scores(both, length, vectors, scale, numbers, words, word_row, threshold, keep_scale)
        product(q, weights, row, size, g_at, g_row, count, sum_v, sum_row, length, columns, add)
        product(q, grads, row, size, q_at, q_row, count, sum_k, sum_row, length, columns, add)
        in_place = fits(count, length, width)
        out_at, out_row = address(out_room), columns * size
        if in_place:
            out_at, out_row = place(grad_q, query, column), q.shape[1] * size
        product(q, grads, size, row, k_at, k_row, length, out_at, out_row, count, columns, OVERWRITE)
        if not in_place:
            write_rows(out_room, grad_q, query, count, column, width)
    if not near:
        write_rows(grad_k_room, grad_k, start, length, column, width)
        write_rows(grad_v_room, grad_v, start, length, column, width)
