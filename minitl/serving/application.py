"""The web application, as WSGI (PEP 3333): from a request to an answer, without sockets.

    GET  /         the page
    GET  /health   {"status": "ok", "model": ..., "version": ..., "labels": 3, "requests": ..., ...}
    GET  /labels   {"labels": ["LOC", "ORG", "PER"]}
    POST /tag      {"text": "..."}  or text/plain  ->  {"entities": [{"text", "label", "start", "end", "score"}, ...]}
                   {"texts": ["...", ...]}         ->  {"results": [{"entities": [...]}, ...]}, in the same order

``start`` and ``end`` count characters as Python does, that is Unicode code points, the end exclusive: in Python,
``text[start:end]`` is the entity. JavaScript and Java count UTF-16 units, so that an emoji is two:
``Array.from(text).slice(start, end).join("")``.

Whatever is refused is answered with ``{"error": {"message": ...}}`` and a status of 4xx, or 503 when it may work later.
Nothing in a URL names a file, and no answer lets another web site read it.
"""

from __future__ import annotations

import ipaddress
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from minitl._version import __version__
from minitl.errors import CheckpointError
from minitl.serving.batching import Batcher, TaggingFailed, Unavailable
from minitl.serving.page import page
from minitl.strict_json import parse_object
from minitl.text.conll import escaped

if TYPE_CHECKING:
    from minitl.models.tagging import Span

MOST_TEXTS = 1000  # in one request
LONGEST_MESSAGE = 400  # a message may quote what was sent

HEADERS = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
NOTHING_ALLOWED = "default-src 'none'; frame-ancestors 'none'"  # for all but the page

# A name and perhaps a port; any port, since a tunnel has its own.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::[0-9]{1,5})?")
_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^\s";]+)"?', re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """A status, a body, and the headers that are its own."""

    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"
    policy: str = NOTHING_ALLOWED
    more: tuple[tuple[str, str], ...] = ()

    @property
    def line(self) -> str:
        """``200 OK``."""
        return f"{self.status.value} {self.status.phrase}"

    def headers(self) -> list[tuple[str, str]]:
        """All headers."""
        own = [("Content-Type", self.content_type), ("Content-Length", str(len(self.body)))]
        return [*own, ("Content-Security-Policy", self.policy), *HEADERS, *self.more]


class Refused(Exception):
    """The request is answered with an error."""

    def __init__(self, status: int, message: str, **more: str) -> None:
        headers = tuple((name.replace("_", "-"), value) for name, value in more.items())
        self.answer = error_answer(status, message, headers)


