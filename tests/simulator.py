"""The reason to skip a test that needs the simulator, where there is no C++ compiler."""

from __future__ import annotations

import pytest

from minitl.kernels.cudasim import CompilerNotFound, find_compiler


def _reason() -> str:
    try:
        find_compiler()
    except CompilerNotFound as error:
        return str(error)
    return ""


needs_compiler = pytest.mark.skipif(bool(_reason()), reason=_reason())
