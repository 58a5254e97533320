"""What the clients of tests/serving/load.py send: requests with the answers they must get, and requests to refuse."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tiny import WORDS

from minitl.models import BertForTokenClassification
from minitl.serving.application import MOST_TEXTS
from minitl.serving.server import LARGEST_HEADER

MAX_BYTES = 1_000_000  # the server's own limit, as `minitl serve --help` shows it
ROUNDING = 1e-5  # of a score: float32, and a text's neighbours in a batch change the order of additions
SCRAPS = (
    "anna 👋 oslo", "👩‍👩‍👧‍👦 ben 🏳️‍🌈 rome", "анна живёт в осло", "東京 anna 京都",
    "\u0622\u0646\u0627 oslo \u200f\u0628\u0646\u200e", "cafe\u0301 anna a\u0300\u0301", "\u200banna\u200b \u200d",
    "anna\u2028oslo\u2029ben", "\x00 anna \x1b[31m oslo", "\ufb01n anna ½ \u2167", "\U0010ffff anna \ufffe", "e" * 150,
)  # fmt: skip


@dataclass
class Good:
    """A request that must be answered with 200 and these entities.

    Attributes:
        kind: for the table.
        content_type, body: what is sent to ``/tag``.
        wanted: what ``tag_texts`` returned, as the answer has it.
        seen: answers that were compared already; there are few, since only roundings of scores differ.
    """

    kind: str
    content_type: str
    body: bytes
    wanted: Any
    seen: set[bytes] = field(default_factory=set)

    def head(self, *more: str, chunked: bool = False) -> bytes:
        """The header, with the length of the body or without."""
        length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(self.body)}"
        return head("POST /tag HTTP/1.1", f"Content-Type: {self.content_type}", length, *more)

    def difference(self, status: int, answer: bytes) -> str | None:
        """What is wrong with an answer, or None."""
        if status != 200:
            return f"{status} instead of 200: {answer[:200]!r}"
        if answer not in self.seen:
            if not _equal(json.loads(answer), self.wanted):
                return f"other entities than tag_texts returns: {answer[:200]!r}"
            self.seen.add(answer)
        return None


@dataclass(frozen=True)
class Bad:
    """Bytes that must be answered with an error of 4xx.

    Attributes:
        kind: for the table.
        sent: header and body.
        status: of the answer.
        closes: whether the connection ends with it. Then a reset before the answer is right, too, where the server
            stops reading a body that it refuses.
    """

    kind: str
    sent: bytes
    status: int
    closes: bool = False


def head(line: str, *fields: str, host: str = "localhost") -> bytes:
    """A header, with its empty line."""
    return "\r\n".join([line, f"Host: {host}", *fields, "", ""]).encode()


def good_requests(model: BertForTokenClassification, seed: int) -> list[Good]:
    """Requests of all sizes; their answers come from the model itself."""
    drawn = random.Random(seed)

    def text(words: int) -> str:
        return " ".join(drawn.choice(WORDS) for _ in range(words)) + drawn.choice(("", ".", "\n", " 👋"))

    texts: list[tuple[str, list[str]]] = [
        *(("short", [text(drawn.randint(1, 30))]) for _ in range(40)),
        *(("long", [text(drawn.randint(300, 2000))]) for _ in range(8)),
        ("very long", [text(20_000)]),
        *(("unicode", [" ".join(drawn.choices(SCRAPS, k=drawn.randint(1, 9)))]) for _ in range(20)),
        *(("unicode", [scrap]) for scrap in ("", " ", "\u200b", "\n")),
        *(("batch", [text(drawn.randint(0, 20)) for _ in range(drawn.randint(1, 50))]) for _ in range(8)),
        ("batch", []),
        ("batch", ["", " ", "anna", ""]),
    ]
    return [request for kind, some in texts for request in _good(model, kind, some)]


def _good(model: BertForTokenClassification, kind: str, texts: Sequence[str]) -> Iterator[Good]:
    found = [{"entities": [vars(span) for span in spans]} for spans in model.tag_texts(texts)]
    if kind == "batch":
        yield Good(kind, "application/json", json.dumps({"texts": texts}).encode(), {"results": found})
        return
    yield Good(kind, "application/json; charset=UTF-8", json.dumps({"text": texts[0]}).encode(), found[0])
    plain = json.dumps({"text": texts[0]}, ensure_ascii=False).encode()
    yield Good(kind, "application/json", plain, found[0])
    yield Good("plain text", "text/plain; charset=utf-8", texts[0].encode(), found[0])


def _equal(one: Any, other: Any) -> bool:
    """Whether two answers are the same, scores but for rounding."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= ROUNDING
    return type(one) is type(other) and bool(one == other)


