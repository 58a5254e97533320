"""Memory that is shared with NumPy: through ``__array__``, and through DLPack both ways."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import strict_array
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import minitl
from minitl import Tensor
from minitl.errors import DeviceError
from minitl.tensor import DTYPES

NAMES = sorted(dtype.name for dtype in DTYPES)
ARRAYS = st.sampled_from(NAMES).flatmap(
    lambda name: hnp.arrays(name, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)


class OldProducer:
    """An array as a library of 2022 shares it: ``__dlpack__`` has one argument."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.dtype = array.dtype

    def __dlpack__(self, stream: Any = None) -> Any:
        return self.array.__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


class Elsewhere:
    """An array in memory of another kind; what would be in the capsule must not be asked for."""

    dtype = np.dtype(np.float32)

    def __init__(self, kind: int, number: int = 0) -> None:
        self.place = (kind, number)

    def __dlpack__(self, **options: Any) -> Any:
        raise AssertionError("asked for its capsule")

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.place


@given(array=ARRAYS)
def test_every_dtype_and_shape_travels_both_ways_in_one_memory(array: np.ndarray) -> None:
    array = array.copy()
    tensor = Tensor(array)
    assert tensor.array is array
    out = np.from_dlpack(tensor)
    back = minitl.from_dlpack(array)
    assert out.dtype == back.dtype == array.dtype
    assert out.shape == back.shape == array.shape
    assert back.is_leaf
    assert not back.requires_grad
    assert out.ctypes.data == back.array.ctypes.data == array.ctypes.data
    assert out.flags.writeable
    assert back.array.flags.writeable
    out[...] = 1
    assert (back.numpy() == 1).all()
    back.copy_(np.zeros(array.shape, array.dtype))
    assert not array.any()


def test_strides_are_kept() -> None:
    whole = np.arange(24.0).reshape(4, 6)
    for part in (whole.T, whole[::2, 1::3], whole[::-1], np.broadcast_to(whole[:1], (4, 6)).copy(order="F")):
        for shared in (np.from_dlpack(Tensor(part)), minitl.from_dlpack(part).array):
            np.testing.assert_array_equal(shared, part)
            assert shared.strides == part.strides


def test_a_tensor_that_requires_a_gradient_is_not_shared() -> None:
    leaf = Tensor(np.zeros(3), requires_grad=True)
    for tensor in (leaf, leaf * 2):
        with pytest.raises(BufferError, match=r"requires a gradient .* tensor\.detach\(\)"):
            np.from_dlpack(tensor)
        with pytest.raises(BufferError, match=r"tensor\.detach\(\)"), minitl.no_grad():
            tensor.__dlpack__()
    shared = np.from_dlpack(leaf.detach())
    shared[0] = 5.0
    assert leaf.numpy().tolist() == [5.0, 0.0, 0.0]


def test_what_is_written_through_shared_memory_is_not_seen_by_version_checks() -> None:
    """As documented: minitl's own writer makes the gradient raise, another's write changes it silently."""
    x, weight = Tensor(np.ones(2), requires_grad=True), Tensor(np.full(2, 3.0))
    product = (x * weight).sum()
    np.from_dlpack(weight)[...] = 7.0
    product.backward()
    assert x.grad is not None
    assert x.grad.numpy().tolist() == [7.0, 7.0]
    product = (x * weight).sum()
    weight.copy_(np.zeros(2))
    with pytest.raises(RuntimeError, match="overwritten"):
        product.backward()


def test_options_of_the_protocol() -> None:
    tensor = Tensor(np.arange(3.0))
    assert tensor.__dlpack_device__() == (1, 0)
    copied = np.from_dlpack(tensor, copy=True)
    copied[0] = 9.0
    assert tensor.numpy()[0] == 0.0
    assert np.shares_memory(np.from_dlpack(tensor, copy=False, device="cpu"), tensor.array)
    assert "dltensor" in repr(tensor.__dlpack__())
    assert "dltensor_versioned" in repr(tensor.__dlpack__(max_version=(1, 0), dl_device=(1, 0)))
    with pytest.raises(BufferError, match="device"):
        tensor.__dlpack__(dl_device=(2, 0))
    with pytest.raises(RuntimeError, match="stream"):
        tensor.__dlpack__(stream=1)


