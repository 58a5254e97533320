"""GELU, with the bias of the layer before it (Hendrycks, Gimpel 2016).

    y = u * Phi(u),   u = x + bias;      du = dy * (Phi(u) + u * phi(u)),   dx = du,   dbias = du summed over rows

Phi is the normal distribution function, phi its density; ``approximate="tanh"`` replaces Phi by the formula of the
paper's section 2; a checkpoint trained with it says ``hidden_act: "gelu_new"``. Saved: x and bias, Phi is computed
again.
"""

from __future__ import annotations

from minitl.autograd import WRITTEN, Function, Written
from minitl.kernels.launch import Array, contiguous
from minitl.kernels.select import select
from minitl.ops.registry import register
from minitl.ops.shape import as_rows, reshape
from minitl.tensor import Tensor


def gelu(x: Tensor, bias: Tensor | None = None, *, approximate: str = "none") -> Tensor:
    """Return GELU of ``x + bias``.

    Args:
        x: (..., F).
        bias: (F,) or None.
        approximate: ``"none"`` for the exact function, ``"tanh"`` for the approximation.

    Returns:
        (..., F).

    Raises:
        ValueError: another word for ``approximate``, or a bias that does not fit.
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate is 'none' or 'tanh', not {approximate!r}")
    if bias is not None and bias.shape != x.shape[-1:]:
        raise ValueError(f"gelu: bias {bias.shape} does not fit x {x.shape}")
    inputs = (as_rows(x),) if bias is None else (as_rows(x), bias)
    y: Tensor = Gelu.apply(*inputs, approximate=approximate)
    return y if x.ndim == 2 else reshape(y, x.shape)


@register("gelu")
class Gelu(Function):
    mixes_precision = True

    def forward(self, x: Array, *bias: Array, approximate: str) -> Array:
        self.x = contiguous(x)
        self.bias = contiguous(bias[0]) if bias else None
        self.approximate = approximate
        y: Array = select("gelu", self.device).forward(self.x, self.bias, approximate=approximate)
        return y

    def backward(self, grad_y: Array) -> tuple[Array | Written, ...]:
        grad_y = contiguous(grad_y)
        kernel = select("gelu", self.device)
        results: list[Array] = []

        def write(outs: list[Array], accumulate: bool) -> None:
            places = {"grad_bias": outs[0], "accumulate": accumulate}
            results.append(kernel.backward_into(grad_y, self.x, self.bias, approximate=self.approximate, **places))

        if self.bias is not None and hasattr(kernel, "backward_into") and self.into_slots([1], write):
            return results[0], WRITTEN
        grad_x, grad_bias = kernel.backward(grad_y, self.x, self.bias, approximate=self.approximate)
        return (grad_x,) if grad_bias is None else (grad_x, grad_bias)
