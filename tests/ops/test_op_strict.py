"""Every operation on the strict device, whose arrays refuse what CuPy's would, equals the CPU's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import strict_array
from fused_cases import VARIANTS
from op_cases import SHAPES, Case, Variant

from minitl import Tensor, ops


def run(case: Case, dtype: str, device: str) -> list[np.ndarray]:
    """Return the value and the gradients, and insist that all of them stayed on the device."""
    leaves = [Tensor(array.astype(dtype), requires_grad=True, device=device) for array in case.arrays]
    result = case.call(*leaves)
    weight = np.random.default_rng(1).standard_normal(result.shape)
    result.backward(Tensor(np.asarray(weight, result.dtype), device=device))
    tensors = [result, *(leaf.grad for leaf in leaves)]
    module: Any = {"cpu": np, "strict": strict_array}[device]
    for tensor in tensors:
        assert tensor.device == device
        assert type(tensor.array) is module.ndarray
    return [tensor.numpy() for tensor in tensors]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_equal_to_the_cpu(variant: Variant, dtype: str, strict_device: str) -> None:
    for shape in [shape for shape in SHAPES if variant.takes(shape)]:
        case = variant.build(shape, np.random.default_rng(0))
        for strict, plain in zip(run(case, dtype, strict_device), run(case, dtype, "cpu"), strict=True):
            # the same NumPy functions run underneath: not a bit may differ
            np.testing.assert_array_equal(strict, plain)
            assert strict.dtype == plain.dtype


COMPARISONS = ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"]


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons(name: str, strict_device: str) -> None:
    a, b = np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])
    for right in (Tensor(b, device=strict_device), b, 2.0):
        result = getattr(ops, name)(Tensor(a, device=strict_device), right)
        assert type(result.array) is strict_array.ndarray
        np.testing.assert_array_equal(result.numpy(), getattr(np, name)(a, 2.0 if isinstance(right, float) else b))


def test_argmax_and_rows(strict_device: str) -> None:
    x = Tensor(np.array([[1.0, 5.0], [7.0, 2.0]]), device=strict_device)
    assert ops.argmax(x).item() == 2
    assert ops.argmax(x, axis=1).numpy().tolist() == [1, 0]
    assert [row.numpy().tolist() for row in x] == [[1.0, 5.0], [7.0, 2.0]]


def test_values_come_and_go(strict_device: str) -> None:
    """Creation, printing, single numbers, conversion, moving there and back."""
    x = Tensor([[1.0, 2.0]], device=strict_device)
    assert repr(x) == "Tensor([[1., 2.]], dtype=float32, device='strict')"
    assert float(x[0, 1]) == 2.0
    assert int(x.sum()) == 3
    assert bool((x > 0).sum() == 2)
    assert x.astype("float64").numpy().dtype == np.float64
    assert x.astype("int64").numpy().tolist() == [[1, 2]]
    back = x.to("cpu")
    assert type(back.array) is np.ndarray
    assert back.numpy().tolist() == [[1.0, 2.0]]
    assert type(back.to(strict_device).array) is strict_array.ndarray


def test_copy_between_devices(strict_device: str) -> None:
    x, host = Tensor([1.0, 2.0], device=strict_device), Tensor([3.0, 4.0])
    x.copy_(host)
    assert x.numpy().tolist() == [3.0, 4.0]
    x.copy_([5.0, 6.0])
    host.copy_(x)
    assert host.numpy().tolist() == [5.0, 6.0]


def test_arrays_are_not_converted_silently(strict_device: str) -> None:
    x = Tensor([1.0, 2.0], device=strict_device)
    with pytest.raises(TypeError, match=r"call \.numpy\(\)"):
        np.asarray(x)
    with pytest.raises(ValueError, match="different devices"):
        x + Tensor([1.0, 2.0])
    assert (x + np.array([1.0, 2.0], np.float32)).numpy().tolist() == [2.0, 4.0]


class TestStrictArray:
    """The strict array itself refuses; otherwise the tests above show nothing."""

    array = strict_array.asarray([1.0, 2.0])

    @pytest.mark.parametrize(
        "use",
        [np.asarray, np.array, np.exp, np.sum, np.where, np.concatenate, np.array2string, np.add.reduce, list],
    )
    def test_numpy_functions(self, use: Any) -> None:
        with pytest.raises(TypeError):
            use(self.array)

    @pytest.mark.parametrize(
        "use",
        [
            lambda a, h: a + h,
            lambda a, h: h + a,
            lambda a, h: a * h,
            lambda a, h: a < h,
            lambda a, h: strict_array.maximum(a, h),
            lambda a, h: strict_array.concatenate([a, h]),
            lambda a, h: strict_array.where(a > 0, a, h),
            lambda a, h: a[h > 0],
            lambda a, h: a.__setitem__(slice(None), h),
            lambda a, h: h.__setitem__(slice(None), a),
            lambda a, h: strict_array.add.at(a, slice(None), h),
            lambda a, h: a.__iadd__(h),
            lambda a, h: a.max(initial=0),
        ],
    )
    def test_host_arrays(self, use: Any) -> None:
        with pytest.raises(TypeError):
            use(self.array, np.array([1.0, 2.0]))

    def test_numbers_are_fine(self) -> None:
        for result in (2 * self.array, np.float32(2) * self.array, self.array + np.float64(1)):
            assert type(result) is strict_array.ndarray

    def test_reductions_stay_arrays(self) -> None:
        for result in (self.array.sum(), self.array.max(), self.array[0], self.array.mean() * 2):
            assert type(result) is strict_array.ndarray
            assert result.shape == ()
        assert not hasattr(strict_array, "einsum")
