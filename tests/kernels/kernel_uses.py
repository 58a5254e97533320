"""Calls of every kernel function, for rows and columns of any number: arguments, their shapes, what is written.

The arguments are by name, float arrays in float64; what backward gets from forward is the gold's. The letters of the
shapes say which lengths must agree; they are written here a second time, apart from the kernels' own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from kernel_gold import GOLD, Arrays, attention_forward, cross_entropy_forward, layer_norm_forward, softmax_forward

from minitl.kernels.adamw import Segment
from minitl.kernels.launch import is_array

Random = np.random.Generator
#: An argument that must be refused: which change of the arguments, the error's type, words of its message.
Wrong = tuple[dict[str, Any], type[Exception], str]
# block numbers pass 2^32 and 2^33 on the way, and both halves of the key are in use
GENERATOR = {"seed": 2**40 + 3, "call": 2**33 + 5}
FIRST = 2**34 - 6
DROPOUT = {"dropout": 0.3, **GENERATOR}


@dataclass(frozen=True)
class Use:
    """One call of a kernel function.

    Attributes:
        name: folder and function, as in "gelu.forward".
        arguments: by name; in float64.
        shapes: the letters of each array, "" for no dimensions; an array that is not here may have any shape.
        writes: names of the arrays that are written in place.
        wrong: changes that must be refused, beside those that follow from dtypes, shapes and names of options.
        checks_options: whether options out of range are refused.
        spoken: what messages call an array, where that is not its own name.
    """

    name: str
    arguments: dict[str, Any]
    shapes: dict[str, str] = field(default_factory=dict)
    writes: tuple[str, ...] = ()
    wrong: tuple[Wrong, ...] = ()
    checks_options: bool = True
    spoken: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={_brief(value)}' for name, value in self.arguments.items())})"

    @cached_property
    def gold(self) -> Arrays:
        return self.gold_of(self.arguments)

    def gold_of(self, arguments: dict[str, Any]) -> Arrays:
        with np.errstate(all="ignore"):
            return GOLD[self.name](**arguments)

    def floats(self) -> Iterator[tuple[str, np.ndarray]]:
        """The float arrays, with their names in the kernels' messages."""
        return ((name, array) for name, array in arrays_of(self.arguments) if array.dtype.kind == "f")


def arrays_of(arguments: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every array among the arguments, also of lists, with its name in the kernels' messages."""
    for name, value in arguments.items():
        if isinstance(value, list):
            yield from ((f"{name}[{i}]", item) for i, item in enumerate(value) if is_array(item))
        elif is_array(value):
            yield name, value


def changed(arguments: dict[str, Any], place: str, change: Callable[[Any], Any]) -> dict[str, Any]:
    """The arguments with one array, named as in :func:`arrays_of`, replaced; the others are the same objects."""
    name, _, number = place.rstrip("]").partition("[")
    if not number:
        return {**arguments, name: change(arguments[name])}
    items = list(arguments[name])
    items[int(number)] = change(items[int(number)])
    return {**arguments, name: items}


def _brief(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_brief, value))}]"
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else repr(value)


def normal(random: Random, *shape: int) -> np.ndarray:
    return np.asarray(random.standard_normal(shape))


def positive(random: Random, *shape: int) -> np.ndarray:
    return np.asarray(random.uniform(0.5, 2, shape))


def gelu(rows: int, columns: int, random: Random) -> Iterator[Use]:
    x, grad_y, bias = 2 * normal(random, rows, columns), normal(random, rows, columns), normal(random, columns)
    shapes = {"x": "N F", "grad_y": "N F", "bias": "F"}
    for approximate, some_bias in (("none", None), ("none", bias), ("tanh", bias)):
        arguments = {"x": x, "bias": some_bias, "approximate": approximate}
        yield Use("gelu.forward", arguments, shapes)
        yield Use("gelu.backward", {"grad_y": grad_y, **arguments}, shapes)


def softmax(rows: int, columns: int, random: Random) -> Iterator[Use]:
    x, grad_y = normal(random, rows, columns), normal(random, rows, columns)
    mask = np.asarray(random.random((rows, columns)) < 0.6)
    mask[:1] = False  # a row that keeps nothing
    empty: Wrong = ({"x": x[:, :0], "mask": mask[:, :0]}, ValueError, "at least one column")
    for some_mask, options in ((None, {"scale": 1.0}), (mask, {"scale": 0.7, **DROPOUT, "first": FIRST})):
        arguments = {"x": x, "mask": some_mask, **options}
        p = softmax_forward(**arguments)[1]
        changes = (empty,) if some_mask is not None else ()
        yield Use("softmax.forward", arguments, {"x": "N C", "mask": "N C"}, wrong=changes)
        gradient = {"grad_y": grad_y, "probabilities": p, **options}
        yield Use("softmax.backward", gradient, {"grad_y": "N C", "probabilities": "N C"})


