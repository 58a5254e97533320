"""The examples in docstrings do what they say, in every module of the package."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import minitl
import minitl.kernels

NAMES = sorted(
    {
        entry.name
        for package in (minitl, minitl.kernels)
        for entry in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not entry.name.endswith("__main__")
    }
    | {"minitl", "minitl.kernels"}
)


def examples(name: str) -> list[doctest.DocTest]:
    return [test for test in doctest.DocTestFinder().find(importlib.import_module(name)) if test.examples]


def test_the_walk_finds_them() -> None:
    """A walk that found nothing would pass everything."""
    found = {test.name for name in NAMES for test in examples(name)}
    assert {
        "minitl.tensor.Tensor",
        "minitl.autograd.Function",
        "minitl.kernels.select.use_kernels",
        "minitl.ops.operands.unbroadcast",
        "minitl.optim.schedule.linear_factor",
        "minitl.testing.gradients.check_gradients",
    } <= found


@pytest.mark.parametrize("name", [name for name in NAMES if examples(name)])
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    result = doctest.testmod(module)
    assert result.attempted == sum(len(test.examples) for test in examples(name)) > 0
    assert result.failed == 0, "see the output above"
