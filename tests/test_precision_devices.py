"""The precision policy on other devices than the CPU: which words hold where, and what "auto" stands for.

A GPU is a module that says which compute capability it has; the simulator is the real one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from simulator import needs_device

import minitl
from minitl import Tensor, ops, optim
from minitl.errors import DeviceError, PrecisionError
from minitl.kernels.launch import bfloat16
from minitl.precision import activations_in, current_precision, short_copy

policies = importlib.import_module("minitl.precision")  # the attribute of minitl is the function


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Pretend that there is a GPU of a compute capability, "90" for 9.0, and that kernels of a kind run on it."""

    def pretend(capability: str, kernels: str = "cuda") -> None:
        device = SimpleNamespace(compute_capability=capability)
        cupy = SimpleNamespace(cuda=SimpleNamespace(Device=lambda: device))
        monkeypatch.setattr(policies, "check_device", lambda name: name)
        monkeypatch.setattr(policies, "cupy_or_none", lambda: cupy)
        kernel = SimpleNamespace(__name__=f"minitl.kernels.matmul.{kernels}")
        monkeypatch.setattr(policies, "select", lambda name, device: kernel)

    return pretend


@pytest.mark.parametrize("compute", ["float32", "bfloat16", "tf32"])
@pytest.mark.parametrize("capability", ["80", "90", "103", "120"])
def test_a_gpu_with_tensor_cores_has_all(gpu: Callable[..., None], compute: str, capability: str) -> None:
    gpu(capability)
    with minitl.precision(compute, device="cuda") as policy:
        assert policy.compute == compute == current_precision().compute
    assert current_precision().compute == "float32"


@pytest.mark.parametrize(("capability", "auto"), [("75", "float32"), ("80", "bfloat16"), ("100", "bfloat16")])
def test_auto_on_a_gpu(gpu: Callable[..., None], capability: str, auto: str) -> None:
    """ "100" is 10.0: it is a number, and not to be compared as a word."""
    gpu(capability)
    with minitl.precision("auto", device="cuda") as policy:
        assert policy.compute == auto


@pytest.mark.parametrize("compute", ["bfloat16", "tf32"])
def test_an_old_gpu_refuses(gpu: Callable[..., None], compute: str) -> None:
    gpu("75")
    with pytest.raises(PrecisionError) as caught, minitl.precision(compute, device="cuda"):
        raise AssertionError("never entered")
    assert str(caught.value) == (
        f"precision '{compute}' needs a GPU of compute capability 8.0 or newer, this one has 7.5; use 'float32' or "
        "'auto', for prediction 'float16'"
    )
    with minitl.precision("float32", device="cuda") as policy:
        assert policy.compute == "float32"


def test_reference_kernels_imitate_bfloat16_on_any_gpu(gpu: Callable[..., None]) -> None:
    gpu("75", "reference")
    with minitl.precision("bfloat16", device="cuda") as policy:
        assert policy.compute == "bfloat16"
    gpu("90", "reference")
    with minitl.precision("auto", device="cuda") as policy:
        assert policy.compute == "float32"
    gpu("75", "reference")
    with pytest.raises(PrecisionError, match="'tf32' needs a GPU"), minitl.precision("tf32", device="cuda"):
        raise AssertionError("never entered")


def test_tf32_is_none_of_the_cpus() -> None:
    for kernels in ("reference", "auto"):
        with (
            minitl.use_kernels(kernels),
            pytest.raises(PrecisionError, match=r"one of GPUs: say minitl.precision\('tf32', device='cuda'\)"),
            minitl.precision("tf32"),
        ):
            raise AssertionError("never entered")
    assert current_precision().compute == "float32"


