"""The checks that every kernel begins with, and the arrays that the fused operations make for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strict_array
from fused_cases import FUSED
from kernel_mistakes import strided, unaligned
from op_cases import Variant

from minitl import Tensor, ops
from minitl.kernels import launch
from minitl.kernels.launch import check_floats, check_offsets, check_ranges, check_shapes, contiguous

Array = np.ndarray
x, bias = np.zeros((4, 5)), np.zeros(3)


@pytest.mark.parametrize("change", [np.asfortranarray, lambda a: a[::-1], lambda a: a[:, ::2], unaligned])
def test_contiguous_copies_what_kernels_refuse(change: Callable[[Array], Array]) -> None:
    array = change(np.arange(12.0).reshape(3, 4))
    copy = contiguous(array)
    assert copy is not array
    assert copy.flags.c_contiguous
    assert copy.flags.aligned
    np.testing.assert_array_equal(copy, array)
    check_floats(copy=copy)
    with pytest.raises(ValueError, match="array must be"):
        check_floats(array=array)


def test_contiguous_leaves_the_rest_alone() -> None:
    for array in (np.zeros((3, 4)), np.zeros(()), np.zeros((0, 3)), np.ones(3, bool), strict_array.asarray(x)):
        assert contiguous(array) is array
    boxed = strict_array.asarray(x)
    copy = contiguous(boxed.T)
    assert type(copy) is strict_array.ndarray
    assert copy.flags.c_contiguous
    assert copy.shape == (5, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": (x, "N D"), "bias": (bias, "D")}, "bias must be (D), with D = 5 as in x (N, D) of shape (4, 5); its "),
        ({"a": (None, "D"), "x": (x, "N D"), "bias": (bias, "D")}, "bias must be (D), with D = 5 as in x (N, D) of "),
        ({"H": 3, "x": (x, "H D")}, "x must be (H, D), with H = 3; its shape is (4, 5)"),
        ({"x": (x, "N N")}, "x must be (N, N), with N = 4; its shape is (4, 5)"),
        ({"x": (x, "D")}, "x must be (D); its shape is (4, 5)"),
        ({"x": (x, "")}, "x must be (); its shape is (4, 5)"),
    ],
)
def test_shapes_are_told(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="must be") as error:
        check_shapes(**arguments)
    assert str(error.value).startswith(message)


def test_shapes_that_fit() -> None:
    check_shapes(N=4, x=(x, "N D"), other=(None, "D"), weight=(x[0], "D"), loss=(np.float32(1), ""), more=(bias, "C"))


@pytest.mark.parametrize("value", [-1, 4, float("nan")])
def test_ranges_are_half_open(value: float) -> None:
    check_ranges(low=(0, 0, 4), high=(3.999, 0, 4), absent=(None, 0, 4))
    with pytest.raises(ValueError, match=r"index must be in \[0, 4\), got"):
        check_ranges(index=(value, 0, 4))


def test_offsets_on_the_device_are_refused() -> None:
    check_offsets(np.array([0, 2, 3], np.uint8), rows=3)
    with pytest.raises(TypeError, match="read on the host; got ndarray"):
        check_offsets(strict_array.asarray([0, 3]), rows=3)


def test_every_check_is_used() -> None:
    """By some kernel at least; what is found nowhere checks nothing."""
    text = "".join(path.read_text() for path in Path(launch.__file__).parent.glob("*/*.py"))
    for name in vars(launch):
        if name.startswith("check_"):
            assert f"{name}(" in text, name


@pytest.mark.parametrize("variant", FUSED, ids=str)
@pytest.mark.parametrize("layout", [unaligned, strided])
def test_fused_operations_take_memory_of_any_kind(variant: Variant, layout: Callable[[Array], Array]) -> None:
    """Operands and the arriving gradient; not a bit may differ."""
    case = variant.build((5, 3), np.random.default_rng(0))
    results = []
    for change in (np.copy, layout):
        leaves = [Tensor(change(array), requires_grad=True) for array in case.arrays]
        y = case.call(*leaves)
        y.backward(Tensor(change(np.arange(1.0, y.size + 1)).reshape(y.shape)))
        results.append([y.numpy(), *(leaf.grad.numpy() for leaf in leaves)])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_attention_takes_offsets_of_any_kind() -> None:
    rows = [Tensor(np.random.default_rng(i).standard_normal((5, 2))) for i in range(3)]
    plain = np.array([0, 3, 5])
    for offsets in (unaligned(plain), strided(plain)):
        y = ops.attention(*rows, offsets, heads=1)
        np.testing.assert_array_equal(y.numpy(), ops.attention(*rows, plain, heads=1).numpy())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations_of_32_and_64_bits_are_checked_like_all(dtype: type) -> None:
    x, weight = np.zeros(3, dtype), np.zeros(3, dtype)
    launch.check_activations({"weight": weight, "bias": None}, x=x, residual=None)
    other = np.zeros(3, np.float16)
    with pytest.raises(TypeError, match=r"a kernel takes one float dtype, got x: float\d\d, weight: float16"):
        launch.check_activations({"weight": other}, x=x)


def test_activations_of_16_bits_have_parameters_of_32() -> None:
    bfloat16 = launch.bfloat16()
    for short in (np.dtype(np.float16), bfloat16):
        assert launch.is_short(short)
        assert launch.is_float(short)
        assert launch.wide(short) == np.float32
        x, weight = np.zeros(4, short), np.zeros(4, np.float32)
        launch.check_activations({"weight": weight, "bias": None}, x=x, residual=None)
        with pytest.raises(TypeError, match=f"beside activations of {short}, weight must be float32; got x: {short}"):
            launch.check_activations({"weight": weight.astype(short)}, x=x)
        with pytest.raises(TypeError, match=f"beside activations of {short}, residual must be {short}"):
            launch.check_activations(x=x, residual=weight)
        with pytest.raises(ValueError, match="x must be C-contiguous"):
            launch.check_activations(x=x[::2])
        with pytest.raises(TypeError, match="x must be float32 or float64"):
            launch.check_floats(x=x)


def test_other_dtypes_are_none_of_these() -> None:
    assert not launch.is_short(np.dtype(np.float32))
    assert not launch.is_float(np.dtype(np.int16))
    assert launch.wide(np.dtype(np.float64)) == np.float64
