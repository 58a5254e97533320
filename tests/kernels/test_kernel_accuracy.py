"""The fused operations are as accurate as their compositions, and not finite where they are not.

``python tests/kernels/kernel_accuracy.py`` prints how near to the bound each of them comes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from accuracy_cases import BUILDERS, cases, poisoned
from kernel_accuracy import BLAS, Measurement, measure, together, worst_ratios
from kernel_implementations import Implementation, implementations

each_implementation = pytest.mark.parametrize(
    "implementation", [one for folder in BUILDERS for one in implementations(folder)], ids=str
)


@each_implementation
def test_no_less_accurate_than_its_composition(implementation: Implementation) -> None:
    alone = 2 if implementation.folder in BLAS else 1  # twice the bound is no chance
    found = []
    for case in cases(implementation.folder):
        found += measure(case, implementation)
        for one in found[-1 - len(case.arrays) :]:
            assert one.same_pattern, f"{implementation}: not finite in other places, {one}"
            assert one.ratio <= alone, f"{implementation}: {one.ratio:.2f} of the bound, {one}"
    for one in together(found) if implementation.folder in BLAS else ():
        assert one.ratio <= 1, f"{implementation}: {one.ratio:.2f} of the bound, {one}"


@each_implementation
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_where_the_composition_is_not(implementation: Implementation, value: float) -> None:
    random = np.random.default_rng(0)
    for case in cases(implementation.folder):
        # the gradient of a softmax row with a NaN is NaN in its masked columns, too; the composition has 0 there
        if case.arrays[0].size <= 200 and "mask" not in case.label:
            for argument in range(len(case.arrays)):
                for one in measure(poisoned(case, argument, value, random), implementation):
                    assert one.same_pattern, f"{implementation}: {one}"


def test_the_table_shows_the_worst() -> None:
    good, bad = (
        Measurement("gelu erf", "(2, 3)", "value", 5.0, 3.0, True),
        Measurement("g", "s", "value", 9.0, 2.0, True),
    )
    slope = Measurement("gelu erf", "(2, 3)", "gradient 0", 9.0, 2.0, True)
    assert (good.ratio, bad.ratio, slope.ratio) == (5 / 4.5, 9 / 4, 9 / 4)
    _, values, gradients = worst_ratios({"gelu": [good, bad, slope]}).splitlines()
    assert values.split() == ["gelu", "values", "2", "9.00", "2.00", "2.25", "g", "s"]
    assert gradients.split()[:3] == ["gelu", "gradients", "1"]


def test_there_are_enough_cases() -> None:
    """200 inputs, and large means, large logits and masked rows among them."""
    labels = [f"{case}" for folder in BUILDERS for case in cases(folder)]
    assert len(labels) == len(set(labels)) >= 200
    for special in ("mean 100", "logits of 0 and 1e3", "masked rows", "ignored", "tails", "scores near 1e3"):
        assert sum(special in label for label in labels) >= 7, special


FAULTS = {
    "variance in one pass": (
        *("layer_norm", "variance = (centred * centred).mean(axis=1)"),
        "variance = abs((total * total).mean(axis=1) - mean * mean)",
    ),
    "mean as it was rounded": ("layer_norm", "    normalised -= normalised.mean(axis=1)[:, None]\n", ""),
    "loss from the rounded log_sum_exp": (
        *("cross_entropy", "(log_total - label_below)"),
        "(maximum[:, 0] + log_total - (maximum[:, 0] + label_below))",
    ),
    "probabilities as they were rounded": ("cross_entropy", " / probabilities.sum(axis=1, keepdims=True)", ""),
    "rows not renormalised": ("attention", "        probabilities /= probabilities.sum(axis=2, keepdims=True)\n", ""),
    "1e-6 of a value": ("gelu", "return u * normal", "return 1.000001 * u * normal"),
    "one row less in a sum": ("gelu", "grad_x.sum(axis=0)", "grad_x[1:].sum(axis=0)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_less_accurate_kernels_are_found(fault: str, plant: Callable[[str, str, str], Implementation]) -> None:
    planted = plant(*FAULTS[fault])
    with pytest.raises(AssertionError, match="Measurement"):
        test_no_less_accurate_than_its_composition(planted)
