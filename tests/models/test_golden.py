"""The golden files: what transformers and torch once computed (``golden/make_golden.py``), checked without them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity import (
    GRADIENT_TOLERANCE,
    VALUE_TOLERANCE,
    Arrays,
    PaddedInputs,
    assert_zero_where_masked,
    gradient_errors,
    largest,
    run_ours,
    value_errors,
)

from minitl import optim
from minitl.models import BertConfig, BertForTokenClassification, BertModel

FOLDER = Path(__file__).resolve().parent.parent / "golden"
NAMES = ("tagger-gelu", "encoder-gelu-new", "encoder-relu")
DTYPES = ("float64", "float32")


@dataclass(frozen=True)
class Golden:
    """One golden file."""

    head: str
    config: dict[str, Any]
    training: dict[str, Any]
    tensors: Arrays

    def part(self, kind: str) -> Arrays:
        """The tensors called ``kind/NAME``, by NAME."""
        return {name.partition("/")[2]: array for name, array in self.tensors.items() if name.startswith(f"{kind}/")}

    def model(self, dtype: str) -> Any:
        """The minitl model."""
        classes = {"BertModel": BertModel, "BertForTokenClassification": BertForTokenClassification}
        model = classes[self.head](BertConfig(**self.config), dtype=dtype).eval()
        model.load_state_dict(self.part("weight"))
        return model

    @property
    def inputs(self) -> PaddedInputs:
        return PaddedInputs(**self.part("input"))


def read(name: str) -> Golden:
    from safetensors import safe_open

    with safe_open(FOLDER / f"{name}.safetensors", framework="numpy") as file:
        described = json.loads(file.metadata()["golden"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # it is no dictionary
    return Golden(described["head"], described["config"], described["training"], tensors)


def test_every_golden_file_is_checked_and_they_are_small() -> None:
    sizes = {path.stem: path.stat().st_size for path in FOLDER.glob("*.safetensors")}
    assert set(sizes) == set(NAMES)
    assert sum(sizes.values()) < 600_000


def test_the_golden_inputs_cover_the_kinds_of_padding() -> None:
    kept = read("tagger-gelu").inputs.kept.tolist()
    assert all(kept[0])  # nothing masked
    assert kept[1] == sorted(kept[1], reverse=True)  # right padding
    assert kept[2] == sorted(kept[2])  # left padding
    assert kept[3] not in (sorted(kept[3]), sorted(kept[3], reverse=True))  # holes
    assert not kept[4][0]  # a hole at column 0
    assert sum(kept[5]) == 1  # a single token


@pytest.mark.parametrize("attentions", [True, False], ids=["composed", "fused"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_results_and_gradients(name: str, dtype: str, attentions: bool) -> None:
    golden = read(name)
    truth = golden.part("result")
    results, gradients = run_ours(golden.model(dtype), golden.inputs, attentions=attentions)
    assert attentions == any(key.startswith("attentions") for key in results)
    assert set(results) == {key for key in truth if attentions or not key.startswith("attentions")}
    assert all(array.dtype == dtype for array in (*results.values(), *gradients.values()))
    assert_zero_where_masked(results, golden.inputs)
    for kind, error in value_errors(results, truth, golden.inputs).items():
        assert error <= VALUE_TOLERANCE[dtype], kind
    for parameter, error in gradient_errors(gradients, golden.part("gradient")).items():
        assert error <= GRADIENT_TOLERANCE[dtype], parameter


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_short_training(dtype: str) -> None:
    golden = read("tagger-gelu")
    model, settings = golden.model(dtype), golden.training
    optimizer = optim.AdamW(optim.decay_groups(model, settings["weight_decay"]), lr=settings["lr"])
    schedule = optim.Schedule(optimizer, settings["steps"], warmup=settings["warmup"])
    losses = []
    for _ in range(settings["steps"]):
        optimizer.zero_grad()
        loss = model(**golden.inputs.arguments()).loss
        loss.backward()
        optim.clip_grad_norm(model.parameters(), settings["max_norm"])
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    expected = golden.part("training")["losses"]
    assert expected[-1] < 0.5 * expected[0]
    # float64: measured 1e-15; training feeds rounding differences back, so there is room. float32: gradients agree to
    # 1e-5 of their size, AdamW hands that on to steps of 5e-3, and thousands of parameters act on the loss.
    assert largest(np.array(losses) - expected) <= {"float64": 1e-8, "float32": 1e-4}[dtype]
