"""Cases of the fused operations; see ``op_cases.py``. Shapes are the (N, D) of their rows."""

from __future__ import annotations

from typing import Any

import gold
import numpy as np
from op_cases import PRIMITIVE, Case, Random, Shape, Variant, nonzero, normal, positive

from minitl import ops
from minitl.random import Generator

SEED, CALL, RATE = 2**40 + 3, 2**33 + 5, 0.3  # both halves of key and counter are in use


def generator() -> Generator:
    return Generator(SEED, CALL)


def linear_case(with_bias: bool) -> Any:
    def build(shape: Shape, random: Random) -> Case:
        arrays = (normal(random, shape), normal(random, (3, shape[-1])), normal(random, (3,)))
        return Case(ops.linear, arrays[: 2 + with_bias], lambda x, w, b=0: np.einsum("...d,fd->...f", x, w) + b)

    return build


def linear_many_case(used: tuple[int, ...]) -> Any:
    """Three maps to 3, 1 and 2 columns; the outputs that are used, side by side."""

    def build(shape: Shape, random: Random) -> Case:
        widths = (3, 1, 2)
        arrays = [normal(random, shape), *(normal(random, (width, shape[-1])) for width in widths)]
        arrays += [normal(random, (width,)) for width in widths]

        def call(x: Any, *maps: Any) -> Any:
            ys = ops.linear_many(x, maps[:3], maps[3:])
            return ops.concatenate([ys[i] for i in used], axis=-1)

        def answer(x: Any, *maps: Any) -> Any:
            return np.concatenate([np.einsum("...d,fd->...f", x, maps[i]) + maps[3 + i] for i in used], axis=-1)

        return Case(call, tuple(arrays), answer)

    return build


def linear_joined_case(shape: Shape, random: Random) -> Case:
    """Maps to 3, 1 and 2 columns, side by side."""
    widths = (3, 1, 2)
    arrays = [normal(random, shape), *(normal(random, (width, shape[-1])) for width in widths)]
    arrays += [normal(random, (width,)) for width in widths]
    return Case(
        lambda x, *maps: ops.linear_joined(x, maps[:3], maps[3:]),
        tuple(arrays),
        lambda x, *maps: np.einsum("...d,fd->...f", x, np.concatenate(maps[:3])) + np.concatenate(maps[3:]),
    )


def gelu_case(approximate: str, with_bias: bool) -> Any:
    def build(shape: Shape, random: Random) -> Case:
        arrays = (2 * normal(random, shape), normal(random, shape[-1:]))
        return Case(
            lambda *inputs: ops.gelu(*inputs, approximate=approximate),
            arrays[: 1 + with_bias],
            lambda x, bias=0: gold.gelu(x + bias, approximate),
        )

    return build


def some_rows(count: int, random: Random) -> np.ndarray:
    """Numbers of so many rows of a larger array, in no order."""
    return random.permutation(2 * count + 1)[:count]