def layer_norm(rows: int, columns: int, random: Random) -> Iterator[Use]:
    x, residual, grad_y = (normal(random, rows, columns) for _ in range(3))
    weight, bias = positive(random, columns), normal(random, columns)
    shapes = {"x": "N D", "residual": "N D", "weight": "D", "bias": "D", "rows": "N"}
    saved = {"grad_y": "N D", "total": "N D", "weight": "D", "mean": "N", "rstd": "N", "rows": "N"}
    nothing = {"x": x[:, :0], "residual": None, "weight": weight[:0], "bias": bias[:0]}
    empty: Wrong = (nothing, ValueError, "at least one column")
    numbered = {**DROPOUT, "rows": some_rows(rows, columns, random)}
    for some_residual, options in ((None, {}), (residual, DROPOUT), (residual, numbered)):
        arguments = {"x": x, "residual": some_residual, "weight": weight, "bias": bias, "eps": 0.1, **options}
        _, total, mean, rstd = layer_norm_forward(**arguments)
        wrong = wrong_rows(rows, columns) if "rows" in options else ()
        yield Use("layer_norm.forward", arguments, shapes, wrong=wrong or (empty,))
        gradient = {"grad_y": grad_y, "total": total, "weight": weight, "mean": mean, "rstd": rstd, **options}
        yield Use("layer_norm.backward", gradient, saved, wrong=wrong)


def cross_entropy(rows: int, columns: int, random: Random) -> Iterator[Use]:
    logits, labels, grad_loss = normal(random, rows, columns), random.integers(0, columns, rows), np.array(1.5)
    ignored = labels.copy()
    ignored[::3] = -7
    shapes = {"logits": "N C", "labels": "N", "class_weights": "C"}
    saved = {"log_sum_exp": "N", "grad_loss": "", "total_weight": ""}
    empty: Wrong = ({"logits": logits[:, :0], "class_weights": None}, ValueError, "at least one class")
    for some_labels, weights, smoothing in ((labels, None, 0.0), (ignored, positive(random, columns), 0.1)):
        arguments = {"logits": logits, "labels": some_labels, "class_weights": weights}
        options = {"ignore_index": -7, "label_smoothing": smoothing}
        _, log_sum_exp, total = cross_entropy_forward(**arguments, **options)
        yield Use("cross_entropy.forward", {**arguments, **options}, shapes, wrong=(empty,))
        gradient = {"grad_loss": grad_loss, **arguments, "log_sum_exp": log_sum_exp, "total_weight": total, **options}
        yield Use("cross_entropy.backward", gradient, {**shapes, **saved})


def some_rows(rows: int, columns: int, random: Random) -> np.ndarray:
    """Numbers of so many rows of a larger array, in no order; among them large ones, of elements beyond 2^32."""
    numbers = random.permutation(2 * rows + 1)[:rows]
    numbers[::3] += 2**33 // max(columns, 1)
    return numbers


