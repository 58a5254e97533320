"""A tiny BERT on "cudasim", or on a GPU: every CUDA kernel, forward and backward, in the job that they are for."""

from __future__ import annotations

import numpy as np
import pytest
from simulator import DEVICE, needs_device

import minitl
from minitl import Tensor, ops, optim
from minitl.errors import PrecisionError
from minitl.kernels import cudasim
from minitl.kernels.attention import cuda as attention
from minitl.models import BertConfig, BertForTokenClassification, PackedBatch
from minitl.training import train_step

pytestmark = needs_device

CONFIG = BertConfig(
    vocab_size=50,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=40,
    num_labels=5,
)
LENGTHS = np.array([7, 33, 1, 12])  # one sentence is longer than a warp


def batch(seed: int) -> PackedBatch:
    random = np.random.default_rng(seed)
    tokens = LENGTHS.sum()
    offsets = np.concatenate(([0], np.cumsum(LENGTHS)))
    labels = np.where(random.random(tokens) < 0.7, random.integers(0, 5, tokens), ops.IGNORE_INDEX)
    positions = np.arange(tokens) - np.repeat(offsets[:-1], LENGTHS)
    return PackedBatch(random.integers(0, 50, tokens), positions, np.zeros(tokens, np.int64), offsets, labels)


def trained(device: str, dtype: str) -> dict[str, np.ndarray]:
    """The parameters, the losses and some logits of a model after three steps with dropout."""
    minitl.manual_seed(0)
    model = BertForTokenClassification(CONFIG, dtype=dtype).to(device)
    optimizer = optim.AdamW(optim.decay_groups(model, weight_decay=0.01), lr=1e-3)
    model.train()
    losses = [train_step(model, [batch(seed)], optimizer).loss for seed in range(3)]
    model.eval()
    found = {name: parameter.numpy() for name, parameter in model.named_parameters()}
    return found | {"losses": np.array(losses), "logits": model.predict_logits(batch(3))}


def check(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], tolerance: float) -> None:
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=tolerance, err_msg=name)


# Another order of sums, in three steps of 1e-3: a few roundings of numbers of size 1. Where a gradient is itself only
# rounding, AdamW divides it by its own size; float32 allows for that in a handful of parameters.
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-5)])
def test_it_trains_as_on_the_cpu(dtype: str, tolerance: float) -> None:
    with minitl.use_kernels("reference"):
        wanted = trained("cpu", dtype)
    check(trained(DEVICE, dtype), wanted, tolerance)


@pytest.mark.parametrize(
    "schedule",
    [{"order": "descending", "block_order": "descending"}, {"order": "random", "seed": 5}, {"order": "warps"}],
    ids=str,
)
def test_no_bit_depends_on_the_order_of_threads(schedule: dict[str, object]) -> None:
    wanted = trained(DEVICE, "float32")
    with cudasim.schedule(**schedule):  # type: ignore[arg-type]
        check(trained(DEVICE, "float32"), wanted, 0)


def test_dropout_masks_are_those_of_the_cpu() -> None:
    """Bit for bit, also of rows of a larger array."""
    rows = np.array([5, 2, 9])
    for numbers in (None, rows):
        results = []
        for device in ("cpu", DEVICE):
            minitl.manual_seed(7)
            ones = Tensor(np.ones((3, 101), np.float32), device=device)
            results.append(ops.dropout(ones, 0.4, rows=numbers).numpy())
        np.testing.assert_array_equal(*results)
        assert 0.3 < (results[0] == 0).mean() < 0.5


@pytest.mark.parametrize("tensor_cores", [True, False], ids=["tensor cores", "before them"])
def test_it_predicts_in_float16(tensor_cores: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some fifteen layers round to 11 bits, 5e-4 of numbers of size 1; the logits are of size 0.1."""
    if not tensor_cores:
        monkeypatch.setattr(attention, "_has_tensor_cores", lambda like: False)
    minitl.manual_seed(0)
    model = BertForTokenClassification(CONFIG).to(DEVICE)
    model.eval()
    wanted = model.predict_logits(batch(0))
    with minitl.precision("float16", device=DEVICE):
        found = model.predict_logits(batch(0))
        assert model.classifier.weight._half is not None
        model.classifier.bias.copy_(np.full(5, 7, np.float32))  # a copy that is out of date is made anew
        later = model.predict_logits(batch(0))
    assert found.dtype == np.float32
    assert 1e-6 < np.abs(found - wanted).max() < 1e-3
    np.testing.assert_allclose(later - found, 7 - 0, rtol=0, atol=1e-2)


def test_nothing_is_trained_in_float16() -> None:
    model = BertForTokenClassification(CONFIG).to(DEVICE)
    with (
        minitl.precision("float16", device=DEVICE),
        pytest.raises(PrecisionError, match="float16' is for prediction, its range is too small"),
    ):
        train_step(model, [batch(0)], optim.AdamW(model.parameters(), lr=1e-3))
    for parameter in model.bert.parameters():
        parameter.requires_grad = False
    with minitl.precision("float16", device=DEVICE), pytest.raises(PrecisionError, match="for prediction"):
        model.loss(batch(0))  # the classifier alone would be trained
