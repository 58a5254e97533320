""".ci/check_cupy.py finds what is asked of an array module, and what the module lacks."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PATH = Path(__file__).parents[2] / ".ci" / "check_cupy.py"


@pytest.fixture(scope="module")
def check() -> Any:
    spec = importlib.util.spec_from_file_location("check_cupy", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_names(check: Any) -> None:
    text = """
import numpy as np
y = xp.exp(x) + self.xp.linalg.norm(x)
array_module(x).tanh(x); module_of(device).cuda.Event()
np.sin(x); x.shape; other.xp_like.cos
"""
    found = dict.fromkeys(name for _, name in check.names(text))
    assert {"exp", "linalg.norm", "tanh", "cuda.Event"} <= set(found)
    assert not {"sin", "shape", "cos"} & set(found)
    assert (3, "exp") in list(check.names(text))


@pytest.mark.parametrize(
    ("name", "lacks"),
    [("exp", ""), ("linalg.norm", ""), ("expm2", "expm2"), ("linalg.nurm", "linalg.nurm"), ("pi.real", "")],
)
def test_missing(check: Any, name: str, lacks: str) -> None:
    assert check.missing(name, np) == lacks
