"""Optimizers over one flat buffer, learning-rate schedules, gradient clipping."""

from minitl.optim.adamw import AdamW
from minitl.optim.clip import clip_grad_norm
from minitl.optim.groups import decay_groups
from minitl.optim.optimizer import Optimizer, ParameterGroup
from minitl.optim.schedule import Schedule, cosine_factor, linear_factor
from minitl.optim.sgd import SGD

__all__ = [
    "SGD", "AdamW", "Optimizer", "ParameterGroup", "Schedule", "clip_grad_norm", "cosine_factor", "decay_groups",
    "linear_factor",
]  # fmt: skip
