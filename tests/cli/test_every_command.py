"""The command line in one table: good calls, bad ones and interrupted ones, each with its exit code and its streams.

The rules that hold for every call: data and nothing else on standard output, nothing there when a call fails; one line
on standard error for a mistake, without a traceback; 0 for success, 1 for a failure, 2 for wrong usage, 128 and the
number of the signal when interrupted.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli_tools import COMMAND, call_here
from tiny import write_tiny_data, write_tiny_model

from minitl.cli.predict import AT_ONCE
from minitl.text import read_folder
from minitl.text.conll import parse_conll


def nothing(out: str) -> None:
    assert out == ""


def a_json_object(out: str) -> None:
    assert isinstance(json.loads(out), dict)


def json_lines(out: str) -> None:
    assert out.endswith("\n")
    for line in out.splitlines():
        assert isinstance(json.loads(line), dict)


def conll(out: str) -> None:
    assert parse_conll(out.encode(), "standard output")


def a_text(out: str) -> None:
    assert len(out.splitlines()) > 3


def a_path(out: str) -> None:
    assert out.count("\n") == 1


@dataclass(frozen=True)
class Row:
    """One call: its words, the exit code, what standard output must be, a part of standard error, standard input."""

    words: str
    code: int = 0
    out: Callable[[str], None] = nothing
    err: str = ""
    stdin: bytes = b""


TRAIN = "train --data data --model model --epochs 1 --output"
TABLE = [
    # good
    Row("--version", out=a_path),
    Row("--help", out=a_text),
    Row("train --help", out=a_text),
    Row(f"{TRAIN} new", out=a_json_object, err="before training: test entity F1"),
    Row(f"{TRAIN} new --dry-run", err="would train 1 epochs"),
    Row("train --resume run", out=a_json_object),
    Row("evaluate run data", out=a_text),
    Row("evaluate run data/dev.conll --json", out=a_json_object),
    Row("evaluate run data --predictions new.conll", out=a_text),
    Row("predict run", out=json_lines, stdin=b"anna lives in oslo\nben\n"),
    Row("predict run", stdin=b""),
    Row("predict run --from words --to conll", out=conll, stdin=b"anna lives\n"),
    Row("predict run data/test.conll --to jsonl", out=json_lines),
    Row("predict run --to pretty --constrained", out=a_path, stdin=b"anna \x1b[2J\n"),
    Row("convert data/dev.conll --to jsonl", out=json_lines, err="sentences"),
    Row("convert data/dev.conll new.conllu", err="wrote new.conllu"),
    Row("inspect run", out=a_text),
    Row("inspect run/model.safetensors --json", out=a_json_object),
    Row("inspect data --model run --json", out=a_json_object),
    Row("inspect leaking", 1, out=a_text),  # test sentences that are in train: a fault of the data
    Row("compare run other", out=a_text),
    Row("doctor --quick", out=a_text),
    # a user's mistakes with files
    Row(f"{TRAIN} run", 1, err="run: the output folder is not empty"),
    Row(f"{TRAIN} data --overwrite", 1, err="no run.json"),
    Row("train --data nowhere --model model", 1, err="nowhere: expected a folder with train, dev and test files"),
    Row("train --data bad --model model", 1, err="bad/dev.conll:2: expected 2 columns"),
    Row("train --data data --model data", 1, err="data: has no config.json"),
    Row("train --resume data", 1, err="data"),
    Row("evaluate run data --predictions kept.txt", 1, err="kept.txt: exists; --overwrite replaces it"),
    Row("evaluate run bad/dev.conll", 1, err="bad/dev.conll:2: expected 2 columns"),
    Row("evaluate damaged data", 1, err="damaged/model.safetensors: "),
    Row("predict nowhere/model", 1, err="nowhere/model"),
    Row("predict run nowhere.txt", 1, err="nowhere.txt: cannot be read"),
    Row("predict run", 1, err="standard input:1: expected UTF-8, found byte 0xff", stdin=b"\xff\xfea\x00"),
    Row("convert bad/dev.conll --to jsonl", 1, err="bad/dev.conll:2: expected 2 columns"),
    Row("convert data/dev.conll kept.txt --to conll", 1, err="kept.txt: exists"),
    Row("inspect nowhere", 1, err="nowhere: is neither a folder nor a .safetensors file"),
    Row("inspect damaged/model.safetensors", 1, err="damaged/model.safetensors: "),
    Row("compare run nowhere", 1, err="nowhere"),
    Row("serve nowhere --port 0", 1, err="nowhere"),
    # wrong usage
    Row("", 2, out=nothing, err="Usage: minitl"),
    Row("tarin", 2, err="No such command 'tarin'"),
    Row("train --epochs many", 2, err="'many' is not a valid"),
    Row("train --learning-rte 1", 2, err="No such option"),
    Row("predict", 2, err="Missing argument 'MODEL'"),
    Row("predict run --from pdf", 2, err="'pdf' is not one of"),
    Row("convert data/dev.conll new.txt", 2, err="say its format with --to"),
    Row(
        "convert data/dev.conll --to jsonl --ner-key NER --word-column 0", 2, err="INPUT is conll; leave out --ner-key"
    ),
    Row("evaluate run data/dev.conll --part dev", 2, err="data/dev.conll is a file, which has no parts"),
    Row("inspect run --model run", 2, err="run is a model, not data; leave out --model"),
    Row("inspect run/model.safetensors --model run", 2, err="leave out --model"),
    Row("inspect data --tensors", 2, err="data is data, not a model; leave out --tensors"),
    Row("export run new.bin", 2, err="OUTPUT must end in .onnx"),
    Row("serve run --port 70000", 2, err="70000"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calls")
    labels = read_folder(write_tiny_data(folder / "data", 12)).labels.id2label
    write_tiny_model(folder / "model", id2label=labels, initializer_range=0.5)
    for name in ("run", "other"):
        done = call_here(*TRAIN.split(), name, folder=folder)
        assert done.code == 0, done.err
    shutil.copytree(folder / "data", folder / "bad")
    (folder / "bad" / "dev.conll").write_text("anna\tB-PER\nlives\n")
    shutil.copytree(folder / "data", folder / "leaking")
    shutil.copy(folder / "data" / "train.conll", folder / "leaking" / "test.conll")
    shutil.copytree(folder / "run", folder / "damaged")
    (folder / "damaged" / "model.safetensors").write_bytes((folder / "run" / "model.safetensors").read_bytes()[:-1])
    (folder / "kept.txt").write_text("kept")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "calls"))


def test_there_are_at_least_40() -> None:
    assert len(TABLE) >= 40


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.words or "nothing")
def test_a_call(row: Row, folder: Path) -> None:
    done = call_here(*row.words.split(), folder=folder, stdin=row.stdin)
    assert done.code == row.code, done.err
    row.out(done.out)
    assert row.err in done.err
    assert "Traceback" not in done.out + done.err
    assert "\x1b" not in done.out + done.err
    if row.code == 1 and row.err:
        assert any(line.startswith("minitl: ") for line in done.err.splitlines())
    assert (folder / "kept.txt").read_text() == "kept"


def test_with_debug_the_traceback_is_shown(folder: Path) -> None:
    words = [*COMMAND, "--debug", "evaluate", "run", "nowhere.conll"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training(number: signal.Signals, folder: Path) -> None:
    words = [*COMMAND, *TRAIN.split(), "new", "--epochs", "100000", "--patience", "100000"]
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    log = folder / "new" / "log.jsonl"
    deadline = time.monotonic() + 60
    while not (log.is_file() and log.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (128 + number, b"")
    assert b"Traceback" not in err
    assert b"minitl: interrupted by " + number.name.encode() in err


def test_an_interrupted_prediction(folder: Path) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(
        [*COMMAND, "predict", "run"],
        cwd=folder,
        bufsize=0,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs of a script have it ignored
        **pipes,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"anna\n" * AT_ONCE)
    process.stdin.flush()
    first = process.stdout.readline()  # it has begun, and waits for more
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    json_lines((first + out).decode())
    assert (process.returncode, err.strip()) == (128 + signal.SIGINT, b"interrupted")


def test_no_message_and_no_table_steers_a_terminal(folder: Path) -> None:
    """Names of files, labels and tensors may come from somebody else, with escape sequences in them."""
    evil = "\x1b]0;owned\x07\x9b31m\u202e"
    config = json.loads((folder / "run" / "config.json").read_text())
    config["id2label"]["1"] = f"B-{evil}"
    config["label2id"] = {label: int(number) for number, label in config["id2label"].items()}
    (folder / "run" / "config.json").write_text(json.dumps(config))
    (folder / f"{evil}.conll").write_text("anna\tB-\x1b[2J\n")
    shutil.copytree(folder / "run", folder / f"run{evil}")
    calls = [
        ("inspect", "run", "--tensors"),
        ("inspect", "run", "--json"),
        ("inspect", evil),
        ("inspect", f"run{evil}"),
        ("evaluate", "run", "data"),
        ("evaluate", "run", f"{evil}.conll"),
        ("evaluate", "run", f"{evil}.conll", "--json"),
        ("convert", f"{evil}.conll", "--to", "jsonl"),
        ("predict", evil),
        ("predict", "run", f"{evil}.conll", "--from", "conll", "--to", "pretty"),
        ("predict", "run", "data/dev.conll", "--to", "jsonl"),
        ("train", "--data", evil),
        ("train", "--data", "data", "--model", f"run{evil}", "--dry-run"),
        ("compare", "run", evil),
        ("export", evil, "x.onnx"),
        ("serve", evil, "--port", "0"),
    ]
    for words in calls:
        done = call_here(*words, folder=folder)
        for sign in ("\x1b", "\x07", "\x9b", "\u202e"):
            assert sign not in done.out + done.err, words


@pytest.mark.parametrize(
    "words", ["inspect a {}", "compare a b {} {}", "doctor {}", "{}", "predict --{}", "predict run --to {}"]
)
def test_a_usage_error_does_not_steer_a_terminal(words: str, tmp_path: Path) -> None:
    """The shell puts file names in place of a star, so one argument too many may be a name that somebody else chose."""
    done = call_here(*words.replace("{}", "\x1b[2J\x9b31m\u202e").split(), folder=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert "Error: " in done.err
    assert "\\x9b31m\\u202e" in done.err
    for sign in ("\x1b", "\x9b", "\u202e"):
        assert sign not in done.err


def test_a_traceback_does_not_steer_a_terminal(tmp_path: Path) -> None:
    done = call_here("--debug", "inspect", "\x1b[2J\x9b31m\u202e", folder=tmp_path)
    assert (done.code, done.out) == (1, "")
    first, *_, last = done.err.splitlines()
    assert first == "Traceback (most recent call last):"
    assert last.endswith("MinitlError: \\x1b[2J\\x9b31m\\u202e: is neither a folder nor a .safetensors file")
