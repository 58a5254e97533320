"""AdamW over flat buffers (Loshchilov, Hutter 2019, algorithm 2), and the global gradient norm.

All parameters lie in one flat buffer; gradients and each moment have one of the same layout. A table of segments says
which part belongs to which parameter, with its learning rate, decay and step count.

    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g^2
    p = p - lr * ( (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay * p )

The decay is subtracted together with the step, in one subtraction. PyTorch multiplies by ``1 - lr * weight_decay``
first, and in float32 that factor is a multiple of 6e-8: at lr = 1e-6, weight_decay = 0.01 it is exactly 1, at lr = 3e-6
it takes twice what was asked for. After 1,000 steps (decay 0.01, weights up to 0.08, five rates from 1e-6 to 1e-4) the
form here ends within 1.3e-7 of float64, PyTorch's within 5.6e-6. ``torch_compat`` chooses PyTorch's, so that a run can
be compared with one of PyTorch step by step.

With gradient 0 there is nothing to subtract the decay with: below half a unit in the last place it is lost, either way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from minitl.kernels.adamw import Segment, Touched, check_segments, check_touched
from minitl.kernels.launch import Array, array_module, check_floats, check_ranges, check_shapes

# Elements at a time: temporaries stay in a CPU's cache. The size is fixed, so that sums are taken in one order.
CHUNK = 2**16


def _chunks(offset: int, length: int) -> Iterator[slice]:
    for start in range(offset, offset + length, CHUNK):
        yield slice(start, min(start + CHUNK, offset + length))


def global_norm(gradients: Sequence[Array], *, touched: Touched = None) -> float:
    """Return the Euclidean norm of several flat arrays (P_i,), taken as one vector.

    Squares are summed in float64: 1e20 squared overflows float32.

    Args:
        gradients: (P_i,) each.
        touched: for each None or, of a table, which of its rows may differ from 0; see ``Touched``. Not used here.
    """
    check_touched(touched, lengths=[gradient.size for gradient in gradients])
    total = 0.0
    for gradient in gradients:
        check_floats(gradient=gradient)
        check_shapes(gradient=(gradient, "P"))
        for part in _chunks(0, gradient.size):
            wide = gradient[part].astype(array_module(gradient).float64)
            total += float((wide * wide).sum())
    return math.sqrt(total)


def update(
    parameters: Array,
    gradients: Array,
    first_moment: Array,
    second_moment: Array,
    *,
    segments: Sequence[Segment],
    beta1: float,
    beta2: float,
    eps: float,
    torch_compat: bool,
    touched: Touched = None,
) -> None:
    """Update parameters and moments, all (P,), in place, segment by segment; the rest of the buffers is not touched.

    Most rows of a word table have never had a gradient. There both moments are 0, the step is 0 / (0 + eps), and only
    the decay is left. An implementation that skips the rest of the formula gives the same bits; this one computes it.

    Args:
        parameters, gradients, first_moment, second_moment: (P,) each.
        segments: which parts to update, and how.
        beta1, beta2: decay of the moments, in [0, 1).
        eps: keeps the divisor away from 0.
        torch_compat: take PyTorch's operations in PyTorch's order, see :func:`_step_of_torch`.
        touched: for each segment None or, of a table, which of its rows may differ from 0 in gradient or moments; see
            ``Touched``. Not used here.

    Raises:
        ValueError: a segment reaches out of the buffers or its step is not counted from 1, or a number out of range.
    """
    check_floats(parameters=parameters, gradients=gradients, first_moment=first_moment, second_moment=second_moment)
    moments = {"first_moment": (first_moment, "P"), "second_moment": (second_moment, "P")}
    check_shapes(parameters=(parameters, "P"), gradients=(gradients, "P"), **moments)
    check_ranges(beta1=(beta1, 0, 1), beta2=(beta2, 0, 1), eps=(eps, 0, math.inf))
    check_segments(segments, size=parameters.size)
    check_touched(touched, lengths=[segment.length for segment in segments])
    step = _step_of_torch if torch_compat else _step
    for segment in segments:
        for part in _chunks(segment.offset, segment.length):
            gradient = gradients[part]
            if segment.gradient_factor != 1:
                gradient = gradient * segment.gradient_factor
            step(parameters[part], gradient, first_moment[part], second_moment[part], segment, beta1, beta2, eps)


def _step(p: Array, g: Array, m: Array, v: Array, segment: Segment, beta1: float, beta2: float, eps: float) -> None:
    """Take the step at the top of this file, with the decay subtracted as a part of it."""
    _, _, learning_rate, weight_decay, step, _ = segment
    step_size = learning_rate / (1 - beta1**step)
    second_correction = math.sqrt(1 - beta2**step)
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    v += (1 - beta2) * g * g
    change = step_size * (m / (array_module(p).sqrt(v) / second_correction + eps))
    if weight_decay:
        change += (learning_rate * weight_decay) * p
    p -= change


def _step_of_torch(
    p: Array, g: Array, m: Array, v: Array, segment: Segment, beta1: float, beta2: float, eps: float
) -> None:
    """Take the same step with the roundings of PyTorch's plain loop (``foreach=False, fused=False``) on a CPU.

    Decay first, by a factor; the first moment by interpolation, from whichever end is nearer; the step last. PyTorch's
    compiled code rounds the product and the sum of both moments together, once. Numbers of Python become numbers of
    the arrays' dtype when they meet an array.
    """
    _, _, learning_rate, weight_decay, step, _ = segment
    rounded = p.dtype.type
    if weight_decay:
        p *= 1 - learning_rate * weight_decay
    weight = float(rounded(1 - beta1))
    if weight < 0.5:
        m[...] = _multiply_add(g - m, weight, m)
    else:
        m[...] = _multiply_add(g - m, float(rounded(weight - 1)), g)
    v *= beta2
    v[...] = _multiply_add((1 - beta2) * g, g, v)
    divisor = array_module(p).sqrt(v) / (1 - beta2**step) ** 0.5
    divisor += eps
    p += -(learning_rate / (1 - beta1**step)) * m / divisor


def _multiply_add(a: Array, b: Array | float, c: Array) -> Array:
    """Return ``a * b + c``, for float32 rounded once: products of float32 numbers are exact in float64.

    For float64 there is no wider type, and product and sum are rounded one after the other.
    """
    return (a.astype(array_module(a).float64) * b + c).astype(c.dtype)
