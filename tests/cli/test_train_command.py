"""``minitl train``: what it leaves, its exit codes, and that a killed or interrupted run goes on to the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from cli_tools import COMMAND, call, call_here
from tiny import write_tiny_data, write_tiny_model

from minitl.models import BertForTokenClassification
from minitl.text import read_conll, read_folder

TRAIN = ("train", "--data", "data", "--model", "model", "--lr", "5e-3", "--checkpoint-every", "3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    labels = read_folder(write_tiny_data(folder / "data", 30)).labels.id2label
    write_tiny_model(folder / "model", id2label=labels)
    (folder / "run.toml").write_text('lr = 5e-3\nepochs = 2\nclass-weights = { "B-PER" = 2.0 }\n')
    return folder


def test_a_run_and_its_repetition(folder: Path) -> None:
    first = call_here(*TRAIN, "--output", "one", folder=folder)
    assert first.code == 0, first.err
    assert first.data["steps"] == 10
    assert "before training: test entity F1" in first.err
    one = folder / "one"
    assert {"run.json", "log.jsonl", "metrics.json", "predictions.conll", "curves.svg"} < set(os.listdir(one))
    assert (one / "curves.svg").read_text().startswith("<svg")
    model = BertForTokenClassification.from_pretrained(one)
    assert list(model.config.id2label.values()) == ["O", "B-LOC", "B-ORG", "B-PER"]
    assert model.tokenizer is not None
    predicted = read_conll(one / "predictions.conll")
    assert [len(sentence.words) for sentence in predicted] == [
        len(sentence.words) for sentence in read_conll(folder / "data" / "test.conll")
    ]
    manifest = json.loads((one / "run.json").read_text())
    assert manifest["status"] == "done"
    assert manifest["results"]["final_weights"] == first.data["final_weights"]

    again = call_here("train", "--reproduce", one / "run.json", "--output", "two", folder=folder)
    assert again.code == 0, again.err
    assert again.data["reproduced"] is True
    assert (one / "model.safetensors").read_bytes() == (folder / "two" / "model.safetensors").read_bytes()

    refused = call_here(*TRAIN, "--output", "one", folder=folder)
    assert (refused.code, refused.out) == (1, "")
    assert "not empty" in refused.err
    other = call_here(*TRAIN, "--output", "data", "--overwrite", folder=folder)
    assert other.code == 1
    assert "no run.json" in other.err
    assert (folder / "data" / "train.conll").exists()
    assert call_here(*TRAIN, "--output", "one", "--overwrite", "--epochs", "1", folder=folder).data["steps"] == 2

    manifest["results"]["final_weights"] = "0" * 64
    (folder / "changed.json").write_text(json.dumps(manifest))
    wrong = call_here("train", "--reproduce", "changed.json", folder=folder)
    assert wrong.code == 1
    assert "not reproduced" in wrong.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_stopped_goes_on_to_the_same_bits(number: int, folder: Path) -> None:
    long = (*TRAIN, "--epochs", "60", "--patience", "200")
    whole = folder / "whole"
    if not whole.exists():
        assert call(*long, "--output", whole, folder=folder).code == 0
    output = folder / f"stopped-{number}"
    process = subprocess.Popen(
        [*COMMAND, *long, "--output", str(output)], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not list(output.glob("checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number
        assert b"it is saved" in errors
        assert b"to go on: minitl train --resume" in errors
    resumed = call("train", "--resume", output, "--strict-resume", folder=folder)
    assert resumed.code == 0, resumed.err
    assert (output / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    logs = [
        [{**json.loads(line), "seconds": 0} for line in path.read_text().splitlines()]
        for path in (output / "log.jsonl", whole / "log.jsonl")
    ]
    assert logs[0] == logs[1]
    assert not list(output.glob("checkpoints/.*"))


def test_seeds_and_a_config_file(folder: Path) -> None:
    result = call_here(
        *("train", "--config", "run.toml", "--data", "data", "--model", "model", "--epochs", "1", "--seeds", "2"),
        *("--output", "seeds"),
        folder=folder,
    )
    assert result.code == 0, result.err
    assert result.data["dev"]["count"] == 2
    assert "95 % interval" in result.err
    settings = json.loads((folder / "seeds" / "seed-1" / "run.json").read_text())["settings"]
    assert settings["training"]["epochs"] == 1  # the command line goes before the file
    assert settings["training"]["lr"] == 5e-3
    assert settings["class_weights"] == {"B-PER": 2.0}
    assert settings["training"]["seed"] == 1
    again = call_here("train", "--resume", "seeds", folder=folder)
    assert again.data == result.data


def test_a_dry_run_writes_nothing(folder: Path) -> None:
    before = sorted(os.listdir(folder))
    result = call_here(*TRAIN, "--dry-run", folder=folder)
    assert (result.code, result.out) == (0, "")
    assert "would train 5 epochs of 30 sentences, 2 steps each, 1 time(s)" in result.err
    result = call_here(*TRAIN, "--dry-run", "--max-steps", "3", folder=folder)
    assert "2 steps each, at most 3 steps in all, 1 time(s)" in result.err
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--bogus",), 2, "No such option"),
        (("--lr", "-1"), 2, "lr must be at least 0"),
        (("--lr", "nan"), 2, "lr must be at least 0"),
        (("--epochs", "x"), 2, "not a valid integer"),
        (("--seeds", "0"), 2, "--seeds"),
        (("--resume", "nowhere"), 1, "no run that could be resumed"),
        (("--resume", "one", "--lr", "1"), 2, "leave out --lr"),
        (("--strict-resume",), 2, "leave out --strict-resume"),
        (("--lr-range-test", "new.svg", "--dry-run", "--seeds", "2"), 2, "leave out --dry-run, --seeds"),
        (("--reproduce", "nowhere.json"), 1, "does not exist"),
        (("--config", "nowhere.toml"), 2, "cannot be read"),
        (("--config", "bad.toml"), 2, "is not TOML"),
        (("--config", "unknown.toml"), 2, "unknown settings learning_rate"),
        (("--data", "nowhere"), 1, "nowhere: expected a folder"),
        (("--data", "data", "--model", "model", "--class-weights", "B-XX=1"), 1, "class weights for B-XX"),
        (("--class-weights", "heavy"), 2, "neither none, balanced"),
        (("--data", "data", "--model", "model", "--freeze", "99"), 1, "cannot freeze 99 layers"),
        (("--data", "data", "--model", "model", "--device", "tpu"), 1, "unknown device"),
        (("--data", "data", "--model", "model", "--output", "run.toml"), 1, "is not a folder"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], code: int, message: str, folder: Path) -> None:
    (folder / "bad.toml").write_text("lr = = 3")
    (folder / "unknown.toml").write_text("learning-rate = 3")
    result = call_here("train", *arguments, folder=folder)
    assert (result.code, result.out) == (code, ""), result.err
    assert message in result.err
