"""The learning-rate range test sees what it should, and leaves no trace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from training_runs import SETTINGS, Workshop

import minitl
from minitl.errors import MinitlError
from minitl.training import lr_range_test
from minitl.training.manifest import weights_sha256


def test_it_leaves_no_trace_and_finds_a_range(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    model = workshop.model().eval()
    generator = minitl.random.default_generator()
    before = weights_sha256(model.state_dict()), generator.seed, generator.call, vars(model)["training"]
    result = lr_range_test(model, workshop.train, replace(SETTINGS, accumulation=1), highest=10.0, steps=60)
    assert (weights_sha256(model.state_dict()), generator.seed, generator.call, model.training) == before
    assert all(parameter.grad is None for parameter in model.parameters())
    assert result.rates[0] == 1e-6
    assert len(result.rates) == len(result.losses) == len(result.smoothed) <= 60
    assert result.suggestion is not None
    assert 1e-5 < result.suggestion < 1  # a tiny model learns with large rates, and none learns with all
    assert result.picture().startswith("<svg")

    straight, after_test = (workshop.trainer(settings=replace(SETTINGS, max_steps=3)) for _ in range(2))
    straight.run()
    minitl.manual_seed(7)
    after_test = workshop.trainer(settings=replace(SETTINGS, max_steps=3))
    lr_range_test(after_test.model, workshop.train, SETTINGS, steps=10)
    again = type(after_test)(after_test.model, workshop.train, replace(SETTINGS, max_steps=3))
    again.run()
    assert weights_sha256(straight.model.state_dict()) == weights_sha256(again.model.state_dict())


def test_a_range_that_is_none_is_refused(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    with pytest.raises(MinitlError, match="0 < lowest < highest"):
        lr_range_test(workshop.model(), workshop.train, lowest=1.0, highest=0.1)
