"""``minitl export``: what it refuses; tests/reference has what it writes."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import cli_tools
import pytest
from tiny import write_tiny_model

from minitl.cli import export

run = partial(cli_tools.run, "export")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "model", id2label={0: "O", 1: "B-PER", 2: "I-PER"})


def test_without_onnx_one_line_says_how_to_get_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    code, out, err = run(folder, tmp_path / "x.onnx")
    assert (code, out) == (1, "")
    assert err.startswith('minitl: export to ONNX needs the package onnx: pip install "minitl[onnx]"')
    assert err.count("\n") == 1
    assert not (tmp_path / "x.onnx").exists()


def test_an_existing_file_is_kept(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"before")
    code, out, err = run(folder, path)
    assert (code, out) == (1, "")
    assert err == f"minitl: {path}: exists; choose another name, or replace it with --overwrite\n"
    assert path.read_bytes() == b"before"


def test_what_cannot_be_a_file_of_onnx_is_refused(folder: Path, tmp_path: Path) -> None:
    code, out, err = run(folder, tmp_path / "x.pb")
    assert (code, out) == (2, "")
    assert "OUTPUT must end in .onnx, found 'x.pb'" in err
    assert run(folder)[0] == 2
    (tmp_path / "folder.onnx").mkdir()
    assert run(folder, tmp_path / "folder.onnx")[0] == 2
    code, _, err = run(folder, tmp_path / "none" / "x.onnx")
    assert code == 1
    assert f"{tmp_path / 'none'}: is no folder" in err


def test_help() -> None:
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    assert "minitl export runs/ner-1 tagger.onnx" in out
    assert "MODEL_FOLDER OUTPUT.onnx" in out


def test_the_command_line_stays_light(tmp_path: Path) -> None:
    code = "import minitl.cli.main, sys; print([n for n in ('onnx', 'onnxruntime') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("length", [1, 2, 3, 32])
def test_the_sentences_of_the_check_have_every_padding(length: int) -> None:
    inputs = export._sentences(7, length, 1)
    mask = inputs["attention_mask"]
    assert mask.any(axis=1).all(), "a row with nothing kept is refused by minitl"
    if length > 1:
        assert not mask[1, -1]
        assert not mask[2, 0]
    assert inputs["input_ids"].max() < 7
    assert not inputs["token_type_ids"].any()
