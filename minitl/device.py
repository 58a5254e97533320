"""Where arrays live, and what computes with them.

``"cpu"``      NumPy arrays, and kernels compiled for this processor
``"cudasim"``  NumPy arrays, too, but the CUDA kernels, which a simulator runs: to test them, and to watch them work
``"cuda"``     a name with a clear answer until it arrives
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from minitl.errors import DeviceError
from minitl.kernels.launch import Array, is_array

# device kind -> the array module that allocates there
_MODULES: dict[str, ModuleType] = {"cpu": np, "cudasim": np}

_PLANNED = {
    "cuda": "GPU support (CuPy arrays, CUDA kernels) is not part of this version",
}


def check_device(device: str) -> str:
    """Return ``device`` if tensors can live there; otherwise raise with the reason.

    Raises:
        DeviceError: a name that is no device, a device that this version does not have yet, or ``"cudasim"`` without
            a C++ compiler.
    """
    if not isinstance(device, str):
        raise TypeError(f"a device is a string such as 'cpu', not {type(device).__name__}")
    kind = device.partition(":")[0]
    if kind == "cudasim":
        _check_simulator()
    if kind in _MODULES:
        return device
    if kind in _PLANNED:
        raise DeviceError(f"device {device!r}: {_PLANNED[kind]}; use 'cpu'")
    raise DeviceError(f"unknown device {device!r}; use 'cpu'")


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
