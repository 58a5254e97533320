"""Optimizers, clipping and a whole training step of a small BERT on the strict device equal the CPU's, bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import strict_array

import minitl
from minitl import Tensor, optim
from minitl.models import BertConfig, BertForTokenClassification

OPTIMIZERS: dict[str, Any] = {
    "AdamW": lambda p: optim.AdamW(p, lr=0.1),
    "AdamW-torch": lambda p: optim.AdamW(p, lr=0.1, torch_compat=True),
    "SGD": lambda p: optim.SGD(p, lr=0.1, weight_decay=0.1),
    "SGD-momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "SGD-nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name: str, dtype: str, strict_device: str) -> None:
    ends = []
    for device in ("cpu", strict_device):
        arrays = [np.random.default_rng(i).standard_normal(shape).astype(dtype) for i, shape in enumerate([(3, 2), ()])]
        parameters = [Tensor(array, requires_grad=True, device=device) for array in arrays]
        optimizer = OPTIMIZERS[name](parameters)
        norms = []
        for _ in range(3):
            ((parameters[0] * parameters[1]) ** 2).sum().backward()
            norms.append(optim.clip_grad_norm(parameters, 0.5))
            optimizer.step()
            optimizer.zero_grad()
        ends.append([np.array(norms), *(parameter.numpy() for parameter in parameters)])
        if device == strict_device:
            assert type(optimizer.buffer.parameters) is strict_array.ndarray
            assert all(type(parameter.array) is strict_array.ndarray for parameter in parameters)
    for plain, strict in zip(*ends, strict=True):
        np.testing.assert_array_equal(plain, strict)


def test_optimizers_refuse_mixed_devices(strict_device: str) -> None:
    parameters = [Tensor([1.0], requires_grad=True), Tensor([1.0], requires_grad=True, device=strict_device)]
    with pytest.raises(ValueError, match="share one device"):
        optim.SGD(parameters)


def config(hidden_act: str) -> BertConfig:
    return BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=10,
        num_labels=3,
        hidden_act=hidden_act,
    )


def train(device: str, hidden_act: str, output_attentions: bool) -> dict[str, np.ndarray]:
    """Two training steps with dropout, clipping and decay; return everything that can be compared."""
    minitl.manual_seed(5)
    model = BertForTokenClassification(config(hidden_act), dtype="float32").to(device)
    optimizer = optim.AdamW(optim.decay_groups(model, 0.01), lr=0.01)
    schedule = optim.Schedule(optimizer, 4, warmup=1)
    random = np.random.default_rng(0)
    ids = random.integers(1, 20, (3, 6))
    mask = np.array([[1, 1, 1, 0, 0, 0], [0, 1, 1, 1, 0, 1], [1] * 6])
    labels = np.where(mask == 1, random.integers(0, 3, (3, 6)), -100)
    result: dict[str, np.ndarray] = {}
    for step in range(2):
        out = model(ids, mask, labels=labels, output_hidden_states=True, output_attentions=output_attentions)
        out.loss.backward()
        result[f"logits {step}"] = out.logits.numpy()
        result[f"loss {step}"] = out.loss.numpy()
        for number, state in enumerate(out.hidden_states):
            result[f"state {step} {number}"] = state.numpy()
        for number, weights in enumerate(out.attentions or ()):
            result[f"attention {step} {number}"] = weights.numpy()
        for name, parameter in model.named_parameters():
            result[f"gradient {step} {name}"] = parameter.grad.numpy().copy()
        result[f"norm {step}"] = np.array(optim.clip_grad_norm(model.parameters(), 1.0))
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return result | {name: value.copy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("output_attentions", [False, True], ids=["fused", "composed"])
@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_new", "relu"])
def test_a_training_step_of_bert(hidden_act: str, output_attentions: bool, strict_device: str) -> None:
    plain = train("cpu", hidden_act, output_attentions)
    strict = train(strict_device, hidden_act, output_attentions)
    assert plain.keys() == strict.keys()
    for name, value in plain.items():
        assert type(strict[name]) is np.ndarray
        np.testing.assert_array_equal(strict[name], value, err_msg=name)
    assert plain["norm 0"] > 0
    assert np.isfinite(plain["loss 1"])