def wrong_rows(rows: int, columns: int) -> tuple[Wrong, ...]:
    """Row numbers below 0, and whose elements' numbers are beyond 2^64."""
    beyond = np.full(rows, min(2**64 // max(columns, 1), 2**64 - 1), dtype=np.uint64)
    return (
        ({"rows": np.full(rows, -1)}, ValueError, "rows must be in"),
        ({"rows": beyond}, ValueError, "rows must be in"),
    )


def dropout(rows: int, columns: int, random: Random) -> Iterator[Use]:
    x = normal(random, rows, columns)
    options = {"probability": 0.3, **GENERATOR, "first": FIRST}
    for probability in (0.0, 0.3):
        yield Use("dropout.forward", {"x": x, **options, "probability": probability})
        yield Use("dropout.backward", {"grad_y": x, **options, "probability": probability})
    numbers = {"probability": 0.3, **GENERATOR, "rows": some_rows(rows, columns, random)}
    wrong = wrong_rows(rows, columns)
    both: Wrong = ({"first": 5}, ValueError, "first must be 0 beside rows")
    yield Use("dropout.forward", {"x": x, **numbers}, {"x": "N D", "rows": "N"}, wrong=(*wrong, both))
    yield Use("dropout.backward", {"grad_y": x, **numbers}, {"grad_y": "N D", "rows": "N"}, wrong=(*wrong, both))
    yield Use("dropout.keep_mask", {"shape": x.shape, **options, "xp": np})


def philox(rows: int, columns: int, random: Random) -> Iterator[Use]:
    yield Use("philox.words", {"count": rows * columns, **GENERATOR, "first": FIRST, "xp": np}, checks_options=False)


def embedding(rows: int, columns: int, random: Random) -> Iterator[Use]:
    """Three tables of few rows, so that most are used many times."""
    tables = [normal(random, count, columns) for count in (5, 2, 3)]
    indices = [random.integers(0, len(table), rows) for table in tables]
    shapes = {f"tables[{i}]": f"V{i} D" for i in range(3)} | {f"indices[{i}]": "T" for i in range(3)}
    uneven: Wrong = ({"indices": indices[:2]}, ValueError, "got 3 and 2")
    none: Wrong = ({"tables": [], "indices": []}, ValueError, "got 0 and 0")
    yield Use("embedding.forward", {"tables": tables, "indices": indices}, shapes, wrong=(uneven, none))
    yield Use("embedding.forward", {"tables": tables[:1], "indices": indices[:1]}, shapes)
    for padding_index in (None, 1):
        arguments = {"grad_y": normal(random, rows, columns), "index": indices[0], "out": tables[0]}
        letters = {"grad_y": "T D", "index": "T", "out": "V D"}
        yield Use("embedding.backward", {**arguments, "padding_index": padding_index}, letters, ("out",))


def matmul(rows: int, inner: int, random: Random) -> Iterator[Use]:
    columns = 5
    a, b, out = normal(random, rows, inner), normal(random, inner, columns), normal(random, rows, columns)
    bias = normal(random, columns)
    yield Use("matmul.column_sums", {"x": a}, {"x": "N D"})
    for transpose_a in (False, True):
        for transpose_b in (False, True):
            arguments = {
                "a": np.ascontiguousarray(a.T) if transpose_a else a,
                "b": np.ascontiguousarray(b.T) if transpose_b else b,
                "transpose_a": transpose_a,
                "transpose_b": transpose_b,
            }
            shapes = {"a": "K M" if transpose_a else "M K", "b": "N K" if transpose_b else "K N", "out": "M N"}
            nowhere: Wrong = ({"accumulate": True, "bias": None}, ValueError, "out is None")
            both: Wrong = ({"accumulate": True, "out": out}, ValueError, "accumulate and bias do not combine")
            wide: Wrong = ({"bfloat16": True}, TypeError, "bfloat16 rounds float32 operands")
            shapes["bias"] = "N"
            for some_bias in (None, bias):
                fresh = {**arguments, "out": None, "accumulate": False, "bias": some_bias}
                yield Use("matmul.matmul", fresh, shapes, wrong=(nowhere, wide) if some_bias is None else (both, wide))
            for accumulate in (False, True):
                yield Use("matmul.matmul", {**arguments, "out": out, "accumulate": accumulate}, shapes, ("out",))


def attention(rows: int, columns: int, random: Random) -> Iterator[Use]:
    """One sentence and one head; then sentences of 1, a third and the rest, and three heads."""
    for heads in (1, 3):
        q, k, v, grad_context = (normal(random, rows, heads * columns) for _ in range(4))
        cuts = [0] if heads == 1 else [0, 1, max(1, rows // 3)]
        cu_seqlens = np.unique([cut for cut in (*cuts, rows) if cut <= rows])
        options = {"heads": heads, "scale": 1 / math.sqrt(max(columns, 1)), **(DROPOUT if heads > 1 else {})}
        arguments = {"q": q, "k": k, "v": v, "cu_seqlens": cu_seqlens, **options}
        shapes = {"q": "T D", "k": "T D", "v": "T D", "cu_seqlens": "B+1"}
        offsets = ([], [1, rows], [0, rows - 1], [0, rows + 1], [0, rows, rows], [0, 2, 1, rows])
        wrong: tuple[Wrong, ...] = (
            *(({"cu_seqlens": np.array(o, dtype=np.int64)}, ValueError, "cu_seqlens must grow") for o in offsets),
            ({"cu_seqlens": cu_seqlens.tolist()}, TypeError, "cu_seqlens must be a NumPy array"),
        )
        yield Use("attention.forward", arguments, shapes, wrong=wrong)
        gradient = {"grad_context": grad_context, **arguments, "log_sum_exp": attention_forward(**arguments)[1]}
        more = {"grad_context": "T D", "log_sum_exp": "H T"}
        yield Use("attention.backward", gradient, {**shapes, **more}, wrong=wrong)


def adamw(rows: int, columns: int, random: Random) -> Iterator[Use]:
    """A buffer of rows * columns, of which two segments are updated; or all, as a table of which every fifth row rests.

    (Of ``SMALL`` none does, so that NaN may be put anywhere.)
    """
    size = rows * columns
    spoken = {"gradients[0]": "gradient"}
    yield Use("adamw.global_norm", {"gradients": [normal(random, size)]}, {"gradients[0]": "P"}, spoken=spoken)
    buffers = {name: normal(random, size) for name in ("parameters", "gradients", "first_moment")}
    buffers["second_moment"] = positive(random, size)
    touched = np.arange(rows) % 5 != 4
    resting = {name: (touched[:, None] * array.reshape(rows, columns)).reshape(-1) for name, array in buffers.items()}
    table = {**resting, "parameters": buffers["parameters"]}
    of_table = {"gradients": [table["gradients"]], "touched": [touched]}
    masks: tuple[Wrong, ...] = (
        ({"touched": []}, ValueError, "touched must have a mask, or None, for each of"),
        ({"touched": [np.ones((2, 2), bool)]}, ValueError, "touched[0] must be (R,)"),
        ({"touched": [np.ones(size + 1, bool)]}, ValueError, "touched[0] must be (R,)"),
        ({"touched": [np.ones(0, bool)]}, ValueError, "touched[0] must be (R,)"),
    )
    yield Use("adamw.global_norm", of_table, {"gradients[0]": "P"}, (), masks if size else (), spoken=spoken)
    segments = [Segment(0, rows, 0.1, 0.01, 3), Segment(rows, size - rows, 0.2, 0.0, 1, 0.7)] if columns else []
    options = {"beta1": 0.9, "beta2": 0.99, "eps": 1e-8}
    writes = ("parameters", "first_moment", "second_moment")
    shapes = dict.fromkeys(buffers, "P")
    too_long: Wrong = ({"segments": [Segment(1, size, 0.1, 0.01, 3)]}, ValueError, "segments[0] is")
    for torch_compat in (False, True):
        some = {**options, "torch_compat": torch_compat}
        yield Use("adamw.update", {**buffers, "segments": segments, **some}, shapes, writes, (too_long,))
        whole = {"segments": [Segment(0, size, 0.1, 0.01, 3)], "touched": [touched]}
        yield Use("adamw.update", {**table, **whole, **some}, shapes, writes, masks if size else ())


#: Makes the calls of a folder's functions.
BUILDERS: dict[str, Callable[[int, int, Random], Iterator[Use]]] = {
    "adamw": adamw,
    "attention": attention,
    "cross_entropy": cross_entropy,
    "dropout": dropout,
    "embedding": embedding,
    "gelu": gelu,
    "layer_norm": layer_norm,
    "matmul": matmul,
    "philox": philox,
    "softmax": softmax,
}
#: A building block of philox.words, with tests of its own (test_philox.py).
WITHOUT_USE = {"philox.philox4x32"}
#: Rows and columns where every element can be tried.
SMALL = (4, 3)
#: A sentence of 9 tokens has 81 weights, two of its three heads have more than 8 bits can count.
LONG_SENTENCES = (13, 3)
#: Nothing, one, both sides of a warp of 32, primes, and more columns or rows than a block of threads has.
SIZES = [(0, 3), (3, 0), (1, 1), (31, 1), (32, 33), (33, 32), (1, 257), (127, 31), (2, 1025), (1025, 2)]
NEEDS_A_COLUMN = {"softmax", "layer_norm", "cross_entropy"}


def sizes(folder: str) -> list[tuple[int, int]]:
    """The rows and columns to try. Attention's work grows with the square of the rows, and most of it is the gold's."""
    if folder == "attention":
        return [(0, 3), (3, 0), (1, 1), (31, 1), (32, 33), (33, 32), (67, 5), (3, 257)]
    return [size for size in SIZES if size[1] or folder not in NEEDS_A_COLUMN]


@lru_cache(maxsize=128)
def uses(folder: str, rows: int, columns: int, seed: int = 0) -> list[Use]:
    """The calls of a folder's functions, for so many rows and columns.

    All floats are float32's, so that one gold serves both dtypes.
    """

    def rounded(array: np.ndarray) -> np.ndarray:
        return array.astype(np.float32).astype(np.float64) if array.dtype == np.float64 else array

    with np.errstate(all="ignore"):
        made = list(BUILDERS[folder](rows, columns, np.random.default_rng([seed, rows, columns])))
    for use in made:
        for place, _ in list(arrays_of(use.arguments)):
            use.arguments.update(changed(use.arguments, place, rounded))
    return made
