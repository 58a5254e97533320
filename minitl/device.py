"""Where arrays live: ``"cpu"`` now; ``"cuda"`` and ``"cudasim"`` are names with a clear answer until they arrive."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from minitl.errors import DeviceError
from minitl.kernels.launch import Array, is_array

# device kind -> the array module that allocates there
_MODULES: dict[str, ModuleType] = {"cpu": np}

_PLANNED = {
    "cuda": "GPU support (CuPy arrays, CUDA kernels) is not part of this version",
    "cudasim": "the CUDA simulator is not part of this version",
}


def check_device(device: str) -> str:
    """Return ``device`` if tensors can live there; otherwise raise with the reason.

    Raises:
        DeviceError: a name that is no device, or a device that this version does not have yet.
    """
    if not isinstance(device, str):
        raise TypeError(f"a device is a string such as 'cpu', not {type(device).__name__}")
    kind = device.partition(":")[0]
    if kind in _MODULES:
        return device
    if kind in _PLANNED:
        raise DeviceError(f"device {device!r}: {_PLANNED[kind]}; use 'cpu'")
    raise DeviceError(f"unknown device {device!r}; use 'cpu'")


def module_of(device: str) -> ModuleType:
    """Return the array module that allocates on ``device``, after checking the name."""
    return _MODULES[check_device(device).partition(":")[0]]


def move(array: Array, device: str) -> Array:
    """Return ``array`` on ``device``, without a copy where it is there already."""
    xp = module_of(device)
    if xp is np and is_array(array) and not isinstance(array, np.ndarray):
        return array.get()  # CuPy does not convert silently
    return xp.asarray(array)
