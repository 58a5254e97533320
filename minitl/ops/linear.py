"""Affine map of rows: the layer ``y = x W^T + b``.

    y  = x @ weight.T + bias          (N, F) = (N, D) @ (D, F) + (F,)
    dx = dy @ weight                  (N, D) = (N, F) @ (F, D)
    dweight = dy.T @ x                (F, D) = (F, N) @ (N, D)
    dbias   = dy summed over rows     (F,)

The weight has shape (outputs, inputs), as in PyTorch and in the checkpoints. Saved: x and weight. The weight's
gradient goes straight into the optimizer's buffer where there is one (see ``Function.slot``): it is as large as the
weight. The products follow ``minitl.precision``, those of backward as forward did.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from minitl.autograd import WRITTEN, Function, Written
from minitl.kernels.launch import Array, contiguous, is_short, wide
from minitl.kernels.matmul import cublas
from minitl.kernels.select import select
from minitl.ops.registry import register
from minitl.ops.shape import as_rows, reshape
from minitl.precision import check_no_gradient, current_precision, products_in_bfloat16, short_copy
from minitl.tensor import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x @ weight.T + bias``.

    Args:
        x: (..., D).
        weight: (F, D).
        bias: (F,) or None.

    Returns:
        (..., F).

    Raises:
        ValueError: the shapes do not fit.
        TypeError: x is float64 under ``minitl.precision("bfloat16")``.
    """
    check_shapes("linear", x, weight, bias)
    rows = as_rows(x)
    parameters = (weight,) if bias is None else (weight, bias)
    y: Tensor = Linear.apply(rows, *parameters, short=rounded(x, parameters))
    return y if x.ndim == 2 else reshape(y, (*x.shape[:-1], weight.shape[0]))


def check_shapes(name: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Raise a ValueError unless x (..., D), weight (F, D) and bias (F,) fit."""
    if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"{name}: x {x.shape} does not end in the inputs of weight {weight.shape} (outputs, inputs)")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"{name}: bias {bias.shape} does not fit the outputs of weight {weight.shape}")


def rounded(x: Tensor, parameters: Sequence[Tensor]) -> list[Array]:
    """Return copies of the parameters in the dtype of x where that has 16 bits, else an empty list."""
    return [short_copy(parameter, x.dtype) for parameter in parameters] if is_short(x.dtype) else []


class AffineFunction(Function):
    """What Linear and LinearMany share: where the gradients of weights and biases go.

    Attributes:
        x: (N, D), which forward saves; bfloat16 or float16 on a GPU under these policies, and then so is what is
            returned, while the gradients of weights and biases are float32.
        bfloat16, tf32: whether forward rounded its float32 operands, see ``minitl.precision``.
    """

    x: Array
    bfloat16: bool
    tf32: bool
    mixes_precision = True

    def _save(self, x: Array) -> None:
        check_no_gradient(x.dtype, self.needs_gradient)
        self.x = contiguous(x)
        self.bfloat16 = not is_short(x.dtype) and products_in_bfloat16(x.dtype)
        self.tf32 = current_precision().compute == "tf32"

    def _product(self, a: Array, b: Array, **options: Any) -> Array:
        """Return what the kernel's ``matmul`` does, in the precision of the policy that forward met."""
        kernel = select("matmul", self.device)
        with cublas.tf32(True) if self.tf32 else nullcontext():
            product: Array = kernel.matmul(a, b, bfloat16=self.bfloat16, **options)
            return product

    def _input_gradient(self, grad_y: Array, weight: Array) -> Array | None:
        """Return ``grad_y @ weight``, added to what x has been sent from elsewhere."""
        if not self.needs_gradient[0]:
            return None
        there = self.take(0)
        return self._product(grad_y, weight, out=there, accumulate=there is not None)

    def _weight_gradient(self, index: int, grad_y: Array) -> Array | Written | None:
        """Return ``grad_y.T @ x`` for the weight that is input ``index``, or write it into its slot."""
        if not self.needs_gradient[index]:
            return None

        def write(outs: list[Array], accumulate: bool) -> None:
            self._product(grad_y, self.x, transpose_a=True, out=outs[0], accumulate=accumulate)

        if self.into_slots([index], write):
            return WRITTEN
        out = self.xp.empty((grad_y.shape[1], self.x.shape[1]), wide(grad_y.dtype))
        return self._product(grad_y, self.x, transpose_a=True, out=out)

    def _bias_gradient(self, index: int, grad_y: Array) -> Array | Written | None:
        if not self.needs_gradient[index]:
            return None
        kernel = select("matmul", self.device)
        if hasattr(kernel, "column_sums_into") and self.into_slots(
            [index], lambda outs, accumulate: kernel.column_sums_into(grad_y, outs[0], accumulate)
        ):
            return WRITTEN
        gradient: Array = kernel.column_sums(grad_y)
        return gradient


@register("linear")
class Linear(AffineFunction):
    def forward(self, x: Array, *parameters: Array, short: list[Array]) -> Array:
        self._save(x)
        self.master = parameters[0]  # what must not be overwritten before backward, also where a copy is multiplied
        self.weight, *bias = short or [contiguous(parameter) for parameter in parameters]
        return self._product(self.x, self.weight, transpose_b=True, bias=bias[0] if bias else None)

    def backward(self, grad_y: Array) -> tuple[Array | Written | None, ...]:
        grad_y = contiguous(grad_y)
        grad_x = self._input_gradient(grad_y, self.weight)
        grad_weight = self._weight_gradient(1, grad_y)
        if len(self.needs_gradient) == 2:
            return grad_x, grad_weight
        return grad_x, grad_weight, self._bias_gradient(2, grad_y)
