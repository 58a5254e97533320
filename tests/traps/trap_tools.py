"""What the tests of the numeric traps share: vectorised answers in float64, poison, tiny models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

import minitl
from minitl import Tensor
from minitl.models import BertConfig, BertForTokenClassification, PackedBatch

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

# what an unused place may hold: a multiplication by 0 does not take the first three away, nor a sum the others
POISON = (np.nan, np.inf, -np.inf, 1e30, -1e30)

# The largest error of a kernel is a few eps of the largest number: a handful of roundings, and pairwise sums of at most
# 40 terms. float64's answer is compared with float64's gold, which has the same errors.
TOLERANCE = {"float32": 2e-6, "float64": 4e-15}


def softmax_gold(x: Floats, mask: Bools, scale: float) -> npt.NDArray[np.float64]:
    """Softmax of the last axis in float64 over the columns of the mask: ``1 / p_k = sum_j exp(x_j - x_k)``, which takes
    no maximum, unlike the kernel."""
    wide = x.astype(np.float64) * scale
    others = np.where(mask, wide, -np.inf)
    with np.errstate(over="ignore"):  # at columns that the mask hides
        reciprocal = np.exp(others[..., None, :] - wide[..., :, None]).sum(axis=-1)
    return np.where(mask, 1 / np.where(mask, reciprocal, 1), 0)


def softmax_gradient_gold(
    p: npt.NDArray[np.float64], kept: Floats, upstream: Floats, scale: float
) -> npt.NDArray[np.float64]:
    """The gradient of ``kept * p`` through the full Jacobian ``p_j (1[j = k] - p_k)`` of each row."""
    jacobian = p[..., :, None] * (np.eye(p.shape[-1]) - p[..., None, :])
    return scale * np.einsum("...jk,...k->...j", jacobian, upstream * kept)


def random_masks(random: np.random.Generator, count: int, rows: int, columns: int) -> Bools:
    """``count`` masks (rows, columns) of every density; the first keeps everything, the second nothing."""
    density = random.uniform(0, 1, (count, 1, 1))
    density[0], density[1] = 1, 0
    mask = random.random((count, rows, columns)) < density
    mask[2::7, 0] = False  # whole rows, besides those that chance masks
    return mask


def values_and_gradients(
    call: Callable[..., Tensor], arrays: list[Floats], upstream: Floats, device: str = "cpu"
) -> list[npt.NDArray[Any]]:
    """Run ``call`` on leaves with these arrays; return its value and the gradient of each."""
    leaves = [Tensor(array.copy(), requires_grad=True, device=device) for array in arrays]
    result = call(*leaves)
    result.backward(Tensor(np.asarray(upstream, result.dtype), device=device))
    gradients = []
    for leaf in leaves:
        assert leaf.grad is not None
        gradients.append(leaf.grad.numpy().copy())
    return [result.numpy().copy(), *gradients]


def same_bits(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    """Tell whether two arrays are equal in dtype, shape and every bit (NaN and signs of zeros included)."""
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def tiny_config(**changes: Any) -> BertConfig:
    sizes: dict[str, Any] = {
        "vocab_size": 12,
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "max_position_embeddings": 12,
        "num_labels": 3,
        "initializer_range": 0.3,
    }
    return BertConfig(**(sizes | changes))


def tiny_tagger(dtype: str = "float32", **changes: Any) -> BertForTokenClassification:
    """A random model in evaluation mode, the same at each call."""
    minitl.manual_seed(1)
    return BertForTokenClassification(tiny_config(**changes), dtype=dtype).eval()


def parameter_gradients(model: Any) -> dict[str, npt.NDArray[Any]]:
    """Take the gradients of a model's parameters away from it."""
    taken = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        taken[name] = parameter.grad.numpy().copy()
        parameter.grad = None
    return taken


def random_batch(random: np.random.Generator, config: BertConfig, sentences: int = 3) -> PackedBatch:
    """Sentences of 1 to 5 tokens, some of them not scored, at least one scored."""
    lengths = random.integers(1, 6, sentences)
    count = int(lengths.sum())
    labels = np.where(random.random(count) < 0.7, random.integers(0, config.num_labels, count), -100)
    labels[0] = 0
    return PackedBatch(
        input_ids=random.integers(1, config.vocab_size, count),
        positions=np.concatenate([np.arange(length) for length in lengths]),
        segments=random.integers(0, 2, count),
        cu_seqlens=np.concatenate([[0], np.cumsum(lengths)]),
        labels=labels,
    )