def bad_requests() -> list[Bad]:
    """Requests that are wrong in every layer: bytes, header, path, body, JSON, values."""
    json_type = "Content-Type: application/json"

    def tag(body: bytes, *fields: str, host: str = "localhost") -> bytes:
        return head("POST /tag HTTP/1.1", f"Content-Length: {len(body)}", *fields, host=host) + body

    bodies = [
        b"", b"anna", b'{"text": "anna"', b'"anna"', b"[]", b"{}", b"null", b'{"text": 7}', b'{"text": null}',
        b'{"texts": "anna"}', b'{"texts": ["anna", 1]}', b'{"words": ["anna"]}', b'{"text": "a", "text": "b"}',
        b'{"text": "\\ud83d"}', b'{"text": "\xff"}', b'{"text": NaN}', b'{"text": ' + b"[" * 5000,
        b'{"text": "' + b"anna " * 20_000,
    ]  # fmt: skip
    chunked = "Transfer-Encoding: chunked"
    return [
        *(Bad("wrong body", tag(body, json_type), 400) for body in bodies),
        Bad("wrong body", tag(b"anna\xff", "Content-Type: text/plain"), 400),
        Bad("too large", tag(b'{"text": "' + b"a" * MAX_BYTES + b'"}', json_type), 413),
        Bad("too large", tag(json.dumps({"texts": ["a"] * (MOST_TEXTS + 1)}).encode(), json_type), 413),
        Bad("too large", head("POST /tag HTTP/1.1", "Content-Length: 99999999999", json_type), 413, closes=True),
        Bad(
            "too large",
            head("POST /tag HTTP/1.1", "Content-Length: 9999999", "Expect: 100-continue"),
            413,
            closes=True,
        ),
        Bad("wrong type", tag(b"anna"), 415),
        Bad("wrong type", tag(b"text=anna", "Content-Type: application/x-www-form-urlencoded"), 415),
        Bad("wrong type", tag(b"{}", "Content-Type: application/json; charset=latin-1"), 415),
        Bad("wrong type", tag(b"\x1f\x8b", json_type, "Content-Encoding: gzip"), 415),
        *(Bad("wrong path", head(f"GET {path} HTTP/1.1"), 404) for path in ("/none", "/tag/", "/../x", "/%00")),
        *(Bad("wrong method", head(f"{name} /tag HTTP/1.1"), 405) for name in ("GET", "PUT", "DELETE", "OPTIONS")),
        Bad("wrong method", head("DELETE / HTTP/1.1", "Expect: 100-continue"), 405),
        Bad("wrong method", head("POST /health HTTP/1.1", "Content-Length: 0"), 405),
        Bad("foreign", tag(b'{"text": "anna"}', json_type, host="evil.example"), 403),
        Bad("foreign", tag(b'{"text": "anna"}', json_type, "Sec-Fetch-Site: cross-site"), 403),
        Bad("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, closes=True),
        Bad("no HTTP", b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n", 400, closes=True),
        Bad("no HTTP", head("POST /tag HTTP/1.1", json_type, "Content-Length: x"), 400, closes=True),
        Bad("no HTTP", head("POST /tag HTTP/1.1", json_type, chunked) + b"zz\r\n", 400, closes=True),
        Bad("no HTTP", head("GET / HTTP/1.1", "X: " + "x" * (LARGEST_HEADER + 99)), 431, closes=True),
    ]
