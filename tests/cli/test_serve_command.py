"""``minitl serve`` as a user starts it: one line of data, one line for each mistake, and exit codes."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_tools import run
from tiny import write_tiny_model

from minitl.cli import serve
from minitl.models import BertForTokenClassification
from minitl.serving.server import Server

TAGS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}
TEXT = "anna lives in oslo 👋 with ben"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny", id2label=TAGS)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The server ends at once, as if by SIGTERM."""

    def stop(server: Server) -> list[int]:
        server.stop()
        return [signal.SIGTERM]

    monkeypatch.setattr(serve, "_stop_at_signals", stop)
    return []


@pytest.fixture
def process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = "import sys; from minitl.cli.main import main; main(sys.argv[1:])"
    arguments = [sys.executable, "-c", command, "serve", str(folder), "--port", "0"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        yield started
        started.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_from_the_url_to_the_end(process: subprocess.Popen[str], folder: Path, number: signal.Signals) -> None:
    assert process.stdout is not None
    url = process.stdout.readline()
    assert url.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(url.strip(), timeout=20) as response:
        assert b"<!doctype html>" in response.read()
    request = urllib.request.Request(
        f"{url.strip()}tag", json.dumps({"text": TEXT}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        found = json.loads(response.read())["entities"]
    wanted = [vars(span) for span in BertForTokenClassification.from_pretrained(folder).tag(TEXT)]
    assert [{**entity, "score": 0} for entity in found] == [{**span, "score": 0} for span in wanted]
    assert found, "a random tagger that finds nothing would show nothing"
    for entity, span in zip(found, wanted, strict=True):
        assert entity["score"] == pytest.approx(span["score"], abs=1e-6)  # float32, another number of threads
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert out == "", "the URL is the only line of data"
    lines = [line.split(" ", 1)[1] for line in err.splitlines()]
    assert [line.rsplit(" ", 2)[0] for line in lines[:-1]] == ["127.0.0.1 GET / 200", "127.0.0.1 POST /tag 200"]
    assert lines[-1] == "stopped, after 1 requests"


def test_a_port_in_use(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = run("serve", str(folder), "--port", str(port))
    assert (code, out) == (1, "")
    assert err == (
        f"minitl: cannot listen on '127.0.0.1', port {port}: Address already in use; "
        "give another --host or --port (0: a free one)\n"
    )


def test_without_waitress(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "waitress" else found(name))
    code, out, err = run("serve", str(folder))
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert 'pip install "minitl[serve]"' in err


def test_models_that_cannot_be_served(folder: Path, tmp_path: Path) -> None:
    for file in ("model.safetensors", "config.json"):
        shutil.copy(folder / file, tmp_path)
    code, _, err = run("serve", str(tmp_path), "--port", "0")
    assert code == 1
    assert "this model has no tokenizer" in err
    code, _, err = run("serve", str(tmp_path / "none"))
    assert code == 1
    assert "there is no such folder" in err


def test_an_encoder_without_classifier_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = SimpleNamespace(load_report=SimpleNamespace(new=["classifier.weight"]))
    monkeypatch.setattr(BertForTokenClassification, "from_pretrained", lambda folder: model)
    with pytest.raises(serve.CheckpointError, match="holds no trained classifier"):
        serve._loaded(folder)


def test_another_host_is_warned_of(folder: Path, quick: list[int]) -> None:
    code, out, err = run("serve", str(folder), "--host", "0.0.0.0", "--port", "0")
    assert code == 128 + signal.SIGTERM
    assert out.startswith("http://0.0.0.0:")
    assert "warning: whoever reaches http://0.0.0.0:" in err
    code, _, err = run("serve", str(folder), "--port", "0")
    assert code == 128 + signal.SIGTERM
    assert "warning" not in err


@pytest.mark.parametrize("words", [["--port", "-1"], ["--port", "65536"], ["--max-bytes", "0"], ["--timeout", "0"]])
def test_wrong_usage(folder: Path, words: list[str]) -> None:
    assert run("serve", str(folder), *words)[0] == 2
