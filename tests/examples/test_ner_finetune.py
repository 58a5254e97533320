"""The example as a user runs it: good input, every kind of bad input, Ctrl-C, a second run."""

import importlib
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny import write_tiny_data, write_tiny_model

import minitl
from minitl.models import BertForTokenClassification

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "ner_finetune.py"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_tiny_model(tmp_path / "model")
    write_tiny_data(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MINITL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the example's main() and return the exit code; a message for exit() goes to stderr as Python has it."""
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *arguments])
    try:
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
            return 1
        return int(stop.code or 0)
    return 0


TINY = ("--model", "model", "--data", "data", "--epochs", "2", "--lr", "0.01", "--batch-size", "4")


def test_it_learns_and_saves_and_runs_a_second_time(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *TINY, "--epochs", "25") == 0
    printed = capsys.readouterr()
    before, after = (float(line.split()[-2]) for line in printed.out.splitlines() if line.startswith("micro average"))
    assert after > max(0.9, before)  # every word has one tag: a model that trains at all learns them
    for expected in ("before training: test entity F1", "kept epoch", "gold entities", "token-level", "saved to runs"):
        assert expected in printed.out
    assert "epoch 25/25: loss" in printed.err
    assert "tokens/s" not in printed.out  # progress is for stderr
    assert run(monkeypatch, *TINY) == 0
    assert sorted(path.name for path in (workplace / "runs").iterdir()) == ["ner-1", "ner-2"]
    loaded = BertForTokenClassification.from_pretrained(workplace / "runs" / "ner-1")
    assert [span.label for span in loaded.tag("ben works for acme in rome")] == ["PER", "ORG", "LOC"]


def test_the_same_seed_gives_the_same_weights(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        assert run(monkeypatch, *TINY, "--seed", seed, "--output", name) == 0
    a, b, c = ((workplace / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_the_precision_holds_for_the_whole_run(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scores before and after, training, tagging; what is saved is float32."""
    with minitl.use_kernels("reference"):  # they compute bfloat16 on every processor
        for precision in ("float32", "bfloat16", "auto"):
            assert run(monkeypatch, *TINY, "--precision", precision, "--output", precision) == 0
    plain, rough, auto = (
        BertForTokenClassification.from_pretrained(workplace / name).state_dict()
        for name in ("float32", "bfloat16", "auto")
    )
    for name, values in plain.items():
        assert rough[name].dtype == np.float32
        np.testing.assert_array_equal(auto[name], values)  # with the reference kernels
    assert (rough["classifier.weight"] != plain["classifier.weight"]).any()
    capsys.readouterr()
    module, compiled = (
        importlib.import_module("minitl.precision"),
        SimpleNamespace(__name__="minitl.kernels.matmul.cpu"),
    )
    monkeypatch.setattr(module, "select", lambda name, device: compiled)
    monkeypatch.setattr(module, "processor", lambda: SimpleNamespace(bfloat16=False))
    assert run(monkeypatch, *TINY, "--precision", "bfloat16", "--output", "refused") == 1
    assert capsys.readouterr().err.startswith("error: precision 'bfloat16' needs a processor that multiplies it")
    assert not (workplace / "refused").exists()


def truncate(folder: Path) -> None:
    weights = folder / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def reshape(folder: Path) -> None:
    config = folder / "model" / "config.json"
    config.write_text(config.read_text().replace('"hidden_size": 16', '"hidden_size": 32'))


def rename(folder: Path) -> None:
    (folder / "model" / "model.safetensors").rename(folder / "model" / "weights.safetensors")


def drop_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "vocab.txt"):
        (folder / "model" / name).unlink(missing_ok=True)


def break_line(folder: Path) -> None:
    (folder / "data" / "dev.conll").write_text("anna\tB-PER\nlives\n")


BAD_INPUT = {
    "truncated weights": (truncate, (), "model.safetensors"),
    "another shape": (reshape, (), "hidden_size|shape"),
    "renamed weights": (rename, (), "model.safetensors"),
    "no tokenizer": (drop_tokenizer, (), "tokenizer"),
    "a bad line": (break_line, (), r"dev.conll:2: expected 2 columns.*found 1"),
    "an empty file": (lambda folder: (folder / "data" / "test.conll").write_text(""), (), "test.conll"),
    "no train": (lambda folder: (folder / "data" / "train.conll").unlink(), (), "train"),
    "no folder": (None, ("--data", "nowhere"), "nowhere"),
    "an unknown model": (None, ("--model", "nobody/nothing"), "nobody/nothing"),
    "output not empty": (None, ("--output", "data"), "not empty"),
    "no such device": (None, ("--device", "tpu"), "unknown device 'tpu'"),
    "a precision of GPUs": (None, ("--precision", "tf32"), "one of GPUs"),
    "too many layers": (None, ("--freeze", "9"), "9 layers"),
}
WRONG_USAGE = [
    ("--epochs", "0"), ("--epochs", "many"), ("--lr", "nan"), ("--batch-size", "-1"), ("--max-length", "2"),
    ("--seed", "-1"), ("--seed", "99999999999999999999"), ("--lr", "inf"), ("--colour",), ("--precision", "float16"),
]  # fmt: skip


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gets_one_clear_error(
    case: str, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, extra, message = BAD_INPUT[case]
    if spoil is not None:
        spoil(workplace)
    assert run(monkeypatch, *TINY, *extra) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: "), error
    assert re.search(message, error), error
    assert not list((workplace / "runs").glob("*"))  # no empty run folder is left


@pytest.mark.parametrize("arguments", WRONG_USAGE, ids=" ".join)
def test_wrong_usage_exits_with_2(
    arguments: tuple[str, ...], workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert arguments[0] in capsys.readouterr().err


def test_help_shows_the_defaults(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--help") == 0
    assert "default: 16" in capsys.readouterr().out


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT to a child process")
def test_control_c_ends_it_without_a_traceback(workplace: Path) -> None:
    command = [sys.executable, str(EXAMPLE), *TINY, "--epochs", "100000", "--output", "out"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
        # a test run in the background may ignore Ctrl-C, and its children would inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("epoch 1/")  # training has begun
            time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "interrupted; nothing was saved" in error
    assert "Traceback" not in error
    assert not (workplace / "out").exists()
