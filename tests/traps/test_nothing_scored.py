"""Batches in which every label is ignored: a loss of 0, no NaN, and a training that never met them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from trap_tools import Integers, parameter_gradients, random_batch, same_bits, tiny_config, tiny_tagger

import minitl
from minitl import Tensor, nn, ops, optim
from minitl.models import LossOptions
from minitl.random import default_generator
from minitl.text.batch import PackedBatch
from minitl.training import train_step
from minitl.training.step import StepResult


class Tagger(nn.Module):
    """Every word has its own logits: the smallest thing that trains."""

    def __init__(self) -> None:
        self.logits = nn.Embedding(12, 3)

    def loss(self, batch: PackedBatch, options: LossOptions) -> Any:
        return SimpleNamespace(loss=ops.cross_entropy(self.logits(batch.input_ids), cast(Integers, batch.labels)))


def unscored(batch: PackedBatch) -> PackedBatch:
    return replace(batch, labels=np.full(batch.token_count, -100))


def trained(model: Any, steps: list[list[PackedBatch]]) -> tuple[list[StepResult], dict[str, Any]]:
    """Train with decay, clipping and a schedule; return what the steps saw, and everything that they have moved."""
    model.train()
    optimizer = optim.AdamW(optim.decay_groups(model, 0.1), lr=1e-2)
    schedule = optim.Schedule(optimizer, total=1000, warmup=10)
    results = [train_step(model, batches, optimizer, schedule=schedule, max_norm=0.5) for batches in steps]
    left = {name: values.copy() for name, values in model.state_dict().items()}
    return results, left | {"calls": np.array(default_generator().call), "rate": np.array(optimizer.groups[0].lr)}


@pytest.mark.parametrize(("kind", "count"), [("small", 1000), ("bert", 30)])
def test_training_equals_the_run_that_drops_them(kind: str, count: int) -> None:
    """A tenth of 1,000 steps is all ignored: weights, dropout's counter and the learning rate end with the same bits.
    (Even a step with zero gradients would decay the weights.) A BERT with dropout takes 30 steps."""
    random = np.random.default_rng(0)
    batches = [random_batch(random, tiny_config()) for _ in range(50)]
    empty = random.permutation(count) < count // 10
    steps = [[unscored(batches[i % 50]) if none else batches[i % 50]] for i, none in enumerate(empty)]
    runs = []
    for chosen in (steps, [step for step, none in zip(steps, empty, strict=True) if not none]):
        minitl.manual_seed(7)
        model = Tagger() if kind == "small" else tiny_tagger(num_hidden_layers=1, hidden_dropout_prob=0.1)
        start = {name: values.copy() for name, values in model.state_dict().items()}
        runs.append(trained(model, chosen))
    (results, left), (_, wanted) = runs
    assert [result.skipped for result in results] == empty.tolist()
    assert all(result.label_count == 0 and result.loss == 0 for result in results if result.skipped)
    assert np.isfinite([[result.loss, result.gradient_norm] for result in results]).all()
    for name, values in wanted.items():
        assert np.isfinite(values).all()
        assert same_bits(left[name], values), name
    moved = [name for name, values in start.items() if not np.array_equal(values, left[name])]
    assert len(moved) == len(start)  # the training did something


def test_an_ignored_batch_adds_nothing_to_a_step() -> None:
    """Accumulated with others in one step, it leaves loss, norm and weights as they were (dropout is off here, for the
    batch takes its calls)."""
    random = np.random.default_rng(1)
    batches = [random_batch(random, tiny_config()) for _ in range(4)]
    ends = []
    for extra in (False, True):
        model = tiny_tagger(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        steps = [[unscored(batch), batch, unscored(batch)] if extra else [batch] for batch in batches]
        results, left = trained(model, steps)
        ends.append((left, [(result.loss, result.gradient_norm, result.label_count) for result in results]))
    assert ends[0][1] == ends[1][1]
    for name, values in ends[0][0].items():
        np.testing.assert_array_equal(values, ends[1][0][name], err_msg=name)  # a zero may change its sign


def test_the_models_loss_of_nothing_is_zero_with_zero_gradients() -> None:
    model, random = tiny_tagger(), np.random.default_rng(2)
    for _ in range(20):
        out = model(unscored(random_batch(random, model.config)))
        assert out.loss is not None
        out.loss.backward()
        assert out.loss.item() == 0
        assert out.label_count == 0
        assert not any(gradient.any() for gradient in parameter_gradients(model).values())


def test_counts_are_whole_numbers() -> None:
    """A float32 counter would stop at 2^24; sums of these go on."""
    model, batch = tiny_tagger(), random_batch(np.random.default_rng(3), tiny_config())
    out, result = model(batch), train_step(model, [batch], optim.AdamW(model.parameters()))
    assert [type(count) for count in (out.label_count, result.label_count, result.token_count)] == [int] * 3
    assert out.label_count == result.label_count == np.count_nonzero(batch.labels != -100)
    optimizer = optim.AdamW([Tensor([1.0], requires_grad=True)])
    optimizer._steps = [2**24]
    p = optimizer.groups[0].parameters[0]
    (p * 2).sum().backward()
    optimizer.step()
    assert optimizer._steps == [2**24 + 1]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_scored_rows_without_weight(smoothing: float) -> None:
    """Class weights of 0 for every label that occurs: nothing is left to average, and the loss is 0."""
    x = Tensor(np.array([[1.0, 2.0], [3.0, 5.0]]), requires_grad=True)
    loss = ops.cross_entropy(x, np.array([0, 0]), class_weights=np.array([0.0, 1.0]), label_smoothing=smoothing)
    loss.backward()
    assert x.grad is not None
    assert loss.item() == 0
    assert not x.grad.numpy().any()
