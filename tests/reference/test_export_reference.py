"""``minitl export`` writes a file that ONNX Runtime runs, and only such a one."""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import cli_tools
import numpy as np
import pytest
from tiny import tiny_config, write_tiny_model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

import minitl  # noqa: E402
from minitl.cli import export  # noqa: E402
from minitl.models import BertModel  # noqa: E402

pytestmark = pytest.mark.reference

run = partial(cli_tools.run, "export")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "model", id2label={0: "O", 1: "B-PER", 2: "I-PER"})


def test_a_tagger_is_written_and_checked(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"before")
    code, out, err = run(folder, path, "--overwrite")
    assert (code, out) == (0, f"{path}\n")
    found = re.search(
        rf"checked on 4 random sentences with ONNX Runtime {re.escape(onnxruntime.__version__)}: "
        r"the largest difference is (\S+), the largest output (\S+)\n",
        err,
    )
    assert found is not None, err
    assert float(found[1]) <= 5e-6 * float(found[2]), "float32, as in tests/reference/test_onnx_reference.py"
    assert err.endswith(f"wrote {path.stat().st_size:,} bytes\n")
    onnx.checker.check_model(str(path))
    assert [one.name for one in onnx.load(path).graph.output] == ["logits"]
    assert run(folder, path)[0] == 1


def test_an_encoder_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    minitl.manual_seed(1)
    BertModel(tiny_config()).save_pretrained(tmp_path / "encoder")
    path = tmp_path / "x.onnx"
    code, out, err = run(tmp_path / "encoder", path)
    assert (code, out) == (1, "")
    assert "holds no trained classifier, only an encoder; train it first, or export that with --encoder" in err
    assert not path.exists(), "a random classifier is nothing to export"
    code, _, err = run(tmp_path / "encoder", path, "--encoder")
    assert code == 0
    assert "the largest difference is" in err
    assert [one.name for one in onnx.load(path).graph.output] == ["last_hidden_state", "pooler_output"]


def test_without_onnxruntime_it_says_that_nothing_was_checked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, _, err = run(folder, tmp_path / "x.onnx")
    assert code == 0
    assert "not checked: ONNX Runtime is not installed (pip install onnxruntime)\n" in err
    assert (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize("factor", [1.01, np.nan])
def test_a_file_with_other_results_is_not_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    true = export._their_results

    def wrong(*arguments: Any) -> list[np.ndarray]:
        return [result * np.float32(factor) for result in true(*arguments)]

    monkeypatch.setattr(export, "_their_results", wrong)
    code, out, err = run(folder, tmp_path / "x.onnx")
    assert (code, out) == (1, "")
    assert re.search(r"gives other results: the largest difference is \S+, .*; nothing was written", err)
    assert not (tmp_path / "x.onnx").exists()
