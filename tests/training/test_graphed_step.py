"""The training step for CUDA graphs, kernel by kernel on the simulator and recorded on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from simulator import DEVICE, here, needs_device

import minitl
from minitl import ops, optim
from minitl.device import module_of
from minitl.errors import MinitlError
from minitl.models import BertConfig, BertForTokenClassification, PackedBatch
from minitl.training import train_step
from minitl.training.graph import GraphedStep
from minitl.training.room import Room, Size

pytestmark = needs_device

CONFIG = BertConfig(
    vocab_size=50,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=1,
    intermediate_size=64,
    max_position_embeddings=40,
    num_labels=5,
)


def packed(lengths: list[int], seed: int) -> PackedBatch:
    random, tokens = np.random.default_rng(seed), sum(lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    positions = np.arange(tokens) - np.repeat(offsets[:-1], lengths)
    labels = np.where(random.random(tokens) < 0.7, random.integers(0, 5, tokens), ops.IGNORE_INDEX)
    return PackedBatch(random.integers(1, 50, tokens), positions, np.zeros(tokens, np.int64), offsets, labels)


def prepared(device: str = DEVICE) -> tuple[BertForTokenClassification, optim.AdamW, optim.Schedule]:
    minitl.manual_seed(0)
    model = BertForTokenClassification(CONFIG, dtype="float32").to(device)
    model.train()
    optimizer = optim.AdamW(optim.decay_groups(model, weight_decay=0.01), lr=1e-3)
    return model, optimizer, optim.Schedule(optimizer, 5)


def parameters(model: BertForTokenClassification) -> dict[str, np.ndarray]:
    return {name: parameter.numpy().copy() for name, parameter in model.named_parameters()}


# of one size, so that a GPU runs the first, records the second, and starts the recording for the third
BATCHES = [packed([7, 20, 1], seed=0), packed([30], seed=1), packed([5, 5, 16, 2], seed=2)]


@pytest.mark.filterwarnings("ignore:the training step runs kernel by kernel")
@pytest.mark.parametrize(("compute", "tolerance"), [("float32", 2e-6), ("bfloat16", 4e-3)])
def test_it_trains_as_train_step_does(compute: str, tolerance: float) -> None:
    """The same losses, norms and parameters: the padding of a room, and its dropout, touch nothing."""
    found, wanted = [], []
    with minitl.precision(compute, device=DEVICE):
        model, optimizer, schedule = prepared()
        step = GraphedStep(model, optimizer, schedule=schedule, bucket=32)
        for batch in BATCHES:
            result = step(batch)
            found.append((result.loss, result.gradient_norm))
        step.finish()
        assert DEVICE == "cudasim" or not step.eager_because
        other, optimizer, schedule = prepared()
        for batch in BATCHES:
            result = train_step(other, [batch], optimizer, schedule=schedule)
            wanted.append((result.loss, result.gradient_norm))
    # a norm, of some 10, is a sum of 20,000 squares; bfloat16 rounds each of them, another order of sums otherwise
    np.testing.assert_allclose(found, wanted, rtol=tolerance)
    # AdamW's first steps are as long as the rate, whatever the gradient: one that is only rounding goes either way
    for name, values in parameters(other).items():
        apart = np.abs(parameters(model)[name] - values)
        assert np.quantile(apart, 0.9) <= tolerance, name
        assert apart.max() <= 3e-3, name


def test_the_reference_kernels_are_not_recorded() -> None:
    model, optimizer, _ = prepared()
    with minitl.use_kernels("reference"):
        with pytest.warns(UserWarning, match="kernel by kernel: the reference kernels are no CUDA kernels"):
            found = GraphedStep(model, optimizer)(BATCHES[0])
        optimizer.prepare_step()
        with pytest.raises(
            RuntimeError, match=r"launches CUDA kernels, here minitl\.kernels\.adamw\.reference is chosen"
        ):
            optimizer.launch_step(1.0)
    assert np.isfinite(found.loss)


def test_a_step_that_is_not_finite_leaves_the_parameters_alone() -> None:
    """The step after it, or the next but one, says so."""
    model, optimizer, _ = prepared()
    model.classifier.bias.copy_(np.full(5, np.nan, np.float32))
    before = parameters(model)
    step = GraphedStep(model, optimizer)
    step(BATCHES[0])
    with pytest.raises(MinitlError, match="diverged: the loss is nan"):
        step.finish()
    for name, values in parameters(model).items():
        np.testing.assert_array_equal(values, before[name], err_msg=name)


def test_a_room_is_filled_with_padding() -> None:
    batch = packed([3, 4], seed=0)
    room = Room(Size(16, 8, 16), module_of(DEVICE))
    for _ in range(2):  # what an earlier batch has left behind is overwritten
        room.fill(packed([10], seed=1), CONFIG, 1)
        room.fill(batch, CONFIG, 2**33 + 5)
    placed: Any = room.batch
    offsets = placed.cu_seqlens
    np.testing.assert_array_equal(here(placed.input_ids), [*batch.input_ids, *[CONFIG.pad_token_id] * 9])
    np.testing.assert_array_equal(here(placed.labels), [*batch.labels, *[ops.IGNORE_INDEX] * 9])
    np.testing.assert_array_equal(here(offsets.offsets), [0, 3, 7, 16, 16, 16, 16, 16, 16])
    np.testing.assert_array_equal(here(offsets.sentences), [0] * 3 + [1] * 4 + [2] * 9)
    np.testing.assert_array_equal(here(offsets.squares), [0, 9, 25, 106, 106, 106, 106, 106])
    assert room.base_call.tolist() == [2**33 + 5]
