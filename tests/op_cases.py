"""Cases of every differentiable operation: how to call it, at which point, and the answer of plain NumPy.

One table for all checks: gradients against finite differences, values against NumPy, other memory layouts, the strict
device. A new operation without an entry fails ``tests/ops/test_op_gradients.py``. Fused operations are in
``fused_cases.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import gold
import numpy as np

from minitl import Tensor, ops

Shape = tuple[int, ...]
Random: TypeAlias = Any  # np.random.Generator, or what stands in for it in drawn.py


@dataclass(frozen=True)
class Case:
    """One use of an operation.

    Attributes:
        call: takes one Tensor for each array.
        arrays: float64, away from kinks and poles.
        gold: takes the arrays, returns what ``call`` should.
    """

    call: Callable[..., Tensor]
    arrays: tuple[np.ndarray, ...]
    gold: Callable[..., Any]


@dataclass(frozen=True)
class Variant:
    """A family of cases of one operation, one for each shape.

    Attributes:
        op: name in ``ops.OPS``.
        label: what is special about it.
        build: makes the case.
        dimensions: fewest and most dimensions of the shape.
        zeros: which lengths may be 0: "any", "rows" (all but the last) or "none".
    """

    op: str
    label: str
    build: Callable[[Shape, Random], Case]
    dimensions: tuple[int, int] = (0, 3)
    zeros: str = "any"

    def takes(self, shape: Shape) -> bool:
        if not self.dimensions[0] <= len(shape) <= self.dimensions[1]:
            return False
        return 0 not in shape or self.zeros == "any" or (self.zeros == "rows" and shape[-1] != 0)

    def __str__(self) -> str:
        return f"{self.op}-{self.label}"


# No dimensions, 1, both sides of a warp of 32, primes, and nothing at all; at least 25 of them suit each operation
SHAPES: list[Shape] = [
    *[(), (1,), (2,), (3,), (7,), (31,), (32,), (33,)],
    *[(1, 1), (1, 2), (1, 3), (1, 7), (1, 31), (1, 33), (2, 1), (2, 2), (2, 3), (2, 5), (2, 7), (2, 31)],
    *[(3, 1), (3, 2), (3, 3), (3, 4), (3, 5), (4, 2), (4, 3), (5, 1), (5, 2), (5, 3), (7, 1), (7, 2), (8, 3), (32, 1)],
    *[(33, 2), (1, 1, 1), (1, 2, 3), (2, 1, 3), (2, 2, 2), (2, 3, 1), (2, 3, 2), (3, 1, 2), (3, 2, 3)],
    *[(0,), (0, 1), (0, 3), (2, 0), (0, 0), (2, 0, 3), (0, 2, 2), (2, 3, 0)],
]


def normal(random: Random, shape: Shape) -> np.ndarray:
    return np.asarray(random.standard_normal(shape))


def positive(random: Random, shape: Shape) -> np.ndarray:
    """Numbers in [0.5, 2): poles at 0 are far, and powers stay small."""
    return np.asarray(random.uniform(0.5, 2, shape))


def nonzero(random: Random, shape: Shape) -> np.ndarray:
    """Numbers of both signs, further from 0 than the finite differences reach."""
    return np.asarray(positive(random, shape) * random.choice([-1.0, 1.0], shape))


def distinct(random: Random, shape: Shape, count: int = 1) -> list[np.ndarray]:
    """``count`` arrays without ties within or between them: 0.1 apart, where finite differences reach 0.002."""
    size = math.prod(shape)
    values = random.permutation(count * size) * 0.1 - 1
    return [values[i * size : (i + 1) * size].reshape(shape) for i in range(count)]


def unary(call: Callable[[Tensor], Tensor], answer: Callable[[np.ndarray], Any], draw: Any = normal) -> Any:
    return lambda shape, random: Case(call, (draw(random, shape),), answer)


def binary(call: Any, answer: Any, second: Any = normal, repeat: str = "no") -> Any:
    """Two operands; ``repeat`` says which is broadcast: "no", "right" along the first axes, "left" along the last."""

    def build(shape: Shape, random: Random) -> Case:
        left = (*shape[:-1], 1) if repeat == "left" else shape
        right = shape[1:] if repeat == "right" else shape
        return Case(call, (normal(random, left), second(random, right)), answer)

    return build


def distinct_pair(call: Any, answer: Any) -> Any:
    return lambda shape, random: Case(call, tuple(distinct(random, shape, 2)), answer)


def where_case(shape: Shape, random: Random) -> Case:
    condition = np.asarray(random.random(shape) < 0.5)
    arrays = (normal(random, shape), normal(random, shape[1:]))
    return Case(lambda a, b: ops.where(condition, a, b), arrays, lambda a, b: np.where(condition, a, b))


def reduction(name: str) -> list[Variant]:
    call, answer = getattr(ops, name), getattr(np, name)
    zeros = "any" if name == "sum" else "none"

    def draw(random: Random, shape: Shape) -> np.ndarray:
        return distinct(random, shape)[0]

    def build(axis: Any, keepdims: bool) -> Any:
        return unary(lambda x: call(x, axis, keepdims), lambda x: answer(x, axis=axis, keepdims=keepdims), draw)

    return [
        Variant(name, "all", build(None, False), zeros=zeros),
        Variant(name, "first", build(0, False), (1, 3), zeros),
        Variant(name, "last-kept", build(-1, True), (1, 3), zeros),
        Variant(name, "two-axes", build((-1, 0), False), (2, 3), zeros),
    ]


def indexed(index: Callable[[Shape, Random], Any]) -> Any:
    def build(shape: Shape, random: Random) -> Case:
        chosen = index(shape, random)
        return Case(lambda x: x[chosen], (normal(random, shape),), lambda x: x[chosen])

    return build


def repeated_rows(shape: Shape, random: Random) -> np.ndarray:
    return random.integers(-shape[0], shape[0], 2 * shape[0] + 1)


def product(left: Any, right: Any) -> Any:
    """A matrix product whose operands' shapes are made from (M, K)."""

    def build(shape: Shape, random: Random) -> Case:
        return Case(ops.matmul, (normal(random, left(*shape)), normal(random, right(*shape))), np.matmul)

    return build


