"""Log-softmax and negative log-likelihood in CUDA; see cross_entropy.cu."""

from __future__ import annotations

import numpy as np

from minitl.kernels.launch import (
    Array,
    array_module,
    check_activations,
    check_floats,
    check_integers,
    check_ranges,
    check_shapes,
    is_short,
    wide,
)
from minitl.kernels.program import THREADS, Program, per_short_type, per_type

WARP = 32
_FORWARD = ["cross_entropy_rows", "cross_entropy_mean"]
PROGRAM = Program(
    __file__,
    [
        *per_type(*_FORWARD, "cross_entropy_backward"),
        *per_short_type("cross_entropy_backward", forward_only=_FORWARD),
    ],
)


def forward(
    logits: Array, labels: Array, class_weights: Array | None, *, ignore_index: int, label_smoothing: float
) -> tuple[Array, Array, Array]:
    check_activations({"class_weights": class_weights}, logits=logits)
    check_integers(labels=labels)
    check_shapes(logits=(logits, "N C"), labels=(labels, "N"), class_weights=(class_weights, "C"))
    check_ranges(label_smoothing=(label_smoothing, 0, 1))
    rows, classes = logits.shape
    if classes == 0:
        raise ValueError(f"cross_entropy needs at least one class; the shape of logits is {logits.shape}")
    xp = array_module(logits)
    numbers = _labels(labels)
    dtype = wide(logits.dtype)
    row_losses, log_sum_exp = xp.empty(rows, dtype), xp.empty(rows, dtype)
    loss, total_weight = xp.empty((), dtype), xp.empty((), dtype)
    options = np.int64(classes), np.int64(ignore_index), dtype.type(label_smoothing)
    if rows:
        outputs = row_losses, log_sum_exp
        PROGRAM.launch("cross_entropy_rows", logits, rows, WARP, logits, numbers, class_weights, *outputs, *options)
    arrays = row_losses, numbers, class_weights, loss, total_weight
    PROGRAM.launch("cross_entropy_mean", logits, 1, THREADS, *arrays, np.int64(rows), np.int64(ignore_index))
    return loss, log_sum_exp, total_weight


def backward(
    grad_loss: Array,
    logits: Array,
    labels: Array,
    class_weights: Array | None,
    log_sum_exp: Array,
    total_weight: Array,
    *,
    ignore_index: int,
    label_smoothing: float,
) -> Array:
    floats = {
        "grad_loss": grad_loss,
        "logits": logits,
        "class_weights": class_weights,
        "log_sum_exp": log_sum_exp,
        "total_weight": total_weight,
    }
    if is_short(logits.dtype):
        check_activations({name: array for name, array in floats.items() if name != "logits"}, logits=logits)
    else:
        check_floats(**floats)
    check_integers(labels=labels)
    check_shapes(
        grad_loss=(grad_loss, ""),
        logits=(logits, "N C"),
        labels=(labels, "N"),
        class_weights=(class_weights, "C"),
        log_sum_exp=(log_sum_exp, "N"),
        total_weight=(total_weight, ""),
    )
    check_ranges(label_smoothing=(label_smoothing, 0, 1))
    grad_logits = array_module(logits).empty_like(logits)
    if logits.size:
        PROGRAM.launch(
            "cross_entropy_backward",
            logits,
            len(logits),
            WARP,
            *(grad_loss, logits, _labels(labels), class_weights, log_sum_exp, total_weight, grad_logits),
            *(np.int64(logits.shape[1]), np.int64(ignore_index), wide(logits.dtype).type(label_smoothing)),
        )
    return grad_logits


def _labels(labels: Array) -> Array:
    """Return labels of any width as int64; what is above its range is no class, and stays none."""
    return array_module(labels).ascontiguousarray(labels, dtype=np.int64)
