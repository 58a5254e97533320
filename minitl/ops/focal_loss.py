"""Focal loss: cross-entropy that cares less about rows which are right already (Lin et al. 2017, section 3).

    log p_n = x_n[label_n] - logsumexp(x_n)                                 p_n is the probability of the right class
    loss    = sum_n w_n * (1 - p_n)^g * -log p_n / sum_n w_n                over rows whose label is not ignore_index
    dx[n,c] = dloss * w_n / sum w * s_n * ([c == label_n] - softmax(x_n)[c])
              with s_n = g p_n (1 - p_n)^(g - 1) log p_n - (1 - p_n)^g, the derivative by log p_n

``w_n`` is the class weight of the row's label; with g = 0 this is cross-entropy. Saved: the softmax, ``s_n`` and the
row's share ``w_n / sum w``. ``1 - p`` is computed as ``-expm1(log p)``: for a confident row the subtraction would
leave nothing of it. With no scored row the loss is exactly 0 with zero gradient.
"""

from __future__ import annotations

import math

import numpy as np

from minitl.autograd import Function
from minitl.device import move
from minitl.kernels.launch import Array
from minitl.ops.cross_entropy import IGNORE_INDEX, checked_targets
from minitl.ops.registry import register
from minitl.tensor import Tensor


def focal_loss(
    logits: Tensor,
    labels: Tensor | Array,
    *,
    gamma: float,
    ignore_index: int = IGNORE_INDEX,
    class_weights: Tensor | np.ndarray | None = None,
) -> Tensor:
    """Return the mean focal loss over the rows whose label is not ``ignore_index``, a tensor without dimensions.

    Args:
        logits: (N, C).
        labels: (N,) integers in [0, C), or ``ignore_index``. An array on a GPU is trusted.
        gamma: how little right rows count: 0 for cross-entropy, 2 in the paper.
        class_weights: (C,) non-negative, or None for all 1.

    Raises:
        TypeError, ValueError: as :func:`minitl.ops.cross_entropy`; and a ``gamma`` that is negative or not finite.
    """
    if not 0 <= gamma < math.inf:
        raise ValueError(f"focal_loss: gamma must be finite and at least 0, got {gamma}")
    if logits.dtype.kind != "f":
        raise TypeError(f"focal_loss needs logits of a float dtype, not {logits.dtype}")
    targets, weights = checked_targets("focal_loss", logits, labels, ignore_index, class_weights)
    loss: Tensor = FocalLoss.apply(
        logits, labels=targets, class_weights=weights, ignore_index=ignore_index, gamma=gamma
    )
    return loss


@register("focal_loss")
class FocalLoss(Function):
    def forward(
        self, logits: Array, *, labels: Array, class_weights: Array | None, ignore_index: int, gamma: float
    ) -> Array:
        xp = self.xp
        labels = move(labels, self.device)
        scored = labels != ignore_index
        self.targets = xp.where(scored, labels, 0)[:, None]  # (N, 1)
        weights = scored if class_weights is None else xp.where(scored, class_weights[self.targets[:, 0]], 0)
        total = weights.sum()
        self.shares = weights.astype(logits.dtype) / xp.where(total == 0, 1, total).astype(logits.dtype)

        below = logits - logits.max(axis=1, keepdims=True)
        log_probabilities = below - xp.log(xp.exp(below).sum(axis=1, keepdims=True))
        self.probabilities = xp.exp(log_probabilities)
        log_p = xp.take_along_axis(log_probabilities, self.targets, axis=1)[:, 0]
        p, wrong = xp.exp(log_p), -xp.expm1(log_p)
        modulation = wrong**gamma
        slope = modulation / xp.where(wrong == 0, 1, wrong)  # (1 - p)^(g - 1); where p is 1, log p is 0 anyway
        self.slopes = gamma * p * slope * log_p - modulation
        return xp.where(self.shares == 0, 0, self.shares * modulation * -log_p).sum()

    def backward(self, grad_loss: Array) -> Array:
        row = self.xp.where(self.shares == 0, 0, grad_loss * self.shares * self.slopes)[:, None]  # (N, 1)
        grad_logits: Array = -row * self.probabilities
        chosen = self.xp.arange(grad_logits.shape[1]) == self.targets  # (N, C)
        return grad_logits + self.xp.where(chosen, row, 0)
