"""Bias and GELU: ``y = u * Phi(u)`` with ``u = x + bias``, Phi the normal distribution function (Hendrycks, Gimpel
2016).

``approximate="none"``: ``Phi(u) = erfc(-u / sqrt(2)) / 2``; the tail is computed as such, since ``(1 + erf) / 2`` loses
everything below u = -5.6 in float32.
``approximate="tanh"``: ``Phi(u) ~ (1 + tanh(sqrt(2 / pi) (u + 0.044715 u^3))) / 2``, which differs by up to 4.7e-4; a
checkpoint's ``hidden_act`` says which one it was trained with.
"""

from __future__ import annotations

import math

from minitl.kernels.launch import Array, array_module, check_choice, check_floats, check_shapes
from minitl.kernels.special import normal_distribution

VARIANTS = ("none", "tanh")
CUBIC = 0.044715
SQRT_2_OVER_PI = math.sqrt(2 / math.pi)


def _near(u: Array) -> Array:
    """Beyond +-20 the tanh is +-1 to the last bit, but a power of ``u`` may be too large for a float."""
    return array_module(u).clip(u, -20.0, 20.0)


def _tanh(u: Array) -> Array:
    near = _near(u)
    return array_module(u).tanh(SQRT_2_OVER_PI * near * (1 + CUBIC * near * near))


def forward(x: Array, bias: Array | None, *, approximate: str) -> Array:
    """Return GELU of ``x + bias``.

    Args:
        x: (N, F).
        bias: (F,), or None for no bias.
        approximate: ``"none"`` (erf) or ``"tanh"``.
    """
    check_floats(x=x, bias=bias)
    check_shapes(x=(x, "N F"), bias=(bias, "F"))
    check_choice("approximate", approximate, VARIANTS)
    u = x if bias is None else x + bias
    if approximate == "tanh":
        return 0.5 * u * (1 + _tanh(u))
    return u * normal_distribution(u)[0]


def backward(grad_y: Array, x: Array, bias: Array | None, *, approximate: str) -> tuple[Array, Array | None]:
    """Return ``(grad_x, grad_bias)``; ``dy/du = Phi(u) + u * Phi'(u)``, and ``Phi'`` is the normal density."""
    check_floats(grad_y=grad_y, x=x, bias=bias)
    check_shapes(grad_y=(grad_y, "N F"), x=(x, "N F"), bias=(bias, "F"))
    check_choice("approximate", approximate, VARIANTS)
    u = x if bias is None else x + bias
    if approximate == "tanh":
        near = _near(u)
        tanh = _tanh(u)
        inner_slope = SQRT_2_OVER_PI * (1 + 3 * CUBIC * near * near)
        slope = 0.5 * (1 + tanh) + 0.5 * u * (1 - tanh * tanh) * inner_slope
    else:
        distribution, density = normal_distribution(u)
        slope = distribution + u * density
    grad_x = grad_y * slope
    grad_bias = None if bias is None else grad_x.sum(axis=0)
    return grad_x, grad_bias
