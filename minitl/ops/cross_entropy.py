"""Cross-entropy of logits and integer labels: log-softmax, negative log-likelihood, mean over the scored rows; fused.

    loss    = sum_n w_n * (logsumexp(x_n) - x_n[label_n]) / sum_n w_n       over rows whose label is not ignore_index
    dx[n,c] = dloss * w_n / sum w * (softmax(x_n)[c] - [c == label_n])       0 in ignored rows

``w_n`` is the class weight of the row's label, 1 without class weights; with label smoothing the target is spread, see
``kernels/cross_entropy/reference.py``. Saved: logits, labels and each row's logsumexp. With no scored row the loss is
exactly 0 with zero gradient; PyTorch gives NaN.
"""

from __future__ import annotations

import numpy as np

from minitl.autograd import Function
from minitl.device import move
from minitl.kernels.launch import Array, contiguous, on_gpu
from minitl.kernels.select import select
from minitl.ops.operands import check_ids
from minitl.ops.registry import register
from minitl.tensor import Tensor

#: The label of a row that is not scored, as in PyTorch and transformers.
IGNORE_INDEX = -100


def cross_entropy(
    logits: Tensor,
    labels: Tensor | Array,
    *,
    ignore_index: int = IGNORE_INDEX,
    class_weights: Tensor | np.ndarray | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the mean cross-entropy over the rows whose label is not ``ignore_index``, a tensor without dimensions.

    Args:
        logits: (N, C).
        labels: (N,) integers in [0, C), or ``ignore_index``. An array on a GPU is trusted: to look at it would stop it.
        class_weights: (C,) non-negative, or None for all 1.
        label_smoothing: share of each target that is spread evenly over the classes, in [0, 1).

    Raises:
        TypeError: labels that are no integers.
        ValueError: shapes that do not fit, or a label out of range; the message names its value and position.
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"cross_entropy: label_smoothing must be in [0, 1), got {label_smoothing}")
    targets, weights = checked_targets("cross_entropy", logits, labels, ignore_index, class_weights)
    loss: Tensor = CrossEntropy.apply(
        logits, labels=targets, class_weights=weights, ignore_index=ignore_index, label_smoothing=label_smoothing
    )
    return loss


def checked_targets(
    name: str,
    logits: Tensor,
    labels: Tensor | Array,
    ignore_index: int,
    class_weights: Tensor | np.ndarray | None,
) -> tuple[Array, Array | None]:
    """Return the labels, as a copy, and the class weights where the logits are and of their dtype.

    Raises:
        TypeError, ValueError: what :func:`cross_entropy` refuses, in the name of the operation ``name``. Class weights
            on a GPU are trusted to be no less than 0, since to look at them would stop it.
    """
    # a copy: backward needs them as they are now
    given = labels if on_gpu(labels) else np.array(labels.numpy() if isinstance(labels, Tensor) else labels)
    if given.dtype.kind not in "iu":
        raise TypeError(f"{name}: labels must be integers, not {given.dtype}")
    if logits.ndim != 2 or logits.shape[1] == 0 or given.shape != logits.shape[:1]:
        raise ValueError(f"{name} needs logits (N, C) and labels (N,), got {logits.shape} and {given.shape}")
    if not on_gpu(given):
        check_ids(np.where(given == ignore_index, 0, given), logits.shape[1], name="label")
    if class_weights is None:
        return given, None
    if isinstance(class_weights, Tensor) and class_weights.requires_grad:
        raise ValueError(f"{name}: class_weights get no gradient; pass class_weights.detach()")
    source = class_weights.array if isinstance(class_weights, Tensor) else np.asarray(class_weights)
    if source.shape != logits.shape[1:]:
        raise ValueError(f"{name}: class_weights {source.shape} for {logits.shape[1]} classes")
    if not on_gpu(source) and not bool((source >= 0).all()):
        raise ValueError(f"{name}: class_weights must not be negative")
    return given, move(source, logits.device).astype(logits.dtype)


@register("cross_entropy")
class CrossEntropy(Function):
    def forward(
        self,
        logits: Array,
        *,
        labels: Array,
        class_weights: Array | None,
        ignore_index: int,
        label_smoothing: float,
    ) -> Array:
        self.logits = contiguous(logits)
        self.labels = move(labels, self.device)
        self.class_weights = class_weights
        self.options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
        loss: Array
        loss, self.log_sum_exp, self.total_weight = select("cross_entropy", self.device).forward(
            self.logits, self.labels, self.class_weights, **self.options
        )
        return loss

    def backward(self, grad_loss: Array) -> Array:
        grad_logits: Array = select("cross_entropy", self.device).backward(
            contiguous(grad_loss),
            self.logits,
            self.labels,
            self.class_weights,
            self.log_sum_exp,
            self.total_weight,
            **self.options,
        )
        return grad_logits
