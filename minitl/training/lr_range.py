"""The learning-rate range test (Smith 2017): train a little with a rate that grows, and look where the loss falls.

It leaves no trace: parameters, the generator and the modes of all modules are what they were before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from minitl import optim
from minitl.errors import MinitlError
from minitl.models.loss_options import CROSS_ENTROPY, LossOptions
from minitl.models.token_classifier import BertForTokenClassification
from minitl.random import default_generator
from minitl.text.batching import batch_count, batches
from minitl.text.encoding import EncodedDataset
from minitl.training.settings import TrainingSettings
from minitl.training.step import DivergedError, train_step
from minitl.viz.curves import Curve, Panel, draw

SMOOTHING = 0.9  # of the running mean of losses
BLOWN_UP = 2.0  # the test ends where the smoothed loss is this many times its smallest value


@dataclass(frozen=True)
class LearningRateRange:
    """What the test saw.

    Attributes:
        rates, losses, smoothed: of each step; ``smoothed`` is a running mean, corrected for its start at 0.
        steepest: the rate where the smoothed loss falls fastest, None if it never falls.
        suggestion: a tenth of the rate at the smallest smoothed loss, None if the loss never falls. It is a bound to
            stay below rather than a rate to take: a pretrained BERT is trained with less than a fresh network.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    steepest: float | None
    suggestion: float | None

    def picture(self) -> str:
        """Return an SVG picture of the loss over the rate."""
        curves = [Curve("loss", self.rates, self.losses), Curve("smoothed", self.rates, self.smoothed)]
        return draw([Panel("loss over learning rate", curves, logarithmic=True)], "learning-rate range test")


def lr_range_test(
    model: BertForTokenClassification,
    train: EncodedDataset,
    settings: TrainingSettings | None = None,
    *,
    lowest: float = 1e-6,
    highest: float = 1e-1,
    steps: int = 100,
    loss_options: LossOptions = CROSS_ENTROPY,
) -> LearningRateRange:
    """Take steps with a learning rate that grows from ``lowest`` to ``highest``, and go back to the beginning.

    Args:
        model: on any device.
        train: the training sentences; they are gone through again if they are few.
        settings: of batch size, weight decay, clipping and seed.
        lowest, highest, steps: the rates, spaced evenly on a logarithmic scale; the test ends early when the loss blows
            up.
        loss_options: as of the training.

    Raises:
        MinitlError: not 0 < lowest < highest, or less than 10 steps.
    """
    settings = settings or TrainingSettings()
    if not 0 < lowest < highest < math.inf or steps < 10:
        raise MinitlError(f"the test needs 0 < lowest < highest and 10 steps, got {lowest}, {highest} and {steps}")
    before = {name: values.copy() for name, values in model.state_dict().items()}
    modes = [(module, module.training) for module in model.modules()]
    generator = default_generator()
    place = generator.seed, generator.call
    optimizer = optim.AdamW(optim.decay_groups(model, settings.weight_decay), lr=lowest)
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    mean = 0.0
    per_epoch = batch_count(train, settings.batch_size)
    try:
        model.train()
        for epoch in range(-(-steps // per_epoch)):
            for batch in batches(train, settings.batch_size, seed=settings.seed, epoch=epoch):
                rate = lowest * (highest / lowest) ** (len(rates) / (steps - 1))
                for group in optimizer.groups:
                    group.lr = rate
                result = train_step(
                    model, [batch.packed], optimizer, max_norm=settings.max_norm, loss_options=loss_options
                )
                rates.append(rate)
                losses.append(result.loss)
                mean = SMOOTHING * mean + (1 - SMOOTHING) * result.loss
                smoothed.append(mean / (1 - SMOOTHING ** len(rates)))
                if len(rates) == steps or smoothed[-1] > BLOWN_UP * min(smoothed):
                    return _read(rates, losses, smoothed)
    except DivergedError:
        pass  # so high a rate was to be found
    finally:
        optimizer.zero_grad()
        model.load_state_dict(before)
        generator.seed, generator.call = place
        for module, training in modes:
            module.training = training
    return _read(rates, losses, smoothed)


def _read(rates: list[float], losses: list[float], smoothed: list[float]) -> LearningRateRange:
    """Find the two rates that people look for."""
    steepest = suggestion = None
    lowest = min(range(len(smoothed)), key=smoothed.__getitem__, default=0)
    if lowest > 0:
        falls = [smoothed[number] - smoothed[number + 1] for number in range(lowest)]
        steepest = rates[max(range(lowest), key=falls.__getitem__)]
        suggestion = rates[lowest] / 10
    return LearningRateRange(rates, losses, smoothed, steepest, suggestion)
