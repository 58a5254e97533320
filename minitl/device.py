"""Where arrays live, and what computes with them.

``"cpu"``      NumPy arrays, and kernels compiled for this processor
``"cuda"``     CuPy arrays in the memory of a GPU, and CUDA kernels
``"cudasim"``  NumPy arrays and the CUDA kernels, which a simulator runs: to test them, and to watch them work
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from minitl.errors import DeviceError
from minitl.kernels.launch import Array, cuda_problem, cupy_or_none, is_array

# device kind -> the array module that allocates there; CuPy joins them when a GPU is first asked for, and found
_MODULES: dict[str, ModuleType] = {"cpu": np, "cudasim": np}
_KINDS = ("cpu", "cuda", "cudasim")


def check_device(device: str) -> str:
    """Return ``device`` if tensors can live there; otherwise raise with the reason.

    Raises:
        DeviceError: a name that is no device, ``"cuda"`` without CuPy or without a GPU, or ``"cudasim"`` without a C++
            compiler.
    """
    if not isinstance(device, str):
        raise TypeError(f"a device is a string such as 'cpu', not {type(device).__name__}")
    kind = device.partition(":")[0]
    if kind == "cudasim":
        _check_simulator()
    if kind == "cuda" and (kind not in _MODULES or device != kind):
        _check_gpu(device)
    if kind in _MODULES:
        return device
    raise DeviceError(f"unknown device {device!r}; use one of {', '.join(map(repr, _KINDS))}")


def _check_gpu(device: str) -> None:
    problem, cupy = cuda_problem(), cupy_or_none()
    if problem is None and cupy is not None:
        number = device.removeprefix("cuda").removeprefix(":") or "0"
        count = cupy.cuda.runtime.getDeviceCount()
        if not (number.isascii() and number.isdigit()):
            problem = f"{number!r} is not the number of a GPU"
        elif int(number) >= count:
            problem = f"there {'is 1 GPU' if count == 1 else f'are {count} GPUs'}, counted from 0"
        elif int(number):
            problem = f"a process uses one GPU, its first: set CUDA_VISIBLE_DEVICES={number} and say 'cuda'"
        else:
            _MODULES["cuda"] = cupy
    if problem is not None:
        raise DeviceError(f"device {device!r}: {problem}; or use 'cpu'")


def _check_simulator() -> None:
    from minitl.kernels.cudasim import CompilerNotFound, find_compiler  # here, since few programs need it

    try:
        find_compiler()
    except CompilerNotFound as error:
        raise DeviceError(f"device 'cudasim': {error}") from None


def module_of(device: str) -> ModuleType:
    """Return the array module that allocates on ``device``, after checking the name."""
    return _MODULES[check_device(device).partition(":")[0]]


def move(array: Array, device: str) -> Array:
    """Return ``array`` on ``device``, without a copy where it is there already."""
    xp = module_of(device)
    if xp is np and is_array(array) and not isinstance(array, np.ndarray):
        return array.get()  # CuPy does not convert silently
    return xp.asarray(array)
