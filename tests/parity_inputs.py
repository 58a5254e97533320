"""What the parity tests, the golden files and the model tests share: random configurations, padded inputs, error measures.

    B sentences   S padded length   V vocabulary   C classes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu")
ROWS = 6  # the kinds of rows in padded_inputs


@dataclass(frozen=True)
class PaddedInputs:
    """Arguments of a model's forward, each (B, S) int64."""

    input_ids: npt.NDArray[np.int64]
    attention_mask: npt.NDArray[np.int64]
    token_type_ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """(B, S) True where a token counts."""
        return self.attention_mask == 1

    @property
    def starts_kept(self) -> npt.NDArray[np.bool_]:
        """(B,) True where column 0 counts: transformers pools column 0 whatever the mask says, minitl the first kept one."""
        return self.kept[:, 0]

    def arguments(self, *, labels: bool = True) -> dict[str, npt.NDArray[np.int64]]:
        """The keyword arguments of ``forward``."""
        named = vars(self).copy()
        if not labels:
            del named["labels"]
        return named


def padded_inputs(
    rng: np.random.Generator, *, vocabulary: int, classes: int, segments: int = 2, length: int = 11
) -> PaddedInputs:
    """Six sentences: full, padded right, padded left, with holes, with holes at column 0, and a single token at the end.

    Ids come from the whole vocabulary, the padding id among kept tokens and arbitrary ids under the mask included; some
    kept tokens are not scored.
    """
    shape = (ROWS, length)
    mask = np.ones(shape, np.int64)
    mask[1, length // 2 :] = 0
    mask[2, : length // 3] = 0
    mask[3, 2::3] = 0
    mask[4, ::4] = 0
    mask[5, :-1] = 0
    scored = (mask == 1) & (rng.random(shape) < 0.8)
    scored[0, 1] = True  # at least one
    return PaddedInputs(
        input_ids=rng.integers(0, vocabulary, shape),
        attention_mask=mask,
        token_type_ids=rng.integers(0, segments, shape),
        labels=np.where(scored, rng.integers(0, classes, shape), -100),
    )


def random_config(seed: int) -> dict[str, Any]:
    """Arguments of ``BertConfig`` (ours and transformers'), tiny; every choice that changes the result occurs over 8 seeds."""
    rng = np.random.default_rng(seed)
    heads = int(rng.integers(1, 5))
    return {
        "vocab_size": int(rng.integers(40, 120)),
        "hidden_size": heads * int(rng.choice((4, 8, 11, 16))),
        "num_hidden_layers": int(rng.integers(1, 5)),
        "num_attention_heads": heads,
        "intermediate_size": int(rng.integers(7, 100)),
        "max_position_embeddings": int(rng.integers(16, 40)),
        "hidden_act": ACTIVATIONS[seed % 4],
        "type_vocab_size": 1 + seed % 3,
        "layer_norm_eps": (1e-12, 1e-5, 1e-7)[seed % 3],
        "classifier_dropout": (None, 0.3)[seed % 2],
        "pad_token_id": (0, 5, None)[seed // 2 % 3],
        "initializer_range": (0.02, 0.1, 0.2)[seed % 3],
        "num_labels": int(rng.integers(2, 10)),
    }


def largest(array: npt.NDArray[Any]) -> float:
    """The largest absolute value, 0 for an empty array."""
    return float(np.abs(array).max(initial=0.0))


def gradient_errors(
    ours: Mapping[str, npt.NDArray[Any]], reference: Mapping[str, npt.NDArray[Any]]
) -> dict[str, float]:
    """For each parameter, max |error| / max(largest |g| of that parameter, 1e-3 * largest |g| of the model).

    The floor is there for the biases of the keys: softmax does not change when all its inputs shift, so their gradients are
    zero in theory and rounding noise in practice.
    """
    assert ours.keys() == reference.keys()
    floor = 1e-3 * max(largest(gradient) for gradient in reference.values())
    return {
        name: largest(ours[name].astype(np.float64) - gradient) / max(largest(gradient), floor)
        for name, gradient in reference.items()
    }