def test_an_array_library_that_knows_no_options_is_not_given_them() -> None:
    """NumPy 2.0 has no ``max_version``; a consumer's None must not reach it."""
    old = OldProducer(np.arange(3.0))
    tensor = Tensor._wrap(old, "cpu")  # type: ignore[arg-type]
    assert "dltensor" in repr(tensor.__dlpack__(max_version=None, copy=None))


def test_bfloat16_is_not_shared_from_the_host() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    short = Tensor._wrap(np.zeros(3, ml_dtypes.bfloat16), "cpu")
    with pytest.raises(BufferError, match=r"cannot share bfloat16 through DLPack; .*astype\('float32'\)"):
        np.from_dlpack(short)


def test_an_old_producer_is_read() -> None:
    array = np.arange(3.0)
    tensor = minitl.from_dlpack(OldProducer(array))
    array[1] = 8.0
    assert tensor.numpy().tolist() == [0.0, 8.0, 2.0]


@pytest.mark.parametrize("dtype", ["float16", "complex64", "uint16", "uint32", "uint64"])
def test_dtypes_that_a_tensor_does_not_hold_are_named(dtype: str) -> None:
    with pytest.raises(BufferError, match=rf"this ndarray of {dtype} \(a Tensor holds float32, float64, .* convert"):
        minitl.from_dlpack(np.zeros(3, dtype))


def test_the_other_byte_order_is_refused() -> None:
    other = np.zeros(3, np.dtype(np.float32).newbyteorder())
    with pytest.raises(BufferError, match="byte order"):
        minitl.from_dlpack(other)
    with pytest.raises(TypeError, match="a Tensor holds"):
        Tensor(other)


def test_dtypes_that_numpy_does_not_know_are_named() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    with pytest.raises(BufferError, match=r"this ndarray of bfloat16: .* convert other dtypes first"):
        minitl.from_dlpack(np.zeros(3, ml_dtypes.bfloat16))


@pytest.mark.parametrize("thing", [[1.0, 2.0], 3.0, "text", None])
def test_what_does_not_speak_dlpack_is_refused(thing: Any) -> None:
    with pytest.raises(TypeError, match=rf"__dlpack__, not {type(thing).__name__}; Tensor\(array\)"):
        minitl.from_dlpack(thing)


def test_a_read_only_source_stays_read_only() -> None:
    array = np.arange(3.0)
    array.flags.writeable = False
    tensor = minitl.from_dlpack(array)
    assert tensor.numpy().tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(ValueError, match="read-only"):
        tensor.copy_([1.0, 1.0, 1.0])
    assert not np.from_dlpack(Tensor(array)).flags.writeable
    with pytest.raises(BufferError, match="readonly"):
        OldProducer(array).__dlpack__()


def test_a_tensor_comes_back_as_its_detached_self() -> None:
    leaf = Tensor(np.ones(2), requires_grad=True)
    weight = Tensor(np.full(2, 3.0))
    same = minitl.from_dlpack(weight)
    assert same.array is weight.array
    assert minitl.from_dlpack(leaf).requires_grad is False
    product = (leaf * weight).sum()
    same.copy_([0.0, 0.0])
    with pytest.raises(RuntimeError, match="overwritten"):
        product.backward()


def test_the_memory_lives_as_long_as_either_side() -> None:
    tensor = minitl.from_dlpack(np.full(1000, 3.0))
    array = np.from_dlpack(Tensor(np.full(1000, 4.0)))
    others = [np.zeros(1000) for _ in range(50)]  # would get the memory if it were free
    assert (tensor.numpy() == 3).all()
    assert (array == 4).all()
    assert not np.any(others)


