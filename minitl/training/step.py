"""One optimizer step over one or several batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minitl import optim
from minitl.errors import MinitlError
from minitl.models.loss_options import CROSS_ENTROPY, LossOptions
from minitl.models.token_classifier import BertForTokenClassification
from minitl.ops import IGNORE_INDEX
from minitl.text.batch import PackedBatch


@dataclass(frozen=True)
class StepResult:
    """What one step saw.

    Attributes:
        loss: mean loss over all scored labels of the step, before the update.
        gradient_norm: global norm of the gradients before clipping.
        label_count, token_count: scored labels and tokens read.
        skipped: True where no label was scored, or all have the weight 0: the optimizer was left alone, since even a
            zero gradient would decay weights.
    """

    loss: float
    gradient_norm: float
    label_count: int
    token_count: int
    skipped: bool


class DivergedError(MinitlError):
    """A loss, a gradient or a parameter is not finite.

    Attributes:
        result: what the step saw that was not taken.
    """

    result: StepResult


def train_step(
    model: BertForTokenClassification,
    batches: Sequence[PackedBatch],
    optimizer: optim.Optimizer,
    *,
    schedule: optim.Schedule | None = None,
    max_norm: float = 1.0,
    loss_options: LossOptions = CROSS_ENTROPY,
) -> StepResult:
    """Accumulate the gradients of ``batches`` and update once, as if they were one batch.

    The loss of a batch is a mean over its scored labels, so each is weighted by its share of all labels of the step.
    (Averaging the means instead would count a label in a short batch more than one in a long batch.) Gradients are
    clipped to ``max_norm``, applied, and forgotten; the schedule moves on.

    Args:
        model: in training mode; it is asked for ``model.loss(batch)``, which leaves out what no scored token needs.
        batches: with labels; one for no accumulation.
        optimizer: over the model's parameters, without gradients left over.
        schedule: of the optimizer's learning rate, or None.
        max_norm: largest global gradient norm.
        loss_options: weights of classes, smoothing, or focal loss. With weights, batches count by the weights of their
            labels.

    Raises:
        ValueError: no batches, or a batch without labels.
        DivergedError: the loss or the gradient is not finite; the optimizer has not stepped, the gradients are
            forgotten, and the schedule stays where it was.
    """
    labels = [batch.labels for batch in batches if batch.labels is not None]
    if not labels or len(labels) != len(batches):
        raise ValueError("train_step needs at least one batch, and labels in every batch")
    counts = [int(np.count_nonzero(one != IGNORE_INDEX)) for one in labels]
    weights = [loss_options.weight(one) for one in labels]
    total, tokens = sum(weights), sum(batch.token_count for batch in batches)
    if total == 0:
        return StepResult(0.0, 0.0, sum(counts), tokens, skipped=True)
    loss = 0.0
    for batch, weight in zip(batches, weights, strict=True):
        share = model.loss(batch, loss_options).loss * (weight / total)
        share.backward()
        loss += share.item()
    norm = optim.clip_grad_norm(model.parameters(), max_norm)
    if not math.isfinite(loss) or not math.isfinite(norm):
        optimizer.zero_grad()
        error = DivergedError(
            f"training diverged: the loss is {loss}, the gradient's norm {norm}; the step was not taken; "
            "lower the learning rate, or look for NaN in the weights"
        )
        error.result = StepResult(loss, norm, sum(counts), tokens, skipped=False)
        raise error
    optimizer.step()
    optimizer.zero_grad()
    if schedule is not None:
        schedule.step()
    return StepResult(loss, norm, sum(counts), tokens, skipped=False)
