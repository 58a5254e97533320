"""Affine map of rows: the layer ``y = x W^T + b``.

    y  = x @ weight.T + bias          (N, F) = (N, D) @ (D, F) + (F,)
    dx = dy @ weight                  (N, D) = (N, F) @ (F, D)
    dweight = dy.T @ x                (F, D) = (F, N) @ (N, D)
    dbias   = dy summed over rows     (F,)

The weight has shape (outputs, inputs), as in PyTorch and in the checkpoints. Saved: x and weight. The weight's
gradient goes straight into the optimizer's buffer where there is one (see ``Function.slot``): it is as large as the
weight.
"""

from __future__ import annotations

from minitl.autograd import WRITTEN, Function, Written
from minitl.kernels.launch import Array, contiguous
from minitl.kernels.select import select
from minitl.ops.registry import register
from minitl.ops.shape import as_rows, reshape
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
    """
    if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"linear: x {x.shape} does not end in the inputs of weight {weight.shape} (outputs, inputs)")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"linear: bias {bias.shape} does not fit the outputs of weight {weight.shape}")
    rows = as_rows(x)
    y: Tensor = Linear.apply(rows, weight) if bias is None else Linear.apply(rows, weight, bias)
    return y if x.ndim == 2 else reshape(y, (*x.shape[:-1], weight.shape[0]))


@register("linear")
class Linear(Function):
    def forward(self, x: Array, weight: Array, *bias: Array) -> Array:
        kernel = select("matmul", self.device)
        self.x = contiguous(x)
        self.weight = contiguous(weight)
        y: Array = kernel.matmul(self.x, self.weight, transpose_b=True)
        if bias:
            y += bias[0]
        return y

    def backward(self, grad_y: Array) -> tuple[Array | Written | None, ...]:
        kernel = select("matmul", self.device)
        grad_y = contiguous(grad_y)
        x_needs, weight_needs, *bias_needs = self.needs_gradient
        grad_x = kernel.matmul(grad_y, self.weight) if x_needs else None
        grad_weight = self._weight_gradient(grad_y) if weight_needs else None
        if not bias_needs:
            return grad_x, grad_weight
        return grad_x, grad_weight, (grad_y.sum(axis=0) if bias_needs[0] else None)

    def _weight_gradient(self, grad_y: Array) -> Array | Written:
        kernel = select("matmul", self.device)
        slot = self.slot(1)
        if slot is None:
            gradient: Array = kernel.matmul(grad_y, self.x, transpose_a=True)
            return gradient
        kernel.matmul(grad_y, self.x, transpose_a=True, out=slot.array, accumulate=slot.written)
        slot.mark_written()
        return WRITTEN