def test_pinned_memory_is_the_hosts() -> None:
    class Pinned(OldProducer):
        def __dlpack_device__(self) -> tuple[int, int]:
            return (3, 0)

    array = np.arange(3.0)
    assert minitl.from_dlpack(Pinned(array)).device == "cpu"


def test_other_memory_is_refused() -> None:
    with pytest.raises(DeviceError, match=r"this Elsewhere is in memory of DLPack's kind 8, .* copy it to the host"):
        minitl.from_dlpack(Elsewhere(8))


def test_a_gpu_that_cannot_be_used_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(minitl.device._MODULES, "cuda", raising=False)
    monkeypatch.setattr(minitl.device, "cuda_problem", lambda: "CuPy is not installed")
    with pytest.raises(DeviceError, match="device 'cuda': CuPy is not installed"):
        minitl.from_dlpack(Elsewhere(2))


def test_memory_of_a_gpu_goes_to_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def take(source: Any) -> Any:
        taken.append(source)
        return strict_array.asarray(np.arange(3.0))

    gpu = SimpleNamespace(from_dlpack=take, asarray=strict_array.asarray)
    monkeypatch.setitem(minitl.device._MODULES, "cuda", gpu)
    for kind in (2, 13):
        source = Elsewhere(kind)
        tensor = minitl.from_dlpack(source)
        assert tensor.device == "cuda"
        assert tensor.numpy().tolist() == [0.0, 1.0, 2.0]
        assert taken.pop() is source
    monkeypatch.setattr(minitl.device, "cuda_problem", lambda: "there is 1 GPU")
    with pytest.raises(DeviceError, match="device 'cuda:1'"):
        minitl.from_dlpack(Elsewhere(2, 1))


# -- __array__ ---------------------------------------------------------------------------------------------------------


@given(
    array=ARRAYS, wanted=st.sampled_from([None, *NAMES, ">f4", "float16"]), copy=st.sampled_from([None, True, False])
)
def test_numpy_makes_of_a_tensor_what_it_makes_of_its_array(
    array: np.ndarray, wanted: str | None, copy: bool | None
) -> None:
    """The protocol of NumPy 2, compared with NumPy itself."""
    tensor = Tensor(array)
    with np.errstate(all="ignore"):
        try:
            expected = np.array(array, dtype=wanted, copy=copy)
        except ValueError:
            for convert in (np.array, np.asarray):
                with pytest.raises(ValueError, match="copy"):
                    convert(tensor, dtype=wanted, copy=copy)
            with pytest.raises(ValueError, match=f"copy=False, but {array.dtype} becomes .* only by a copy"):
                tensor.__array__(wanted, copy=copy)
            return
        for found in (np.array(tensor, dtype=wanted, copy=copy), tensor.__array__(wanted, copy=copy)):
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
            shared = found.ctypes.data == array.ctypes.data and array.size > 0
            assert shared == (expected.ctypes.data == array.ctypes.data and array.size > 0)
            if shared:
                assert not found.flags.writeable
            if copy:
                assert found.flags.writeable


def test_numpy_sees_what_a_tensor_becomes() -> None:
    tensor = Tensor(np.zeros(2), requires_grad=True)
    view = np.asarray(tensor)
    tensor.copy_([1.0, 2.0])
    assert view.tolist() == [1.0, 2.0]
    assert np.isnan(np.concatenate([tensor.detach(), [np.nan]])).tolist() == [False, False, True]


def test_on_a_gpu_the_host_must_be_asked_for(strict_device: str) -> None:
    tensor = Tensor(np.zeros(2), device=strict_device)
    for attempt in (np.asarray, np.array, lambda tensor: tensor.__array__("float32", copy=False)):
        with pytest.raises(TypeError, match=r"on 'strict'; call \.numpy\(\)"):
            attempt(tensor)
    assert np.asarray(tensor.numpy()).tolist() == [0.0, 0.0]
