"""AdamW over flat buffers (Loshchilov, Hutter 2019, algorithm 2), and the global gradient norm.

All parameters lie in one flat buffer; gradients and each moment have one of the same layout. A table of segments says
which part belongs to which parameter, with its learning rate, decay and step count.

    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g^2
    p = p - lr * ( (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay * p )

The decay is subtracted together with the step, in one subtraction: multiplying by ``1 - lr * weight_decay`` first, as
PyTorch does, rounds that factor in float32, and at lr = 1e-6, weight_decay = 0.01 it rounds to exactly 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from minitl.kernels.adamw import Segment
from minitl.kernels.launch import Array, array_module, check_floats

# Elements at a time: temporaries stay in a CPU's cache. The size is fixed, so that sums are taken in one order.
CHUNK = 2**16


def _chunks(offset: int, length: int) -> Iterator[slice]:
    for start in range(offset, offset + length, CHUNK):
        yield slice(start, min(start + CHUNK, offset + length))


def global_norm(gradients: Sequence[Array]) -> float:
    """Return the Euclidean norm of several flat arrays (P_i,), taken as one vector.

    Squares are summed in float64: 1e20 squared overflows float32.
    """
    total = 0.0
    for gradient in gradients:
        check_floats(gradient=gradient)
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
) -> None:
    """Update parameters and moments, all (P,), in place, segment by segment; the rest of the buffers is not touched."""
    check_floats(parameters=parameters, gradients=gradients, first_moment=first_moment, second_moment=second_moment)
    xp = array_module(parameters)
    for offset, length, learning_rate, weight_decay, step in segments:
        step_size = learning_rate / (1 - beta1**step)
        second_correction = math.sqrt(1 - beta2**step)
        for part in _chunks(offset, length):
            p, g, m, v = parameters[part], gradients[part], first_moment[part], second_moment[part]
            m *= beta1
            m += (1 - beta1) * g
            v *= beta2
            v += (1 - beta2) * g * g
            change = step_size * (m / (xp.sqrt(v) / second_correction + eps))
            if weight_decay:
                change += (learning_rate * weight_decay) * p
            p -= change
