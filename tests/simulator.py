"""Where CUDA kernels are tested: on the simulator, or with ``pytest --device cuda`` on a GPU; and reasons to skip."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from minitl.device import DeviceError, check_device, module_of
from minitl.kernels.attention.layout import Layout
from minitl.kernels.cudasim import CompilerNotFound, find_compiler
from minitl.kernels.launch import bfloat16

#: ``"cudasim"`` or ``"cuda"``; conftest.py writes what the command line says here.
DEVICE = os.environ.get("MINITL_TEST_DEVICE", "cudasim")


def _no_compiler() -> str:
    try:
        find_compiler()
    except CompilerNotFound as error:
        return str(error)
    return ""


def _no_device() -> str:
    if os.environ.get("MINITL_KERNELS") == "reference":
        return "the reference kernels are asked for"
    try:
        check_device(DEVICE)
    except DeviceError as error:
        return str(error)
    return ""


#: For tests of the simulator itself.
needs_compiler = pytest.mark.skipif(bool(_no_compiler()), reason=_no_compiler())
#: For tests of kernels, wherever they run.
needs_device = pytest.mark.skipif(bool(_no_device()), reason=_no_device())
on_the_simulator = pytest.mark.skipif(DEVICE != "cudasim", reason="the simulator's; --device names another")


def there(value: Any) -> Any:
    """Return an array of the host, or what contains some, on DEVICE."""
    if DEVICE == "cudasim":
        return value
    if isinstance(value, np.ndarray):
        bits = module_of(DEVICE).asarray(value.view(np.uint16) if value.dtype == bfloat16() else value)
        return bits.view(bfloat16()) if value.dtype == bfloat16() else bits
    if isinstance(value, Layout):
        return dataclasses.replace(value, **{name: there(array) for name, array in vars(value).items()})
    if isinstance(value, list | tuple):
        return type(value)(map(there, value))
    return value


def here(value: Any) -> Any:
    """Return an array of DEVICE, or what contains some, on the host."""
    if isinstance(value, list | tuple):
        return type(value)(map(here, value))
    if not hasattr(value, "get") or isinstance(value, dict):
        return value
    return value.view(np.uint16).get().view(bfloat16()) if value.dtype == bfloat16() else value.get()


class Placed:
    """A kernel's module, for arrays on the host wherever the kernel runs; what it writes is brought back, too."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self._module, name)
        if DEVICE == "cudasim":
            return function  # type: ignore[no-any-return]

        def call(*arguments: Any, **options: Any) -> Any:
            moved, named = there(arguments), {key: there(value) for key, value in options.items()}
            result = function(*moved, **named)
            pairs = [*zip(arguments, moved, strict=True), *((options[key], named[key]) for key in options)]
            for before, after in pairs:
                if isinstance(before, np.ndarray):
                    before[...] = here(after)
                    if after is result:
                        return before
            return here(result)

        return call
