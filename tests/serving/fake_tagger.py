"""A tagger whose answers are known, and calls of a web application without sockets."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from minitl.models.tagging import Span
from minitl.serving.application import Application
from minitl.serving.batching import Batcher


def spans(text: str) -> list[Span]:
    """What the fake finds: words that begin with a capital letter, and emoji."""
    found = re.finditer("[A-Z][a-z]*|[\U0001f000-\U0001ffff]", text)
    return [Span(match[0], "PER", match.start(), match.end(), 0.5) for match in found]


class FakeTagger:
    """Finds ``spans``; remembers its batches; fails on ``poison``; waits while it is held.

    A text longer than a batch it finishes in ``steps`` steps, and lets others go first between them. Its clock moves on
    by 1 for a batch, by 5 before the first step of a long text; ``done`` says how many batches had begun when it ended.

    Attributes:
        batches: the texts of each call.
        free: clear it to hold the worker in its next call.
        busy: set while a call is running.
    """

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.steps = 3
        self.clock = 0.0
        self.done: list[int] = []
        self.free, self.busy = threading.Event(), threading.Event()
        self.free.set()

    def __call__(self, texts: Sequence[str], between_batches: Callable[[], None] | None = None) -> list[list[Span]]:
        self.batches.append(list(texts))
        self.busy.set()
        assert self.free.wait(20)
        self.busy.clear()
        self.clock += 5 if between_batches else 1
        for _ in range(self.steps if between_batches else 0):
            assert between_batches is not None
            between_batches()
        if between_batches:
            self.done.append(len(self.batches))
        if any("poison" in text for text in texts):
            raise RuntimeError("a text is poisonous: \x1b[31m")
        return [spans(text) for text in texts]


def application(
    batcher: Batcher,
    *,
    max_bytes: int = 2000,
    seconds: float = 10.0,
    loopback: bool = True,
    log: list[str] | None = None,
) -> Application:
    lines: list[str] = [] if log is None else log
    return Application(
        batcher,
        model="fake",
        labels=["LOC", "PER"],
        max_bytes=max_bytes,
        seconds=seconds,
        loopback=loopback,
        log=lines.append,
    )


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["Content-Type"] == "application/json"
        return json.loads(self.body)

    @property
    def message(self) -> str:
        assert set(self.json) == {"error"}
        assert set(self.json["error"]) == {"message"}
        return str(self.json["error"]["message"])


def call(app: Application, method: str, path: str, body: bytes = b"", **environ: str) -> Response:
    """Call a WSGI application as a server would, with some variables of the environment set otherwise."""
    seen: list[Any] = []
    full: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "HTTP_HOST": "localhost:8000",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.input": io.BytesIO(body),
    }
    if body or method == "POST":
        full |= {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body))}
    parts = list(app(full | environ, lambda status, headers: seen.append((status, headers))))
    ((status, headers),) = seen
    assert len({name for name, _ in headers}) == len(headers), "no header twice"
    assert all(isinstance(part, bytes) for part in parts)
    return Response(int(status.split(" ")[0]), dict(headers), b"".join(parts))


def post(app: Application, value: object, **environ: str) -> Response:
    """Post a value as JSON to ``/tag``."""
    return call(app, "POST", "/tag", json.dumps(value).encode(), **environ)


def as_json(text: str) -> dict[str, Any]:
    """The answer that a text must get."""
    return {"entities": [vars(span) for span in spans(text)]}
