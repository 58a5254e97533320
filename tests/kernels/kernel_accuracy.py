"""How accurate are the fused operations beside their compositions? ``python tests/kernels/kernel_accuracy.py`` tells.

For every case: the value and every gradient, in float32, of the fused operation and of the composed one; the errors are
against float64, the value's by ``tests/gold.py``, the gradients' by the composed operation in float64, which finite
differences have checked. The largest error of the fused one may be 1.5 times (gradients: twice) the composed one's, and
4 eps of the array's largest element in any case: below that, which error is larger is chance. So it is in arrays of
less than 64 elements, which are not judged. Where the right answer is not finite, the fused one must be the same.

Sums of matrix products are a BLAS's, whose order depends on machine, shape and transposition; which error is larger is
then chance in larger arrays, too: of 3,700, measured, one passed the bound, by 0.3 %. So the two kernels made of them
are judged by the shapes of one kind taken together, each in units of its own largest element.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

if __name__ == "__main__":  # pytest does it by itself
    sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from accuracy_cases import BUILDERS, Case, cases
from kernel_implementations import Implementation, implementations

from minitl import Tensor
from minitl.kernels.select import IMPLEMENTATIONS, use_kernels

EPS = float(np.finfo(np.float32).eps)
FACTORS = {"value": 1.5, "gradient": 2.0}
FEWEST = 64
BLAS = {"attention", "matmul"}


@dataclass(frozen=True)
class Measurement:
    """The errors of one array of one case, in units of eps times its largest element.

    Attributes:
        kind: kernel and what is special about the input.
        shape: of the case; "all" of several.
        what: "value", or "gradient" with the number of the argument.
        fused, composed: largest errors.
        same_pattern: whether NaN and infinities are where they should be.
    """

    kind: str
    shape: str
    what: str
    fused: float
    composed: float
    same_pattern: bool

    @property
    def ratio(self) -> float:
        """The fused error, as a share of what is allowed: above 1 it is too large."""
        return self.fused / max(FACTORS[self.what.split()[0]] * self.composed, 4.0)


def run(case: Case, call: object, dtype: type, device: str = "cpu") -> list[np.ndarray]:
    """The value and the gradients of all arguments, for one fixed gradient of the value."""
    leaves = [Tensor(array.astype(dtype), requires_grad=True, device=device) for array in case.arrays]
    with np.errstate(all="ignore"):
        value = call(*leaves)  # type: ignore[operator]
        incoming = np.random.default_rng(1).standard_normal(value.shape).astype(np.float32)
        value.backward(Tensor(incoming.astype(dtype), device=device))
    return [value.numpy(), *(leaf.grad.numpy() for leaf in leaves)]  # type: ignore[union-attr]


def measure(case: Case, implementation: Implementation) -> list[Measurement]:
    """Compare the value, and the gradient of every argument."""
    name = implementation.module.__name__.split(".")[-1]
    with mock.patch.dict(IMPLEMENTATIONS, {implementation.device: name}), use_kernels("auto"):
        fused = run(case, case.fused, np.float32, implementation.device)
    composed = run(case, case.composed, np.float32)
    wide = run(case, case.composed, np.float64)
    with np.errstate(all="ignore"):
        wide[0] = np.asarray(case.gold(*case.arrays))
    whats = ["value", *(f"gradient {i}" for i in range(len(case.arrays)))]
    return [_compare(case, what, *arrays) for what, *arrays in zip(whats, fused, composed, wide, strict=True)]


def _compare(case: Case, what: str, fused: np.ndarray, composed: np.ndarray, wide: np.ndarray) -> Measurement:
    assert fused.shape == composed.shape == wide.shape, f"{case} {what}"
    finite = np.isfinite(wide)
    same = bool((np.isfinite(fused) == finite).all())
    if what == "value":  # in a gradient, inf or inf - inf depends on the order of the steps
        same = same and np.array_equal(fused[~finite], wide[~finite], equal_nan=True)
    judged = wide.size >= FEWEST and finite.any()
    unit = EPS * float(np.abs(wide[finite]).max(initial=0.0))

    def error(array: np.ndarray) -> float:
        largest = float(np.abs(array[finite] - wide[finite]).max(initial=0.0))
        return 0.0 if largest == 0 else largest / unit if unit else math.inf

    errors = (error(fused), error(composed)) if judged else (0.0, 0.0)
    return Measurement(f"{case.folder} {case.label}", case.shape, what, *errors, same)


def together(measurements: list[Measurement]) -> list[Measurement]:
    """The shapes of one kind as one array, and so their gradients."""
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for one in measurements:
        groups.setdefault((one.kind, one.what.split()[0]), []).append(one)
    return [
        Measurement(
            *(kind, "all", what, max(one.fused for one in group), max(one.composed for one in group)),
            all(one.same_pattern for one in group),
        )
        for (kind, what), group in groups.items()
    ]


def measure_all(implementation: Implementation) -> list[Measurement]:
    return [measurement for case in cases(implementation.folder) for measurement in measure(case, implementation)]


def worst_ratios(measured: dict[str, list[Measurement]]) -> str:
    """Return a table: each kernel's array that comes nearest to the bound, of its measurements by folder."""
    lines = ["kernel         arrays of   judged     fused   composed  of the bound  where"]
    for folder, found in measured.items():
        for what in FACTORS:
            some = [one for one in (together(found) if folder in BLAS else found) if one.what.startswith(what)]
            worst = max(some, key=lambda one: one.ratio)
            numbers = f"{len(some):6}  {worst.fused:8.2f}   {worst.composed:8.2f}  {worst.ratio:12.2f}"
            lines.append(f"{folder:14} {what + 's':11} {numbers}  {worst.kind} {worst.shape}")
    return "\n".join(lines)


if __name__ == "__main__":
    for number, file in enumerate(("reference.py", "cpu.py")):
        print(file)
        print(worst_ratios({folder: measure_all(implementations(folder)[number]) for folder in BUILDERS}))
