"""Device names: what is there works, what is missing has a clear answer, everything else is a mistake."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from simulator import needs_compiler

import minitl.device
import minitl.kernels.launch
from minitl import Tensor, nn
from minitl.device import check_device, module_of, move
from minitl.errors import DeviceError

USES = [
    lambda device: Tensor([1.0], device=device),
    lambda device: Tensor([1.0]).to(device),
    lambda device: nn.Linear(2, 2).to(device),
    check_device,
    module_of,
]


class FakeCupy:
    """As much of CuPy as says whether there is a GPU."""

    def __init__(self, version: str = "14.2.0", gpus: int = 1) -> None:
        self.__version__ = version
        self.cuda = SimpleNamespace(is_available=lambda: gpus > 0, runtime=SimpleNamespace(getDeviceCount=lambda: gpus))


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
@pytest.mark.parametrize(
    ("cupy", "problem"),
    [
        (None, r"CuPy, .* is not installed: pip install \"minitl\[cuda\]\""),
        (FakeCupy("13.6.0"), r"CuPy 13.6.0 is too old, 14 is needed"),
        (FakeCupy(gpus=0), "CuPy finds no GPU with a driver"),
    ],
)
def test_a_gpu_that_is_not_there(
    use: Any, device: str, cupy: Any, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minitl.kernels.launch, "cupy_or_none", lambda: cupy)
    monkeypatch.delitem(minitl.device._MODULES, "cuda", raising=False)
    with pytest.raises(DeviceError, match=rf"device '{device}': {problem}.*; or use 'cpu'"):
        use(device)


@pytest.mark.parametrize(
    ("device", "problem"),
    [
        ("cuda:2", "there are 2 GPUs, counted from 0"),
        ("cuda:1", "a process uses one GPU, its first: set CUDA_VISIBLE_DEVICES=1 and say 'cuda'"),
        ("cuda:x", "'x' is not the number of a GPU"),
        ("cuda:-1", "'-1' is not the number of a GPU"),
    ],
)
def test_numbers_of_gpus(device: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    two = FakeCupy(gpus=2)
    for place in (minitl.kernels.launch, minitl.device):
        monkeypatch.setattr(place, "cupy_or_none", lambda: two)
    monkeypatch.delitem(minitl.device._MODULES, "cuda", raising=False)
    with pytest.raises(DeviceError, match=f"device '{device}': {problem}; or use 'cpu'"):
        check_device(device)
    monkeypatch.setitem(minitl.device._MODULES, "cuda", np)  # what a check that succeeds enters
    assert check_device("cuda:0") == "cuda:0"


@pytest.mark.parametrize("use", USES)
def test_the_simulator_without_a_compiler(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        DeviceError, match=r"device 'cudasim': .*CXX names 'no-such-compiler', which is not a program here"
    ):
        use("cudasim")


@needs_compiler
def test_the_simulator_has_memory_of_its_own() -> None:
    """Both devices hold NumPy arrays, and a tensor that was moved is a copy all the same."""
    there = Tensor([1.0, 2.0], requires_grad=True)
    here = there.to("cudasim")
    here.copy_(np.zeros(2, np.float32))
    assert there.numpy().tolist() == [1.0, 2.0]
    assert here.requires_grad
    assert here.to("cudasim") is here
    with pytest.raises(ValueError, match="tensors on different devices, 'cpu' and 'cudasim'"):
        there + here
    layer = nn.Linear(2, 2)
    before = layer.weight.array
    assert not np.may_share_memory(layer.to("cudasim").weight.array, before)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("device", ["gpu", "", "CPU", "strict", ":0"])
def test_nonsense(use: Any, device: str) -> None:
    with pytest.raises(DeviceError, match=f"unknown device '{device}'"):
        use(device)


def test_not_a_string() -> None:
    for device in (0, None):
        with pytest.raises(TypeError, match="a device is a string"):
            check_device(device)


def test_the_cpu() -> None:
    assert check_device("cpu") == "cpu"
    assert module_of("cpu") is np
    array = np.zeros(3)
    assert move(array, "cpu") is array


def test_there_and_back(strict_device: str) -> None:
    array = np.arange(3.0)
    moved = move(array, strict_device)
    assert type(moved) is module_of(strict_device).ndarray
    assert move(moved, strict_device).get().tolist() == [0.0, 1.0, 2.0]
    back = move(moved, "cpu")
    assert type(back) is np.ndarray
    assert back.tolist() == [0.0, 1.0, 2.0]
