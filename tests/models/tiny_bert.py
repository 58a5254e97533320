"""A tiny random model and its inputs, for the tests of this folder."""

from __future__ import annotations

from typing import Any

import numpy as np
from parity import Arrays, PaddedInputs, padded_inputs

import minitl
from minitl.models import BertConfig, BertForTokenClassification

CONFIG = BertConfig(
    vocab_size=40,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=20,
    max_position_embeddings=16,
    num_labels=4,
    initializer_range=0.3,
)
# float64, values and gradients of order 1: sums over other numbers of rows may be added up in another order, which
# costs a few roundings of 1e-16 in each of some twenty steps.
ROUNDING = 1e-12


def example(seed: int = 0) -> PaddedInputs:
    """Six sentences with every kind of padding."""
    return padded_inputs(np.random.default_rng(seed), vocabulary=40, classes=4)


def tagger(config: BertConfig = CONFIG, dtype: str = "float64") -> BertForTokenClassification:
    """A random model in evaluation mode, the same at each call."""
    minitl.manual_seed(1)
    return BertForTokenClassification(config, dtype=dtype).eval()


def gradients(model: Any, *losses: Any) -> Arrays:
    """The accumulated gradients of some losses."""
    for parameter in model.parameters():
        parameter.grad = None
    for loss in losses:
        loss.backward()
    return {name: parameter.grad.numpy().copy() for name, parameter in model.named_parameters()}
