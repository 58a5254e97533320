"""Whole trainings against torch and transformers: same weights, same batches, no dropout; AdamW, clipping, schedule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from hf_pairs import in_float32, our_model, reference_model  # noqa: E402
from parity import PaddedInputs, largest, padded_inputs  # noqa: E402

from minitl import optim  # noqa: E402

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("default")]  # their warnings are not ours to fix

CONFIG: dict[str, Any] = {
    "vocab_size": 120,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 32,
    "num_labels": 5,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.05,
}
LEARNING_RATE, WEIGHT_DECAY, MAX_NORM, WARMUP = 3e-3, 0.01, 1.0, 10
DISTINCT = 5  # batches, seen again and again, so that there is something to learn


def batches() -> list[PaddedInputs]:
    rng = np.random.default_rng(0)
    return [padded_inputs(rng, vocabulary=CONFIG["vocab_size"], classes=CONFIG["num_labels"]) for _ in range(DISTINCT)]


def train_theirs(model: Any, steps: int) -> list[float]:
    model.train()
    exempt = {name for name, _ in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name}
    groups = [
        {"params": [p for name, p in model.named_parameters() if name not in exempt], "weight_decay": WEIGHT_DECAY},
        {"params": [p for name, p in model.named_parameters() if name in exempt], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, foreach=False, fused=False)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, WARMUP, steps)
    given = [{name: torch.from_numpy(array) for name, array in batch.arguments().items()} for batch in batches()]
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = model(**given[step % DISTINCT]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def train_ours(model: Any, steps: int) -> list[float]:
    model.train()
    optimizer = optim.AdamW(optim.decay_groups(model, WEIGHT_DECAY), lr=LEARNING_RATE)
    schedule = optim.Schedule(optimizer, steps, warmup=WARMUP)
    given = batches()
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = model(**given[step % DISTINCT].arguments()).loss
        loss.backward()
        optim.clip_grad_norm(model.parameters(), MAX_NORM)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def parameter_error(ours: Any, theirs: Any) -> float:
    """The largest absolute difference of any parameter; they are of the order of 0.1."""
    expected = {name: parameter.detach().numpy() for name, parameter in theirs.named_parameters()}
    return max(largest(value - expected[name]) for name, value in ours.state_dict().items())


def test_100_steps_in_float64() -> None:
    theirs = reference_model("BertForTokenClassification", CONFIG, 0)
    ours = our_model(theirs, "float64")
    expected, losses = train_theirs(theirs, 100), train_ours(ours, 100)
    curve = largest(np.array(losses) - expected)
    parameters = parameter_error(ours, theirs)
    print(f"losses from {expected[0]:.3f} to {expected[-1]:.3f}, error {curve:.1e}; parameters {parameters:.1e}")
    assert expected[-1] < 0.5 * expected[0]  # it did learn: a curve that stands still proves little
    # Gradients agree to 1e-13 of their size. Training feeds the differences back, so they may grow: hence the margin.
    assert curve <= 1e-8
    assert parameters <= 1e-7


def test_50_steps_in_float32() -> None:
    reference = reference_model("BertForTokenClassification", CONFIG, 0)
    theirs, ours = in_float32(reference), our_model(reference, "float32")
    truth, expected, losses = train_theirs(reference, 50), train_theirs(theirs, 50), train_ours(ours, 50)
    curve, torch_curve = largest(np.array(losses) - truth), largest(np.array(expected) - truth)
    print(f"distance to float64: minitl {curve:.1e}, torch {torch_curve:.1e}")
    # Gradients agree to 1e-5 of their size, and AdamW hands that on to every step: after 50 steps of up to 3e-3 the
    # parameters are up to 1e-6 apart, and thousands of them act on a loss of order 1.
    assert largest(np.array(losses) - expected) <= 1e-4
    assert curve <= 1e-4
