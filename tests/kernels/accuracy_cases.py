"""Inputs on which a fused operation is held to the accuracy of its composition (``tests/composed.py``).

Rows and columns on both sides of powers of two, primes, and one more than a block of threads; ordinary values, large
means, large logits, tails, masked rows. All inputs are float32's numbers, held in float64.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import composed
import gold
import numpy as np

from minitl import Tensor, ops
from minitl.random import Generator

SEED, CALL, RATE = 2**40 + 3, 2**33 + 5, 0.3
SHAPES = [
    *[(64, 1), (3, 31), (32, 32), (2, 33), (33, 64), (5, 127), (16, 257), (1, 1024), (2, 1025)],
    *[(127, 7), (257, 3), (1025, 2), (66, 96)],
]


@dataclass(frozen=True)
class Case:
    """One use of a fused operation.

    Attributes:
        folder: the kernel's.
        label: what is special about it.
        shape: of its rows.
        fused, composed: take a Tensor for each array.
        arrays: the operands.
        gold: takes the arrays, returns the value.
    """

    folder: str
    label: str
    shape: str
    fused: Callable[..., Tensor]
    composed: Callable[..., Tensor]
    arrays: tuple[np.ndarray, ...]
    gold: Callable[..., Any]

    def __str__(self) -> str:
        return f"{self.folder} {self.label} {self.shape}"


def _case(name: str, shape: Any, call: Callable[..., Tensor], arrays: list[np.ndarray], answer: Any) -> Case:
    """``call(module, *tensors)`` is run with the fused operations, and with the composed ones."""
    folder, _, label = name.partition(" ")
    rounded = tuple(array.astype(np.float32).astype(np.float64) for array in arrays)
    fused, plain = functools.partial(call, ops), functools.partial(call, composed)
    return Case(folder, label, str(shape), fused, plain, rounded, answer)


def generator() -> Generator:
    return Generator(SEED, CALL)


def dropped(x: np.ndarray, rate: float) -> np.ndarray:
    return gold.dropped(x, rate, SEED, CALL) if rate else x


def softmax(random: np.random.Generator) -> Iterator[Case]:
    for rows, columns in SHAPES:
        x = random.standard_normal((rows, columns))
        mask = random.random(x.shape) < 0.6
        mask[::3] = False
        for label, values, some_mask, scale, rate in (
            ("plain", x, None, 1.0, 0.0),
            ("masked rows, dropout", x, mask, 0.7, RATE),
            ("logits of 0 and 1e3", x + 1e3 * random.integers(0, 2, x.shape), None, 1.0, 0.0),
            ("logits near 1e3, masked", 1e3 + x, mask, 1.0, 0.0),
        ):

            def call(module: Any, x: Tensor, mask: Any = some_mask, scale: float = scale, rate: float = rate) -> Tensor:
                return module.softmax(x, mask, scale=scale, dropout=rate, generator=generator())

            def answer(x: np.ndarray, mask: Any = some_mask, scale: float = scale, rate: float = rate) -> np.ndarray:
                return dropped(gold.softmax(x, mask, scale), rate)

            yield _case(f"softmax {label}", (rows, columns), call, [values], answer)


def layer_norm(random: np.random.Generator) -> Iterator[Case]:
    for rows, columns in SHAPES:
        x, residual = random.standard_normal((2, rows, columns))
        weight, bias = random.uniform(0.5, 2, columns), random.standard_normal(columns)
        for label, values, rate in (
            ("plain", [x], 0.0),
            ("residual, dropout", [x, residual], RATE),
            ("mean 100", [x + 100], 0.0),
            ("mean 1e4", [x + 1e4], 0.0),
        ):

            def call(module: Any, x: Tensor, weight: Tensor, bias: Tensor, *more: Tensor, rate: float = rate) -> Tensor:
                options = {"residual": more[0] if more else None, "dropout": rate, "generator": generator()}
                return module.layer_norm(x, weight, bias, eps=1e-5, **options)

            def answer(x: Any, weight: Any, bias: Any, *more: Any, rate: float = rate) -> np.ndarray:
                return gold.layer_norm(dropped(x, rate) + (more[0] if more else 0), weight, bias, 1e-5)

            arrays = [values[0], weight, bias, *values[1:]]
            yield _case(f"layer_norm {label}", (rows, columns), call, arrays, answer)


def gelu(random: np.random.Generator) -> Iterator[Case]:
    for rows, columns in SHAPES:
        x, bias = random.standard_normal((rows, columns)), random.standard_normal(columns)
        for label, arrays, approximate in (
            ("erf", [x], "none"),
            ("erf, bias, tails", [5 * x, bias], "none"),
            ("tanh, bias", [2 * x, bias], "tanh"),
        ):

            def call(module: Any, *tensors: Tensor, approximate: str = approximate) -> Tensor:
                return module.gelu(*tensors, approximate=approximate)

            def answer(x: np.ndarray, bias: Any = 0.0, approximate: str = approximate) -> np.ndarray:
                return gold.gelu(x + bias, approximate)

            yield _case(f"gelu {label}", (rows, columns), call, arrays, answer)


def cross_entropy(random: np.random.Generator) -> Iterator[Case]:
    """Whole batches for the gradient; and for the value the losses of 64 batches, since that of one is one number."""
    whole = [(1, 3, 31), (1, 33, 64), (1, 5, 127), (1, 2, 1025), (1, 257, 3), (1, 1025, 2)]
    for batches, rows, columns in (*whole, (64, 3, 9), (64, 1, 33)):
        parts = [slice(i * rows, (i + 1) * rows) for i in range(batches)]
        logits = random.standard_normal((batches * rows, columns))
        labels = random.integers(0, columns, batches * rows)
        ignored = np.where(random.random(labels.size) < 0.4, -100, labels)
        weights = random.uniform(0.5, 2, columns).astype(np.float32)
        for label, values, some_labels, options in (
            ("plain", 3 * logits, labels, {}),
            ("ignored, weighted, smoothed", logits, ignored, {"class_weights": weights, "label_smoothing": 0.1}),
            ("logits near 1e3", 1e3 + logits, labels, {"label_smoothing": 0.1}),
            ("logits of 0 and 1e3", logits + 1e3 * random.integers(0, 2, logits.shape), ignored, {}),
        )[1 if batches > 1 else 0 : 3 if batches > 1 else 4]:

            def call(module: Any, x: Tensor, parts: Any = parts, labels: Any = some_labels, o: Any = options) -> Tensor:
                if len(parts) == 1:
                    return module.cross_entropy(x, labels, **o)
                return ops.stack([module.cross_entropy(x[part], labels[part], **o) for part in parts])

            def answer(x: Any, parts: Any = parts, labels: Any = some_labels, o: Any = options) -> np.ndarray:
                more = (o.get("class_weights"), o.get("label_smoothing", 0.0))
                losses = [gold.cross_entropy(x[part], labels[part], *more) for part in parts]
                return np.array(losses if len(parts) > 1 else losses[0])

            yield _case(f"cross_entropy {label}", (batches, rows, columns), call, [values], answer)


def dropout(random: np.random.Generator) -> Iterator[Case]:
    for shape in SHAPES:

        def call(module: Any, x: Tensor) -> Tensor:
            return module.dropout(x, RATE, generator=generator())

        arrays = [random.standard_normal(shape)]
        yield _case("dropout", shape, call, arrays, lambda x: dropped(x, RATE))


def embedding(random: np.random.Generator) -> Iterator[Case]:
    """Three tables of few rows: a row of the smallest is added up half of the time."""
    for rows, columns in SHAPES:
        sizes = (67, 2, 31)
        ids = [random.integers(0, size, rows) for size in sizes]
        for label, padding_ids in (("plain", [None] * 3), ("padding rows", [0, None, 1])):

            def call(module: Any, *tables: Tensor, ids: Any = ids, padding_ids: Any = padding_ids) -> Tensor:
                return module.embedding_sum(tables, ids, padding_ids=padding_ids)

            def answer(*tables: np.ndarray, ids: Any = ids) -> np.ndarray:
                return sum(table[index] for table, index in zip(tables, ids, strict=True))

            arrays = [random.standard_normal((size, columns)) for size in sizes]
            yield _case(f"embedding {label}", (rows, columns), call, arrays, answer)


def linear(random: np.random.Generator) -> Iterator[Case]:
    for rows, columns in SHAPES:
        for outputs, with_bias in ((67, True), (32, False)):
            arrays = [random.standard_normal(shape) for shape in ((rows, columns), (outputs, columns), (outputs,))]

            def call(module: Any, *tensors: Tensor) -> Tensor:
                return module.linear(*tensors)

            def answer(x: np.ndarray, weight: np.ndarray, bias: Any = 0.0) -> np.ndarray:
                return np.einsum("nd,fd->nf", x, weight) + bias

            yield _case(
                "matmul bias" if with_bias else "matmul",
                (rows, columns, outputs),
                call,
                arrays[: 2 + with_bias],
                answer,
            )


def near_30(rows: np.ndarray, width: int) -> np.ndarray:
    """30, but for the first column of each head, which has multiples of 1/4: products and sums of them are exact."""
    return np.where(np.arange(rows.shape[1]) % width == 0, np.round(4 * rows) / 4, 30.0)


def attention(random: np.random.Generator) -> Iterator[Case]:
    for lengths, heads, width in (
        *[([31, 1, 33], 2, 32), ([2] * 33, 1, 31), ([61, 67], 2, 7), ([17, 3, 29], 4, 8)],
        *[([5, 64, 1], 1, 64), ([1] * 17, 3, 33), ([1, 97, 3], 3, 5)],
    ):
        tokens, offsets = sum(lengths), np.cumsum([0, *lengths])
        q, k, v = random.standard_normal((3, tokens, heads * width))
        for label, arrays, rate in (
            ("plain", [q, k, v], 0.0),
            ("dropout", [q, k, v], RATE),
            ("scores of 1e3 and -1e3", [q + 30, k / 20 + 30 * random.choice([-1, 1], (tokens, 1)), v], 0.0),
            ("exact scores near 1e3", [near_30(q, width), near_30(k, width), v], 0.0),
            ("values of mean 50", [q, k, v + 50], 0.0),
        ):

            def call(module: Any, *qkv: Tensor, o: Any = offsets, heads: int = heads, rate: float = rate) -> Tensor:
                return module.attention(*qkv, o, heads=heads, dropout=rate, generator=generator())

            def answer(*qkv: np.ndarray, lengths: Any = lengths, heads: int = heads, rate: float = rate) -> np.ndarray:
                return gold.attention(*qkv, lengths, heads, rate, SEED, CALL)

            yield _case(f"attention {label}", (lengths[:3], heads, width), call, arrays, answer)


BUILDERS: dict[str, Callable[[np.random.Generator], Iterator[Case]]] = {
    "attention": attention,
    "cross_entropy": cross_entropy,
    "dropout": dropout,
    "embedding": embedding,
    "gelu": gelu,
    "layer_norm": layer_norm,
    "matmul": linear,
    "softmax": softmax,
}


def poisoned(case: Case, argument: int, value: float, random: np.random.Generator) -> Case:
    """The case with ``value`` in one element of one operand."""
    arrays = list(case.arrays)
    arrays[argument] = arrays[argument].copy()
    arrays[argument].reshape(-1)[random.integers(arrays[argument].size)] = value
    return replace(case, label=f"{case.label}, {value} in operand {argument}", arrays=tuple(arrays))


def cases(folder: str) -> Iterator[Case]:
    return BUILDERS[folder](np.random.default_rng(0))