def json_answer(value: object) -> Answer:
    """Return an answer of 200 that holds a value as JSON."""
    return Answer(HTTPStatus.OK, json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8"))


def error_answer(status: int, message: str, more: tuple[tuple[str, str], ...] = ()) -> Answer:
    """Return an answer that says what is wrong; a long message is cut."""
    shown = message if len(message) <= LONGEST_MESSAGE else message[:LONGEST_MESSAGE] + "..."
    return Answer(HTTPStatus(status), json.dumps({"error": {"message": shown}}).encode("ascii"), more=more)


class Application:
    """The WSGI application.

    Args:
        batcher: tags texts.
        model: the model's name, for ``/health``.
        labels: the types of entities it finds.
        max_bytes: the longest body.
        seconds: how long a request may take from here on.
        loopback: whether only this machine can connect. Then the Host header must name this machine: a web site whose
            name is made to resolve to 127.0.0.1 (DNS rebinding) could read the answers otherwise.
        log: is given one line for each request and each failure, in which nothing of a request is raw.
    """

    def __init__(
        self,
        batcher: Batcher,
        *,
        model: str,
        labels: Sequence[str],
        max_bytes: int,
        seconds: float,
        loopback: bool,
        log: Callable[[str], None],
    ) -> None:
        self.batcher, self.model, self.labels = batcher, model, list(labels)
        self.max_bytes, self.seconds, self.loopback, self._log = max_bytes, seconds, loopback, log
        self._page, self._page_policy = page()
        self._started = time.monotonic()
        self._parsing = threading.Lock()
        self._routes: Mapping[str, tuple[str, Callable[[dict[str, Any]], Answer]]] = {
            "/": ("GET", self._get_page),
            "/health": ("GET", self._get_health),
            "/labels": ("GET", self._get_labels),
            "/tag": ("POST", self._post_tag),
        }

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        began = time.monotonic()
        method, path = str(environ.get("REQUEST_METHOD", "")), str(environ.get("PATH_INFO", ""))
        try:
            answer = self._routed(method, path, environ)
        except Refused as refusal:
            answer = refusal.answer
        except Exception as error:  # a mistake of ours; its words may quote a text, so they are not for the client
            self._log(f"{type(error).__name__}: {escaped(str(error), 500)}")
            answer = error_answer(500, "the server made a mistake; its log says which")
        taken = 1000 * (time.monotonic() - began)
        client = escaped(str(environ.get("REMOTE_ADDR", "")))[1:-1]
        self._log(f"{client} {escaped(method)[1:-1]} {escaped(path)[1:-1]} {answer.status.value} {taken:.0f} ms")
        start_response(answer.line, answer.headers())
        return [] if method == "HEAD" else [answer.body]

    def _routed(self, method: str, path: str, environ: dict[str, Any]) -> Answer:
        if self.loopback and not _names_this_machine(str(environ.get("HTTP_HOST", ""))):
            raise Refused(403, "the Host header must name this machine: localhost, 127.0.0.1 or [::1]")
        if path not in self._routes:
            raise Refused(404, "there is nothing here; there are /, /health, /labels and /tag")
        wanted, respond = self._routes[path]
        if method != wanted and not (wanted == "GET" and method == "HEAD"):
            allowed = "GET, HEAD" if wanted == "GET" else wanted
            raise Refused(405, f"{path} answers {allowed}", Allow=allowed)
        return respond(environ)

    def _get_page(self, environ: dict[str, Any]) -> Answer:
        return Answer(HTTPStatus.OK, self._page, "text/html; charset=utf-8", self._page_policy)

    def _get_health(self, environ: dict[str, Any]) -> Answer:
        if not self.batcher.is_working:
            raise Refused(503, "the server is being stopped, or its tagger has ended")
        about = {"status": "ok", "model": self.model, "version": __version__, "labels": len(self.labels)}
        return json_answer({**about, **self.batcher.counts(), "seconds": round(time.monotonic() - self._started, 3)})

    def _get_labels(self, environ: dict[str, Any]) -> Answer:
        return json_answer({"labels": self.labels})

    def _post_tag(self, environ: dict[str, Any]) -> Answer:
        if environ.get("HTTP_SEC_FETCH_SITE") in ("cross-site", "same-site"):  # set by browsers, never by a page
            raise Refused(403, "the pages of other web sites may not use this server")
        with self._parsing:  # together they would be no faster, and a body can become objects of fifty times its size
            texts, is_single = self._texts(environ)
        try:
            found = self.batcher.tag(texts, self.seconds)
        except Unavailable as error:
            raise Refused(503, f"try again later: {error}", Retry_After="1") from None
        except TaggingFailed as error:
            self._log(f"the model failed: {escaped(str(error), 500)}")
            raise Refused(500, "the model failed on a text of this request; the log of the server says why") from None
        results = [{"entities": [_entity(span) for span in spans]} for spans in found]
        return json_answer(results[0] if is_single else {"results": results})

    def _texts(self, environ: dict[str, Any]) -> tuple[list[str], bool]:
        """Return the texts of a request, and whether it asked for one text rather than for a list."""
        given = str(environ.get("CONTENT_TYPE", ""))
        content_type, charset = given.partition(";")[0].strip().lower(), _CHARSET.search(given)
        if content_type not in ("application/json", "text/plain"):
            raise Refused(415, f"Content-Type must be application/json or text/plain, found {escaped(given)}")
        if charset and charset[1].lower() not in ("utf-8", "utf8", "us-ascii"):
            raise Refused(415, f"the charset must be utf-8, found {escaped(charset[1])}")
        if environ.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
            raise Refused(415, "a compressed body is not accepted; send it plain", Accept_Encoding="identity")
        body = self._body(environ)
        if content_type == "application/json":
            return _parsed(body)
        try:
            return [body.decode("utf-8")], True
        except UnicodeDecodeError as error:
            raise Refused(400, f"the body is not UTF-8 (byte {error.start}: {error.reason})") from None

    def _body(self, environ: dict[str, Any]) -> bytes:
        written = str(environ.get("CONTENT_LENGTH") or "0")
        if re.fullmatch("[0-9]+", written) is None:
            raise Refused(400, f"Content-Length must be a number, found {escaped(written)}")
        if len(written) > 18 or int(written) > self.max_bytes:
            raise Refused(413, f"the body may have {self.max_bytes:,} bytes at most")
        body: bytes = environ["wsgi.input"].read(int(written))
        if len(body) < int(written):
            raise Refused(400, f"the body has {len(body):,} bytes, its Content-Length says {int(written):,}")
        return body


def _parsed(body: bytes) -> tuple[list[str], bool]:
    try:
        value = parse_object(body, "the body")
    except CheckpointError as error:
        raise Refused(400, str(error)) from None
    if set(value) == {"text"} and isinstance(value["text"], str):
        return [value["text"]], True
    texts = value.get("texts")
    if set(value) != {"texts"} or not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        found = ", ".join(f"{escaped(key)} ({type(item).__name__})" for key, item in list(value.items())[:5])
        raise Refused(
            400, f'expected {{"text": "..."}} or {{"texts": ["...", ...]}}, found {found or "an empty object"}'
        )
    if len(texts) > MOST_TEXTS:
        raise Refused(413, f"a request may have {MOST_TEXTS:,} texts at most, found {len(texts):,}")
    return texts, False


def _entity(span: Span) -> dict[str, object]:
    return {"text": span.text, "label": span.label, "start": span.start, "end": span.end, "score": span.score}


def _names_this_machine(host: str) -> bool:
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = found[1].strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