def scatter_case(shape: Shape, random: Random) -> Case:
    rows, count = random.permutation(2 * shape[0] + 1)[: shape[0]], 2 * shape[0] + 1

    def answer(x: np.ndarray) -> np.ndarray:
        wanted = np.zeros((count, *shape[1:]))
        for i, row in enumerate(rows):
            wanted[row] = x[i]
        return wanted

    return Case(lambda x: ops.scatter_rows(x, rows, count), (normal(random, shape),), answer)


def take_case(shape: Shape, random: Random) -> Case:
    rows = random.permutation(shape[0])[: (shape[0] + 1) // 2]
    return Case(
        lambda x: ops.take_rows(x, rows),
        (normal(random, shape),),
        lambda x: np.array([*map(x.__getitem__, rows)]).reshape(len(rows), *shape[1:]),
    )


def joined(call: Any, answer: Any, axis: int, count: int = 3) -> Any:
    def build(shape: Shape, random: Random) -> Case:
        arrays = tuple(normal(random, shape) for _ in range(count))
        return Case(lambda *xs: call(xs, axis), arrays, lambda *xs: answer(xs, axis=axis))

    return build


def uneven(shape: Shape, random: Random) -> Case:
    arrays = (normal(random, shape), normal(random, (shape[0] + 2, *shape[1:])))
    return Case(lambda a, b: ops.concatenate([a, b]), arrays, lambda a, b: np.concatenate([a, b]))


PRIMITIVE: list[Variant] = [
    Variant("add", "same", binary(ops.add, np.add)),
    Variant("add", "repeat-right", binary(ops.add, np.add, repeat="right"), (1, 3)),
    Variant("add", "repeat-left", binary(lambda a, b: a + b, np.add, repeat="left"), (1, 3)),
    Variant("add", "number", unary(lambda x: 2 + x + 0.5, lambda x: x + 2.5)),
    Variant("subtract", "same", binary(ops.subtract, np.subtract)),
    Variant("subtract", "repeat-right", binary(lambda a, b: a - b, np.subtract, repeat="right"), (1, 3)),
    Variant("subtract", "number", unary(lambda x: 1 - (x - 0.5), lambda x: 1.5 - x)),
    Variant("multiply", "same", binary(ops.multiply, np.multiply)),
    Variant("multiply", "repeat-right", binary(lambda a, b: a * b, np.multiply, repeat="right"), (1, 3)),
    Variant("multiply", "repeat-left", binary(ops.multiply, np.multiply, repeat="left"), (1, 3)),
    Variant("multiply", "number", unary(lambda x: 3 * x * 0.5, lambda x: 1.5 * x)),
    Variant("multiply", "itself", unary(lambda x: x * x, np.square)),
    Variant("divide", "same", binary(ops.divide, np.divide, nonzero)),
    Variant("divide", "repeat-right", binary(lambda a, b: a / b, np.divide, nonzero, "right"), (1, 3)),
    Variant("divide", "number", unary(lambda x: 1 / x / 4, lambda x: 0.25 / x, nonzero)),
    Variant("negative", "all", unary(lambda x: -x, np.negative)),
    Variant("absolute", "all", unary(abs, np.abs, nonzero)),
    Variant("power", "square", unary(lambda x: x**2, np.square)),
    Variant("power", "negative", unary(lambda x: x**-1.5, lambda x: 1 / (x * np.sqrt(x)), positive)),
    Variant("power", "zero", unary(lambda x: x**0, np.ones_like)),
    Variant("exp", "all", unary(ops.exp, lambda x: gold.each(math.exp, x))),
    Variant("log", "all", unary(ops.log, lambda x: gold.each(math.log, x), positive)),
    Variant("sqrt", "all", unary(ops.sqrt, lambda x: gold.each(math.sqrt, x), positive)),
    Variant("tanh", "all", unary(ops.tanh, lambda x: gold.each(math.tanh, x))),
    Variant("erf", "all", unary(ops.erf, lambda x: gold.each(math.erf, x))),
    Variant("relu", "all", unary(ops.relu, lambda x: gold.each(lambda v: max(v, 0.0), x), nonzero)),
    Variant("where", "repeat-right", where_case, (1, 3)),
    Variant("maximum", "same", distinct_pair(ops.maximum, np.maximum)),
    Variant("minimum", "same", distinct_pair(ops.minimum, np.minimum)),
    *(variant for name in ("sum", "mean", "max", "min") for variant in reduction(name)),
    Variant("getitem", "integer", indexed(lambda shape, random: -1), (1, 3), "none"),
    Variant("getitem", "slices", indexed(lambda shape, random: (slice(1, None, 2), ..., None)), (1, 3)),
    Variant("getitem", "backwards", indexed(lambda shape, random: (..., slice(None, None, -2))), (1, 3)),
    Variant("getitem", "repeated", indexed(repeated_rows), (1, 3), "none"),
    Variant("getitem", "mask", indexed(lambda shape, random: random.random(shape) < 0.5), (1, 3)),
    Variant("getitem", "mixed", indexed(lambda shape, random: (slice(None), [0, -1, 0])), (2, 3), "none"),
    Variant("take_rows", "all", take_case, (1, 3)),
    Variant("scatter_rows", "all", scatter_case, (1, 3)),
    Variant("reshape", "flat", unary(lambda x: x.reshape(x.size), np.ravel)),
    Variant("reshape", "minus-one", unary(lambda x: x.reshape(-1, 1), lambda x: x.reshape(-1, 1))),
    Variant("transpose", "reversed", unary(lambda x: x.T, np.transpose)),
    Variant("transpose", "cycle", unary(lambda x: x.transpose(2, 0, -2), lambda x: x.transpose(2, 0, 1)), (3, 3)),
    Variant(
        "broadcast_to",
        "new-axis",
        unary(lambda x: ops.broadcast_to(x, (3, *x.shape)), lambda x: np.stack([x] * 3)),
    ),
    Variant(
        "broadcast_to",
        "stretched",
        unary(
            lambda x: ops.broadcast_to(x[:, :1], (2, *x.shape)),
            lambda x: np.stack([np.repeat(x[:, :1], x.shape[1], 1)] * 2),
        ),
        (2, 2),
        "rows",
    ),
    Variant("concatenate", "uneven", uneven, (1, 3)),
    Variant("concatenate", "last", joined(ops.concatenate, np.concatenate, -1), (1, 3)),
    Variant("concatenate", "stack", joined(ops.stack, np.stack, -1)),
    Variant("astype", "same", unary(lambda x: ops.astype(x, "float64"), np.array)),
    Variant("matmul", "matrices", product(lambda m, k: (m, k), lambda m, k: (k, 3)), (2, 2)),
    Variant("matmul", "batches", product(lambda m, k: (2, 1, m, k), lambda m, k: (3, k, 2)), (2, 2)),
    Variant("matmul", "row", product(lambda m, k: (k,), lambda m, k: (2, k, 3)), (2, 2)),
    Variant("matmul", "column", product(lambda m, k: (2, m, k), lambda m, k: (k,)), (2, 2)),
    Variant("matmul", "vectors", product(lambda k: (k,), lambda k: (k,)), (1, 1)),
]
