"""What export to ONNX refuses, and what it says where the package is missing; tests/reference runs what it writes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_bert import CONFIG, tagger

from minitl import nn
from minitl.errors import CheckpointError, MinitlError, MissingPackageError
from minitl.models import BertModel, export_onnx, onnx_export


@pytest.fixture
def without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is installed, importing onnx fails."""
    monkeypatch.setitem(sys.modules, "onnx", None)


def test_without_the_package_one_error_says_how_to_get_it(tmp_path: Path, without_onnx: None) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"before")
    for error in (MissingPackageError, MinitlError, ImportError):
        with pytest.raises(error, match=r'export to ONNX needs the package onnx: pip install "minitl\[onnx\]"'):
            export_onnx(tagger(dtype="float32"), path)
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]
    assert path.read_bytes() == b"before"


@pytest.mark.parametrize(
    "thing", [None, "model", nn.Linear(2, 2), tagger().bert.encoder], ids=lambda x: type(x).__name__
)
def test_other_things_than_models_are_refused(tmp_path: Path, thing: Any) -> None:
    with pytest.raises(TypeError, match=f"a BertForTokenClassification or a BertModel, not {type(thing).__name__}"):
        export_onnx(thing, tmp_path / "model.onnx")


@pytest.mark.parametrize("opset", [16, 23, 17.0, "17", True, None])
def test_other_opsets_are_refused(tmp_path: Path, opset: Any) -> None:
    with pytest.raises(ValueError, match=f"opset must be a whole number from 17 to 22, found {opset!r}"):
        export_onnx(tagger(dtype="float32"), tmp_path / "model.onnx", opset=opset)


def test_float64_is_not_rounded_silently(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"these parameters are float64: model\.to\(dtype='float32'\)"):
        export_onnx(tagger(), tmp_path / "model.onnx")


def test_parameters_that_the_graph_has_no_place_for_are_named(tmp_path: Path) -> None:
    model = tagger(dtype="float32")
    for layer in model.bert.encoder.layer:
        layer.attention.self.query.low_rank = nn.Linear(2, 2, bias=False)
    with pytest.raises(
        CheckpointError, match=r"bert\.encoder\.layer\.\{0-1\}\.attention\.self\.query\.low_rank\.weight"
    ):
        export_onnx(model, tmp_path / "model.onnx")
    model = tagger(dtype="float32")
    model.bert.encoder.layer[1].output.dense = nn.Linear(19, 12)
    with pytest.raises(CheckpointError, match=r"another shape: bert\.encoder\.layer\.1\.output\.dense\.weight\. Merge"):
        export_onnx(model, tmp_path / "model.onnx")
    model.bert.encoder.layer = model.bert.encoder.layer[:1]
    with pytest.raises(CheckpointError, match=r"missing, .*bert\.encoder\.layer\.1\.output\.dense\.weight"):
        export_onnx(model, tmp_path / "model.onnx")
    encoder = BertModel(CONFIG)
    encoder.classifier = nn.Linear(12, 4)
    with pytest.raises(CheckpointError, match=r"classifier\.bias, classifier\.weight"):
        export_onnx(encoder, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_weights_beyond_what_one_file_holds_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tagger(dtype="float32")
    size = sum(array.nbytes for array in model.state_dict().values())
    monkeypatch.setattr(onnx_export, "LARGEST_FILE", size - 1)
    with pytest.raises(CheckpointError, match=f"{size:,} bytes of weights do not fit into one ONNX file"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
