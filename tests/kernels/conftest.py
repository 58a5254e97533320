"""What the tests of the contract share: a second implementation that is there while a test runs."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kernel_implementations import FILES, Implementation, implementations


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, str], Implementation]]:
    """Put a copy of a folder's reference beside it as ``planted.py``, one piece of its text replaced."""
    planted = []
    monkeypatch.setitem(FILES, "planted", ("cpu",))

    def put(folder: str, old: str, new: str) -> Implementation:
        reference = importlib.import_module(f"minitl.kernels.{folder}.reference")
        package = sys.modules[f"minitl.kernels.{folder}"]
        text = inspect.getsource(reference)
        assert old in text, f"the reference of {folder} has no {old!r}"
        (tmp_path / "planted.py").write_text(text.replace(old, new))
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
        importlib.invalidate_caches()
        planted.append(package)
        return next(one for one in implementations(folder) if one.module.__name__.endswith(".planted"))

    yield put
    for package in planted:
        sys.modules.pop(f"{package.__name__}.planted", None)
        vars(package).pop("planted", None)
