"""The only dispatch: which implementation of a kernel runs on which device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from types import ModuleType

# What "auto" runs on each kind of device.
IMPLEMENTATIONS = {"cpu": "cpu", "cuda": "cuda", "cudasim": "cuda"}
CHOICES = ("auto", "reference")

_default = os.environ.get("MINITL_KERNELS", "auto")
if _default not in CHOICES:
    raise ValueError(f"MINITL_KERNELS must be one of {CHOICES}, got {_default!r}")
_choice: ContextVar[str] = ContextVar("kernels", default=_default)


def select(name: str, device: str) -> ModuleType:
    """Return the module that runs kernel ``name`` (a folder of this package) on ``device``.

    There is no fallback: a device without an entry raises, and so does a folder without the implementation.
    """
    kind = device.partition(":")[0]
    if _choice.get() == "reference":
        implementation = "reference"
    elif kind in IMPLEMENTATIONS:
        implementation = IMPLEMENTATIONS[kind]
    else:
        raise NotImplementedError(f"no kernels for device {device!r}; there are kernels for {sorted(IMPLEMENTATIONS)}")
    return import_module(f"minitl.kernels.{name}.{implementation}")


@contextmanager
def use_kernels(choice: str) -> Iterator[None]:
    """Choose the kernels inside a ``with`` block: ``"reference"``, the plain specification, or ``"auto"``, the fastest.

    Outside of any such block it is ``"auto"``, or what the environment variable ``MINITL_KERNELS`` says.

    The choice is a context variable: it holds for the current thread and for the tasks started from it.

    >>> with use_kernels("reference"):
    ...     select("gelu", "cpu").__name__
    'minitl.kernels.gelu.reference'
    """
    if choice not in CHOICES:
        raise ValueError(f"use_kernels takes 'auto' or 'reference', not {choice!r}")
    token = _choice.set(choice)
    try:
        yield
    finally:
        _choice.reset(token)
