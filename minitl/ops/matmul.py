"""Matrix product, batched like NumPy's: ``(..., M, K) @ (..., K, N) -> (..., M, N)``, batch axes broadcast.

y = a @ b:   da = dy @ b^T,   db = a^T @ dy,   each summed over the batch axes along which it was repeated.

A vector takes part as NumPy's matmul has it: a one-dimensional ``a`` is one row, a one-dimensional ``b`` one column,
and the axis that was added is taken away again. This is the primitive of the general shapes; ``linear`` is the fused
op of the layers.
"""

from __future__ import annotations

from minitl.autograd import Function
from minitl.kernels.launch import Array
from minitl.ops.operands import pair, unbroadcast
from minitl.ops.registry import register
from minitl.ops.shape import reshape
from minitl.tensor import Operand, Tensor


def matmul(a: Operand, b: Operand) -> Tensor:
    """Return the matrix product of ``a`` and ``b``.

    Raises:
        ValueError: an operand has no dimensions, or the inner lengths differ.
    """
    left, right = pair(a, b)
    if left.ndim == 0 or right.ndim == 0:
        raise ValueError("matmul needs at least one dimension on both sides; use * for numbers")
    if left.shape[-1] != right.shape[-2 if right.ndim > 1 else 0]:
        raise ValueError(f"matmul: the inner lengths differ, {left.shape} @ {right.shape}")
    rows = left if left.ndim > 1 else reshape(left, (1, left.shape[0]))
    columns = right if right.ndim > 1 else reshape(right, (right.shape[0], 1))
    product: Tensor = MatMul.apply(rows, columns)
    shape = (
        product.shape[:-2]
        + (product.shape[-2:-1] if left.ndim > 1 else ())
        + (product.shape[-1:] if right.ndim > 1 else ())
    )
    return product if product.shape == shape else reshape(product, shape)


@register("matmul")
class MatMul(Function):
    def forward(self, a: Array, b: Array) -> Array:
        self.a, self.b = a, b
        return self.xp.matmul(a, b)

    def backward(self, grad_y: Array) -> tuple[Array | None, Array | None]:
        a_needs, b_needs = self.needs_gradient
        grad_a = unbroadcast(self.xp.matmul(grad_y, self.b.swapaxes(-1, -2)), self.a.shape) if a_needs else None
        grad_b = unbroadcast(self.xp.matmul(self.a.swapaxes(-1, -2), grad_y), self.b.shape) if b_needs else None
        return grad_a, grad_b
