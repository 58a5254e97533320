"""Which implementations of a kernel there are: the files beside each other in its folder, and what ``select`` offers.

A file ``cpu.py`` or ``cuda.py`` that is added to a folder is found here, and then everything in this folder tests it.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pkgutil
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from kernel_uses import Use

import minitl.kernels
from minitl import device
from minitl.kernels.launch import is_array
from minitl.kernels.select import IMPLEMENTATIONS, select

#: The files that a folder may have, and the devices whose arrays they take.
FILES = {"reference": ("cpu",), "cpu": ("cpu",), "cuda": ("cudasim", "cuda")}
if os.environ.get("MINITL_KERNELS") == "reference":  # only these are asked for, so only these are tested
    FILES = {"reference": ("cpu",)}
#: Folders of kernels; the simulator is no kernel, but what kernels of CUDA can run on.
FOLDERS = [
    entry.name for entry in pkgutil.iter_modules(minitl.kernels.__path__) if entry.ispkg and entry.name != "cudasim"
]


@dataclass(frozen=True)
class Implementation:
    """A kernel's module, and a device whose arrays it takes."""

    module: ModuleType
    device: str

    @property
    def folder(self) -> str:
        return self.module.__name__.split(".")[-2]

    @property
    def is_reference(self) -> bool:
        return self.module.__name__.endswith(".reference")

    def __str__(self) -> str:
        return f"{self.folder}.{self.module.__name__.split('.')[-1]}-{self.device}"


def modules(folder: str) -> list[ModuleType]:
    """Every implementation in a folder, the reference first."""
    names = [f"minitl.kernels.{folder}.{file}" for file in FILES]
    return [importlib.import_module(name) for name in names if importlib.util.find_spec(name) is not None]


def implementations(folder: str) -> list[Implementation]:
    """Every implementation in a folder, on every device that is here; the reference first."""
    found = []
    for module in modules(folder):
        devices = FILES[module.__name__.rpartition(".")[2]]
        found += [Implementation(module, kind) for kind in devices if is_here(kind)]
    for kind in IMPLEMENTATIONS:
        if kind in ("cuda", "cudasim") and not is_here(kind):  # without a GPU, without a C++ compiler
            continue
        chosen = Implementation(select(folder, kind), kind)
        if chosen not in found:
            found.append(chosen)
    return found


def is_here(kind: str) -> bool:
    try:
        device.check_device(kind)
    except device.DeviceError:
        return False
    return True


def everywhere() -> list[Implementation]:
    return [implementation for folder in FOLDERS for implementation in implementations(folder)]


def signatures(module: ModuleType) -> dict[str, str]:
    """The public functions that a kernel module defines, without annotations."""
    folder = module.__name__.split(".")[-2]
    found = {}
    for name, function in vars(module).items():
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_"):
            signature = inspect.signature(function)
            bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
            found[f"{folder}.{name}"] = str(signature.replace(parameters=bare, return_annotation=signature.empty))
    return found


def prepared(arguments: dict[str, Any], dtype: Any, where: str) -> dict[str, Any]:
    """Copy the arguments to a device, the floats in ``dtype``. Offsets of sentences stay on the host."""

    def one(name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [one(name, item) for item in value]
        if name == "xp":
            return device.module_of(where)
        if not is_array(value):
            return value
        copy = np.array(device.move(value, "cpu"), dtype=dtype if value.dtype.kind == "f" else None)
        return copy if name == "cu_seqlens" else device.move(copy, where)

    return {name: one(name, value) for name, value in arguments.items()}


def call(implementation: Implementation, use: Use, arguments: dict[str, Any]) -> list[np.ndarray | None]:
    """Run a kernel function; return on the host what it returns and then what it has written."""
    result = getattr(implementation.module, use.name.partition(".")[2])(**arguments)
    results = [*(result if isinstance(result, tuple) else (result,)), *(arguments[name] for name in use.writes)]
    return [None if value is None else np.asarray(device.move(value, "cpu")) for value in results]
