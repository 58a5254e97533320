"""Several affine maps of one x, as attention's queries, keys and values are.

    y_i  = x @ weight_i.T + bias_i               (N, F_i), see linear.py
    dx   = sum over i of dy_i @ weight_i         (N, D)
    dweight_i, dbias_i                           as in linear.py

As operations of their own, each map would make an array dx, and the tape would add them up; here the matrix product
adds to the first. Saved: x and the weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from minitl.autograd import Written
from minitl.kernels.launch import Array, contiguous
from minitl.ops.linear import AffineFunction, check_shapes, rounded
from minitl.ops.registry import register
from minitl.ops.shape import as_rows, reshape
from minitl.tensor import Tensor


def linear_many(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return ``x @ weight.T + bias`` for each of several weights with their biases.

    Args:
        x: (..., D).
        weights: at least one, each (F, D) with its own F.
        biases: as many, each (F,).

    Returns:
        For each weight (..., F).

    Raises:
        ValueError: the shapes or numbers of arguments do not fit.
        TypeError: x is float64 under ``minitl.precision("bfloat16")``.
    """
    if not weights or len(weights) != len(biases):
        raise ValueError(f"linear_many takes a bias for each of its weights, got {len(weights)} and {len(biases)}")
    for weight, bias in zip(weights, biases, strict=True):
        check_shapes("linear_many", x, weight, bias)
    parameters = [*weights, *biases]
    ys: tuple[Tensor, ...] = LinearMany.apply(as_rows(x), *parameters, short=rounded(x, parameters))
    return ys if x.ndim == 2 else tuple(reshape(y, (*x.shape[:-1], y.shape[1])) for y in ys)


@register("linear_many")
class LinearMany(AffineFunction):
    def forward(self, x: Array, *parameters: Array, short: list[Array]) -> tuple[Array, ...]:
        count = len(parameters) // 2
        self._save(x)
        self.masters = parameters[:count]  # see linear.py
        used = short or [contiguous(parameter) for parameter in parameters]
        self.weights, biases = used[:count], used[count:]
        return tuple(
            self._product(self.x, weight, transpose_b=True, bias=bias)
            for weight, bias in zip(self.weights, biases, strict=True)
        )

    def backward(self, *grad_ys: Array) -> tuple[Array | Written | None, ...]:
        grad_ys = tuple(contiguous(grad_y) for grad_y in grad_ys)  # zeros, where nobody used an output
        grad_x: Array | None = None
        if self.needs_gradient[0]:
            for grad_y, weight in zip(grad_ys, self.weights, strict=True):
                started = grad_x is not None
                grad_x = self._product(grad_y, weight, out=grad_x, accumulate=started)
        first_bias = 1 + len(self.weights)
        grad_weights = [self._weight_gradient(1 + i, grad_y) for i, grad_y in enumerate(grad_ys)]
        grad_biases = [self._bias_gradient(first_bias + i, grad_y) for i, grad_y in enumerate(grad_ys)]
        return grad_x, *grad_weights, *grad_biases
