"""Which loss a token classifier is trained with: cross-entropy, weighted by class, smoothed, or focal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from minitl import ops
from minitl.kernels.launch import Array
from minitl.tensor import Tensor


@dataclass(frozen=True)
class LossOptions:
    """How the labels of a batch are scored.

    Args:
        class_weights: (C,) how much a label of each class counts, or None for all alike.
        label_smoothing: share of each target that is spread evenly over the classes, in [0, 1) (Szegedy et al. 2016).
        focal_gamma: 0 for cross-entropy; more lets labels count less that are predicted well (Lin et al. 2017).

    Raises:
        ValueError: a value out of its range, or smoothing and focal loss together, which nobody has defined.
    """

    class_weights: np.ndarray | Tensor | None = None
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and below 1, got {self.label_smoothing}")
        if not 0 <= self.focal_gamma < math.inf:
            raise ValueError(f"focal_gamma must be finite and at least 0, got {self.focal_gamma}")
        if self.label_smoothing and self.focal_gamma:
            raise ValueError("label smoothing and focal loss exclude each other: set one of them to 0")

    def loss(self, logits: Tensor, labels: Array) -> Tensor:
        """Return the mean loss of logits (N, C) with labels (N,) over the scored rows, weighted by class."""
        if self.focal_gamma:
            return ops.focal_loss(logits, labels, gamma=self.focal_gamma, class_weights=self.class_weights)
        return ops.cross_entropy(logits, labels, class_weights=self.class_weights, label_smoothing=self.label_smoothing)

    def weight(self, labels: np.ndarray) -> float:
        """Return what the mean was divided by: the weights of the scored labels (N,), or their number without weights.

        A step over several batches weighs the loss of each by its share of this.
        """
        scored = labels[labels != ops.IGNORE_INDEX]
        if self.class_weights is None:
            return float(len(scored))
        weights = self.class_weights.numpy() if isinstance(self.class_weights, Tensor) else self.class_weights
        return float(np.asarray(weights, dtype=np.float64)[scored].sum())

    def on(self, device: str, dtype: str) -> LossOptions:
        """Return the same options with the class weights in a device's memory, so that a step need not move them."""
        if self.class_weights is None or device == "cpu":
            return self
        weights = self.class_weights if isinstance(self.class_weights, Tensor) else Tensor(self.class_weights)
        return replace(self, class_weights=Tensor(weights.numpy().astype(dtype)).to(device))


CROSS_ENTROPY = LossOptions()


def class_weights(
    choice: str | Mapping[str, float], names: Sequence[str], labels: Sequence[np.ndarray]
) -> np.ndarray | None:
    """Return the weight of each class (C,), float64, or None for all alike.

    Args:
        choice: ``"none"``; ``"balanced"``, by which every class that occurs has the same weight in total (the number of
            labels over the number of classes that occur and the class's own count); or label -> weight, 1 for others.
        names: the C labels in order.
        labels: label numbers of the training data, -100 where nothing is scored.

    Raises:
        ValueError: another word, a label that there is not, or a negative weight.
    """
    if choice == "none":
        return None
    if choice == "balanced":
        counts = np.zeros(len(names))
        for one in labels:
            counts += np.bincount(one[one != ops.IGNORE_INDEX], minlength=len(names))
        occurring = counts > 0
        return np.where(occurring, counts.sum() / (max(1, occurring.sum()) * np.maximum(counts, 1)), 1.0)
    if isinstance(choice, str):
        raise ValueError(f"class weights are 'none', 'balanced', or a weight for labels by name, not {choice!r}")
    unknown = sorted(set(choice) - set(names))
    if unknown:
        raise ValueError(f"class weights for {', '.join(unknown)}, but the labels are {', '.join(names)}")
    weights = np.array([float(choice.get(name, 1.0)) for name in names])
    if not (weights >= 0).all() or not np.isfinite(weights).all():
        raise ValueError(f"class weights must be finite and not negative, got {dict(choice)}")
    return weights
