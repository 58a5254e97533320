"""What the parity tests, the golden files and the model tests share: random configurations and inputs, error measures.

B sentences   S padded length   V vocabulary   C classes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu")
# Absolute, on values of order 1 to 10. float64: rounding gives 1e-14, a wrong formula (tanh for erf: 1e-4) much more
# than 1e-9. float32: two dozen LayerNorm outputs of size up to 5, each step good to 6e-8 relative, give some 1e-6;
# torch's own distance to float64 is as large.
VALUE_TOLERANCE = {"float64": 1e-9, "float32": 2e-5}
# Relative to the largest gradient of the tensor, see gradient_errors.
GRADIENT_TOLERANCE = {"float64": 1e-8, "float32": 1e-4}

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
        """(B,) True where column 0 counts: transformers pools column 0 in any case, minitl the first kept one."""
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
    """Six sentences: full, padded right, padded left, with holes, with a hole at column 0, a single token at the end.

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
    """Arguments of ``BertConfig`` (ours and transformers'), tiny; 8 seeds bring all choices that change the result."""
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
    assert np.isfinite(array).all()  # Python's max() would pass over a NaN
    return float(np.abs(array).max(initial=0.0))


def gradient_errors(
    ours: Mapping[str, npt.NDArray[Any]], reference: Mapping[str, npt.NDArray[Any]]
) -> dict[str, float]:
    """For each parameter, max |error| / max(largest |g| of that parameter, 1e-3 * largest |g| of the model).

    The floor is there for the biases of the keys: softmax does not change when all its inputs shift, so their
    gradients are zero in theory and rounding noise in practice.
    """
    assert ours.keys() == reference.keys()
    floor = 1e-3 * max(largest(gradient) for gradient in reference.values())
    return {
        name: largest(ours[name].astype(np.float64) - gradient) / max(largest(gradient), floor)
        for name, gradient in reference.items()
    }


def forward_arguments(model: Any, inputs: PaddedInputs) -> dict[str, npt.NDArray[np.int64]]:
    """What ``forward`` of either library's model takes."""
    return inputs.arguments(labels=type(model).__name__ == "BertForTokenClassification")


def direction(shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Fixed weights that turn the encoder's output into a loss: the plain sum of a LayerNorm's output has no gradient.

    They are float32 numbers, and no random ones, whose stream another NumPy may change under the golden files.
    """
    size = int(np.prod(shape))
    rounded: npt.NDArray[np.float64] = np.round(np.cos(0.7 * np.arange(size) + 1), 3).reshape(tuple(shape))
    return rounded.astype(np.float32).astype(np.float64)


def run_ours(model: Any, inputs: PaddedInputs, *, attentions: bool = True) -> tuple[Arrays, Arrays]:
    """Run a minitl model forward and backward; return named results and the gradient of every parameter.

    Without ``attentions`` the fused attention runs in place of the composed one.
    """
    for parameter in model.parameters():
        parameter.grad = None
    out = model(**forward_arguments(model, inputs), output_hidden_states=True, output_attentions=attentions)
    if hasattr(out, "loss"):
        loss, results = out.loss, {"logits": out.logits, "loss": out.loss}
    else:
        states, pooled = out.last_hidden_state[inputs.kept], out.pooler_output[inputs.starts_kept]
        loss = sum((x * direction(x.shape).astype(x.dtype)).sum() for x in (states, pooled))
        results = {"last_hidden_state": out.last_hidden_state, "pooler_output": out.pooler_output}
    loss.backward()
    results |= {f"hidden_states.{number}": state for number, state in enumerate(out.hidden_states)}
    results |= {f"attentions.{number}": weights for number, weights in enumerate(out.attentions or ())}
    gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    return {name: value.numpy() for name, value in results.items()}, gradients


def comparable(name: str, inputs: PaddedInputs) -> npt.NDArray[np.bool_]:
    """Where a result is the same in both libraries: kept tokens, kept queries, sentences whose column 0 is kept."""
    if name.startswith("attentions"):
        return inputs.kept[:, None, :, None]
    if name == "pooler_output":
        return inputs.starts_kept[:, None]
    return np.array(True) if name == "loss" else inputs.kept[:, :, None]


def kept_part(name: str, array: npt.NDArray[Any], inputs: PaddedInputs) -> npt.NDArray[Any]:
    """``array`` as float64, with 0 wherever the libraries differ by definition."""
    return np.where(comparable(name, inputs), array.astype(np.float64), 0.0)


def value_errors(results: Arrays, truth: Arrays, inputs: PaddedInputs) -> dict[str, float]:
    """The largest absolute error of each kind of result, on what is comparable."""
    errors: dict[str, float] = {}
    for name in results:
        kind = name.partition(".")[0]
        error = largest(kept_part(name, results[name], inputs) - kept_part(name, truth[name], inputs))
        errors[kind] = max(errors.get(kind, 0.0), error)
    return errors


def assert_zero_where_masked(results: Arrays, inputs: PaddedInputs) -> None:
    """Check that results (B, S, ...) are exactly 0 at masked columns, attentions also for masked queries."""
    for name, values in results.items():
        if name == "pooler_output":  # has no columns
            continue
        assert not np.where(comparable(name, inputs), 0.0, values).any(), name
        if name.startswith("attentions"):
            assert not np.where(inputs.kept[:, None, None, :], 0.0, values).any(), f"{name}, columns of masked keys"
