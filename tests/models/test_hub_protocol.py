"""The real huggingface_hub against a pretended Hub on this machine: a server that answers as the Hub does."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": json.dumps({"model_type": "bert"}).encode(),
    "model.safetensors": b"weights" * 1000,
    "vocab.txt": b"[PAD]\n",
    "pytorch_model.bin": b"pickle",
}
PROGRAM = """
import sys
from minitl.errors import DownloadError
from minitl.models.sources import resolve
try:
    found = resolve("somebody/some-bert")
except DownloadError as error:
    sys.exit(str(error))
print(found.origin, sorted(path.name for path in found.folder.iterdir()), found.folder.name)
"""


class Handler(BaseHTTPRequestHandler):
    """Answers HEAD and GET of /somebody/some-bert/resolve/REVISION/FILE with the headers the library reads."""

    asked: list[str]

    def answer(self, with_body):
        self.asked.append(f"{self.command} {self.path}")
        _, _, tail = self.path.partition("/resolve/")
        data = FILES.get(tail.partition("/")[2])
        self.send_response(404 if data is None else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        if data is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        if with_body and data is not None:
            self.wfile.write(data)

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def server():
    Handler.asked = []
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def run(tmp_path, endpoint, **more):
    """Run PROGRAM in a process of its own: the library reads its environment when it is imported."""
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment = {**kept, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1", **more}
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN"):
        if name not in more:
            environment.pop(name, None)
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )


def test_the_needed_files_come_once_and_then_from_the_cache(tmp_path, server):
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    first = run(tmp_path, endpoint)
    assert first.returncode == 0, first.stderr
    listed = ["config.json", "model.safetensors", "vocab.txt"]
    assert first.stdout == f"Hugging Face Hub: somebody/some-bert {listed} {COMMIT}\n"
    assert not [line for line in Handler.asked if "pytorch_model" in line]
    Handler.asked.clear()
    second = run(tmp_path, endpoint)
    assert second.stdout == f"Hugging Face cache: somebody/some-bert {listed} {COMMIT}\n"
    offline = run(tmp_path, endpoint, HF_HUB_OFFLINE="1")
    assert offline.stdout == second.stdout
    assert Handler.asked == []


def test_a_hub_that_is_not_there_is_one_error(tmp_path):
    failed = run(tmp_path, "http://127.0.0.1:9")  # the discard port: nobody listens
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    assert "Hugging Face Hub: " in failed.stderr
    assert "--model FOLDER" in failed.stderr
