"""Device names: two work now, one has a clear answer, everything else is a mistake."""

from typing import Any

import numpy as np
import pytest
from simulator import needs_compiler

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


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_planned_devices(use: Any, device: str) -> None:
    with pytest.raises(DeviceError, match=rf"device '{device}': .* not part of this version; use 'cpu'"):
        use(device)


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
