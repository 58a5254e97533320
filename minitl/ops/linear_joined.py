"""Several affine maps of one x as one: their outputs stand side by side.

    y  = x @ [weight_1; weight_2; ...].T + [bias_1, bias_2, ...]        (N, F_1 + F_2 + ...), see linear.py
    dx = dy @ [weight_1; weight_2; ...]                                 (N, D)

One large product keeps a GPU busier than several small ones. Parameters that lie one behind the other in memory, as
those of one optimizer do where they were listed so, are used where they lie, and so are the places of their gradients;
others are copied. Saved: x and the joined weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minitl.autograd import WRITTEN, Written
from minitl.kernels.launch import Array, address, array_module, contiguous, on_gpu, wide
from minitl.kernels.select import select
from minitl.ops.linear import AffineFunction, check_shapes, rounded
from minitl.ops.registry import register
from minitl.ops.shape import as_rows, reshape
from minitl.tensor import Tensor


def linear_joined(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """Return ``x @ weight.T + bias`` for several weights with their biases, side by side.

    Args:
        x: (..., D).
        weights: at least one, each (F, D) with its own F.
        biases: as many, each (F,).

    Returns:
        (..., sum of all F).

    Raises:
        ValueError: the shapes or numbers of arguments do not fit.
        TypeError: x is float64 under ``minitl.precision("bfloat16")``.
    """
    if not weights or len(weights) != len(biases):
        raise ValueError(f"linear_joined takes a bias for each of its weights, got {len(weights)} and {len(biases)}")
    for weight, bias in zip(weights, biases, strict=True):
        check_shapes("linear_joined", x, weight, bias)
    parameters = [*weights, *biases]
    y: Tensor = LinearJoined.apply(as_rows(x), *parameters, short=rounded(x, parameters))
    return y if x.ndim == 2 else reshape(y, (*x.shape[:-1], y.shape[1]))


@register("linear_joined")
class LinearJoined(AffineFunction):
    def forward(self, x: Array, *parameters: Array, short: list[Array]) -> Array:
        count = len(parameters) // 2
        self._save(x)
        self.masters = parameters[:count]  # see linear.py
        self.outputs = [len(weight) for weight in self.masters]
        used = short or list(parameters)
        self.weight = joined(used[:count])
        return self._product(self.x, self.weight, transpose_b=True, bias=joined(used[count:]))

    def backward(self, grad_y: Array) -> tuple[Array | Written | None, ...]:
        count = len(self.outputs)
        grad_y = contiguous(grad_y)
        kernel = select("matmul", self.device)

        def weight_gradients(out: Array, accumulate: bool) -> None:
            self._product(grad_y, self.x, transpose_a=True, out=out, accumulate=accumulate)

        def bias_gradients(out: Array, accumulate: bool) -> None:
            if accumulate:
                out += kernel.column_sums(grad_y)
            else:
                out[...] = kernel.column_sums(grad_y)

        dtype, total = wide(grad_y.dtype), grad_y.shape[1]
        into = getattr(kernel, "column_sums_into", None)
        return (
            self._input_gradient(grad_y, self.weight),
            *self._gradients(range(1, 1 + count), weight_gradients, (total, self.x.shape[1]), dtype),
            *self._gradients(
                range(1 + count, 1 + 2 * count),
                bias_gradients if into is None else lambda out, accumulate: into(grad_y, out, accumulate),
                (total,),
                dtype,
            ),
        )

    def _gradients(
        self, indices: range, write: Callable[[Array, bool], None], shape: tuple[int, ...], dtype: Any
    ) -> list[Array | Written | None]:
        """Return the gradients of these inputs, or write them into their slots where these lie one behind the other.

        Args:
            indices: of inputs that are joined.
            write: puts the joined gradient into an array of ``shape``, or adds it to what is there.
            shape, dtype: of the joined gradient.
        """
        needed = [self.needs_gradient[index] for index in indices]
        if not any(needed):
            return [None] * len(needed)
        slots = [slot for slot in map(self.slot, indices) if slot is not None]
        beside = len(slots) == len(needed) and adjacent([slot.array for slot in slots])
        if beside and self.into_slots(indices, lambda outs, accumulate: write(joined(outs), accumulate)):
            return [WRITTEN] * len(needed)
        out = self.xp.empty(shape, dtype)
        write(out, False)
        parts = self.xp.split(out, np.cumsum(self.outputs)[:-1].tolist())
        return [part if need else None for part, need in zip(parts, needed, strict=True)]


def adjacent(arrays: Sequence[Array]) -> bool:
    """Tell whether the memory of contiguous arrays lies one behind the other, in pieces of one larger array."""
    if not all(array.flags.c_contiguous and array.base is not None for array in arrays):
        return False
    ends = [address(array) + array.nbytes for array in arrays]
    return all(address(array) == end for array, end in zip(arrays[1:], ends, strict=False))


def joined(arrays: Sequence[Array]) -> Array:
    """Return arrays of equal rows one behind the other: a view where their memory lies so, else a copy."""
    first = arrays[0]
    xp = array_module(first)
    if not adjacent(arrays):
        return contiguous(xp.concatenate(arrays))
    shape = (sum(len(array) for array in arrays), *first.shape[1:])
    if on_gpu(first):
        view: Array = xp.ndarray(shape, first.dtype, first.data)
        return view
    assert math.prod(shape) * first.itemsize == sum(array.nbytes for array in arrays)
    return np.lib.stride_tricks.as_strided(first, shape, first.strides)