def dropped_rows(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The dropout of an array that has ``x`` as these rows, its other rows left out again."""
    whole = np.zeros((max(rows.tolist(), default=-1) + 1, x.shape[1]))
    whole[rows] = x
    return gold.dropped(whole, RATE, SEED, CALL)[rows]


def layer_norm_case(with_residual: bool, rate: float, with_rows: bool = False) -> Any:
    def build(shape: Shape, random: Random) -> Case:
        rows = some_rows(shape[0], random) if with_rows else None
        # rows of nearly equal numbers have no slope that finite differences could find: spread them
        ramp = np.linspace(-2, 2, shape[-1])
        arrays = [normal(random, shape) + ramp, nonzero(random, shape[-1:]), normal(random, shape[-1:])]
        arrays += [normal(random, shape) + ramp] if with_residual else []

        options = {"dropout": rate, "rows": rows}

        def call(x: Any, weight: Any, bias: Any, residual: Any = None) -> Any:
            return ops.layer_norm(x, weight, bias, eps=0.1, residual=residual, **options, generator=generator())

        def answer(x: Any, weight: Any, bias: Any, residual: Any = 0) -> Any:
            dropped = x if not rate else gold.dropped(x, rate, SEED, CALL) if rows is None else dropped_rows(x, rows)
            total = dropped + residual
            return gold.layer_norm(total.reshape(-1, shape[-1]), weight, bias, 0.1).reshape(shape)

        return Case(call, tuple(arrays), answer)

    return build


def softmax_case(masked: bool, scale: float, rate: float) -> Any:
    def build(shape: Shape, random: Random) -> Case:
        mask = None
        if masked:
            mask = np.asarray(random.random(shape) < 0.6)
            mask[(0,) * (len(shape) - 1)] = False  # a row that keeps nothing
            if shape == (2, 3):
                mask = mask[:, :1]  # and one that is broadcast

        def answer(x: np.ndarray) -> np.ndarray:
            p = gold.softmax(x, mask, scale)
            return gold.dropped(p, rate, SEED, CALL) if rate else p

        return Case(
            lambda x: ops.softmax(x, mask, scale=scale, dropout=rate, generator=generator()),
            (normal(random, shape),),
            answer,
        )

    return build


def dropout_case(shape: Shape, random: Random) -> Case:
    return Case(
        lambda x: ops.dropout(x, RATE, generator=generator()),
        (normal(random, shape),),
        lambda x: gold.dropped(x, RATE, SEED, CALL),
    )


def dropout_rows_case(shape: Shape, random: Random) -> Case:
    rows = some_rows(shape[0], random)
    return Case(
        lambda x: ops.dropout(x, RATE, generator=generator(), rows=rows),
        (normal(random, shape),),
        lambda x: dropped_rows(x, rows),
    )


def cross_entropy_case(ignored: bool, weighted: bool, smoothing: float) -> Any:
    def build(shape: Shape, random: Random) -> Case:
        labels = random.integers(0, shape[1], shape[0])
        if ignored:
            labels[::2] = -100
        weights = positive(random, shape[1:]) if weighted else None
        return Case(
            lambda x: ops.cross_entropy(x, labels, class_weights=weights, label_smoothing=smoothing),
            (normal(random, shape),),
            lambda x: gold.cross_entropy(x, labels, weights, smoothing),
        )

    return build


def focal_loss_case(gamma: float, weighted: bool) -> Any:
    def build(shape: Shape, random: Random) -> Case:
        labels = random.integers(0, shape[1], shape[0])
        labels[::3] = -100
        weights = positive(random, shape[1:]) if weighted else None
        return Case(
            lambda x: ops.focal_loss(x, labels, gamma=gamma, class_weights=weights),
            (normal(random, shape),),
            lambda x: gold.focal_loss(x, labels, gamma, weights),
        )

    return build


def embedding_case(shape: Shape, random: Random) -> Case:
    """Ids of any shape choose rows of a table with 4 rows; repeats are certain from 5 ids on."""
    ids = random.integers(0, 4, shape)
    return Case(lambda table: ops.embedding(table, ids), (normal(random, (4, 3)),), lambda table: table[ids])


def embedding_sum_case(shape: Shape, random: Random) -> Case:
    ids = [random.integers(0, rows, shape[0]) for rows in (4, 2, 3)]
    tables = tuple(normal(random, (rows, shape[1])) for rows in (4, 2, 3))
    return Case(
        lambda *tables: ops.embedding_sum(tables, ids, padding_ids=[None, None, None]),
        tables,
        lambda a, b, c: a[ids[0]] + b[ids[1]] + c[ids[2]],
    )


def some_offsets(tokens: int, random: Random) -> np.ndarray:
    """Offsets of sentences of any lengths in so many tokens."""
    cuts = np.flatnonzero(random.random(tokens - 1) < 0.4) + 1
    return np.concatenate([[0], cuts, [tokens]])


def attention_case(heads: int, rate: float) -> Any:
    def build(shape: Shape, random: Random) -> Case:
        tokens, width = shape[0], shape[1] * heads
        offsets = some_offsets(tokens, random)
        lengths = np.diff(offsets).tolist()
        return Case(
            lambda q, k, v: ops.attention(q, k, v, offsets, heads=heads, dropout=rate, generator=generator()),
            tuple(normal(random, (tokens, width)) for _ in range(3)),
            lambda q, k, v: gold.attention(q, k, v, lengths, heads, rate, SEED, CALL),
        )

    return build


def attention_joined_case(heads: int, rate: float) -> Any:
    def build(shape: Shape, random: Random) -> Case:
        tokens, width = shape[0], shape[1] * heads
        offsets = some_offsets(tokens, random)
        lengths = np.diff(offsets).tolist()
        return Case(
            lambda qkv: ops.attention_joined(qkv, offsets, heads=heads, dropout=rate, generator=generator()),
            (normal(random, (tokens, 3 * width)),),
            lambda qkv: gold.attention(*np.split(qkv, 3, axis=1), lengths, heads, rate, SEED, CALL),
        )

    return build


FUSED: list[Variant] = [
    Variant("linear", "bias", linear_case(True), (1, 3)),
    Variant("linear", "no-bias", linear_case(False), (1, 3)),
    Variant("linear_many", "all", linear_many_case((0, 1, 2)), (1, 3)),
    Variant("linear_many", "twice-and-never", linear_many_case((2, 0, 2)), (1, 3)),
    Variant("linear_joined", "all", linear_joined_case, (1, 3)),
    Variant("gelu", "erf", gelu_case("none", False), (1, 3)),
    Variant("gelu", "erf-bias", gelu_case("none", True), (1, 3)),
    Variant("gelu", "tanh-bias", gelu_case("tanh", True), (1, 3)),
    Variant("layer_norm", "plain", layer_norm_case(False, 0.0), (1, 3), "rows"),
    Variant("layer_norm", "residual", layer_norm_case(True, 0.0), (1, 3), "rows"),
    Variant("layer_norm", "residual-dropout", layer_norm_case(True, RATE), (1, 3), "rows"),
    Variant("layer_norm", "residual-dropout-rows", layer_norm_case(True, RATE, True), (2, 2), "rows"),
    Variant("softmax", "plain", softmax_case(False, 1.0, 0.0), (1, 3), "rows"),
    Variant("softmax", "mask-scale", softmax_case(True, 0.7, 0.0), (1, 3), "none"),
    Variant("softmax", "mask-scale-dropout", softmax_case(True, 0.7, RATE), (1, 3), "none"),
    Variant("dropout", "all", dropout_case),
    Variant("dropout", "rows", dropout_rows_case, (2, 2)),
    Variant("cross_entropy", "plain", cross_entropy_case(False, False, 0.0), (2, 2), "rows"),
    Variant("cross_entropy", "ignored", cross_entropy_case(True, False, 0.0), (2, 2), "rows"),
    Variant("cross_entropy", "ignored-weighted-smoothed", cross_entropy_case(True, True, 0.1), (2, 2), "rows"),
    Variant("focal_loss", "2", focal_loss_case(2.0, False), (2, 2), "rows"),
    Variant("focal_loss", "half-weighted", focal_loss_case(0.5, True), (2, 2), "rows"),
    Variant("focal_loss", "0", focal_loss_case(0.0, True), (2, 2), "rows"),
    Variant("embedding", "any-shape", embedding_case),
    Variant("embedding", "sum", embedding_sum_case, (2, 2)),
    Variant("attention", "one-head", attention_case(1, 0.0), (2, 2), "none"),
    Variant("attention", "two-heads-dropout", attention_case(2, RATE), (2, 2), "none"),
    Variant("attention_joined", "one-head", attention_joined_case(1, 0.0), (2, 2), "none"),
    Variant("attention_joined", "two-heads-dropout", attention_joined_case(2, RATE), (2, 2), "none"),
]

VARIANTS: list[Variant] = PRIMITIVE + FUSED