def test_a_device_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found out before the training, and in the words of the device."""
    monkeypatch.setattr("minitl.device.cuda_problem", lambda: "there is none")
    monkeypatch.delitem(minitl.device._MODULES, "cuda", raising=False)
    for compute in ("bfloat16", "tf32", "auto"):
        with pytest.raises(DeviceError, match="there is none"), minitl.precision(compute, device="cuda"):
            raise AssertionError("never entered")
    with pytest.raises(DeviceError, match="unknown device 'tpu'"), minitl.precision("bfloat16", device="tpu"):
        raise AssertionError("never entered")


@pytest.mark.parametrize("device", ["cpu", "cuda", "cudasim"])
def test_other_words_are_refused_everywhere(device: str) -> None:
    with (
        pytest.raises(ValueError, match="precision takes 'float32', 'bfloat16', 'float16', 'tf32', 'auto', not 'fp16'"),
        minitl.precision("fp16", device=device),
    ):
        raise AssertionError("never entered")


@pytest.mark.parametrize("number", ["", ":0"])
def test_devices_with_a_number(number: str) -> None:
    """They are the same devices."""
    with minitl.use_kernels("reference"), minitl.precision("bfloat16", device=f"cpu{number}") as policy:
        assert policy.compute == "bfloat16"


def test_a_device_is_a_word() -> None:
    with pytest.raises(TypeError, match="a device is a string"), minitl.precision("bfloat16", device=0):  # type: ignore[arg-type]
        raise AssertionError("never entered")


def test_the_simulator_needs_its_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing() -> None:
        raise minitl.errors.DeviceError("device 'cudasim': no compiler")

    monkeypatch.setattr("minitl.device._check_simulator", nothing)
    with pytest.raises(DeviceError, match="no compiler"), minitl.precision("float32", device="cudasim"):
        raise AssertionError("never entered")


# -- the simulator -----------------------------------------------------------------------------------------------------


@needs_device
@pytest.mark.parametrize(
    ("compute", "resolved"), [("float32", "float32"), ("bfloat16", "bfloat16"), ("auto", "float32")]
)
def test_the_simulator(compute: str, resolved: str) -> None:
    """Where there is no speed, "auto" takes what is exact."""
    with minitl.precision(compute, device="cudasim:0") as policy:
        assert policy.compute == resolved
    with minitl.precision(compute, device="cudasim") as policy:
        assert policy.compute == resolved
        assert (activations_in("cudasim") == bfloat16()) == (resolved == "bfloat16")


@needs_device
def test_the_simulator_has_no_tf32() -> None:
    with pytest.raises(PrecisionError, match="the simulator has none"), minitl.precision("tf32", device="cudasim"):
        raise AssertionError("never entered")


@needs_device
def test_activations_are_bfloat16_from_the_embeddings_on() -> None:
    """On the simulator; parameters, their gradients and the logits of a loss are float32."""
    random = np.random.default_rng(0)

    def parameter(*shape: int) -> Tensor:
        return Tensor(random.normal(size=shape).astype(np.float32), requires_grad=True, device="cudasim")

    table, weight, bias = parameter(9, 16), parameter(16, 16), parameter(16)
    with minitl.precision("bfloat16", device="cudasim"):
        x = ops.embedding(table, np.array([3, 1, 8]))
        y = ops.gelu(ops.layer_norm(ops.linear(x, weight), bias, bias, eps=1e-5), bias)
    assert x.dtype == y.dtype == bfloat16()
    ops.astype(y, "float32").sum().backward()
    for one in (table, weight, bias):
        assert one.grad is not None
        assert one.grad.dtype == np.float32
        assert np.isfinite(one.grad.numpy()).all()
    with minitl.precision("float32", device="cudasim"):
        assert ops.embedding(table, np.array([3])).dtype == np.float32


@needs_device
def test_on_the_cpu_and_for_reference_kernels_activations_are_float32() -> None:
    with minitl.use_kernels("reference"), minitl.precision("bfloat16"):
        assert activations_in("cpu") is None
        assert activations_in("cudasim") is None
    assert activations_in("cudasim") is None


@needs_device
@pytest.mark.parametrize("in_optimizer", [False, True])
def test_a_weights_copy_follows_it(in_optimizer: bool) -> None:
    """It is made once, and again when the weight has changed: by copy_, or by a step."""
    weight = Tensor(np.arange(6, dtype=np.float32).reshape(2, 3) / 7, requires_grad=True, device="cudasim")
    optimizer = optim.SGD([weight], lr=0.5) if in_optimizer else None
    first = short_copy(weight, bfloat16())
    np.testing.assert_array_equal(first, weight.array.astype(bfloat16()))
    first[0, 0] = 99  # nobody looks at the weight again while it has not changed
    assert short_copy(weight, bfloat16())[0, 0] == 99
    weight.copy_(np.ones((2, 3), np.float32) / 3)
    again = short_copy(weight, bfloat16())
    assert again.ctypes.data == first.ctypes.data  # a CUDA graph knows its address
    np.testing.assert_array_equal(again, weight.array.astype(bfloat16()))
    if optimizer is not None:
        weight.grad = Tensor(np.ones((2, 3), np.float32), device="cudasim")
        optimizer.step()
        np.testing.assert_array_equal(short_copy(weight, bfloat16()), (weight.array).astype(bfloat16()))
        assert (short_copy(weight, bfloat16()) != bfloat16().type(1 / 3)).all()


@pytest.mark.parametrize("capability", ["75", "90"])
def test_float16_is_for_every_gpu(gpu: Callable[..., None], capability: str) -> None:
    gpu(capability)
    with minitl.precision("float16", device="cuda") as policy:
        assert policy.compute == "float16"
        assert activations_in("cuda") == np.float16
