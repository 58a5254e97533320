"""The web application without sockets: every status, every header, and no body that makes it fail."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fake_tagger import FakeTagger, Response, application, as_json, call, post
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from minitl import __version__
from minitl.serving.application import MOST_TEXTS, Application
from minitl.serving.batching import Batcher

TEXT = "Ada met 👩‍🚀 Ben"


def test_a_text_as_json(app: Application) -> None:
    response = post(app, {"text": TEXT})
    assert response.status == 200
    assert response.json == as_json(TEXT)
    assert [(entity["text"], entity["start"]) for entity in response.json["entities"]] == [
        ("Ada", 0), ("👩", 8), ("🚀", 10), ("Ben", 12),
    ]  # fmt: skip
    assert all(TEXT[entity["start"] : entity["end"]] == entity["text"] for entity in response.json["entities"])
    assert set(response.json["entities"][0]) == {"text", "label", "start", "end", "score"}


def test_a_text_as_plain_text(app: Application) -> None:
    for content_type in ("text/plain", "text/plain; charset=utf-8", 'Text/Plain;Charset="UTF-8"'):
        response = call(app, "POST", "/tag", TEXT.encode(), CONTENT_TYPE=content_type)
        assert response.status == 200
        assert response.json == as_json(TEXT)
    assert call(app, "POST", "/tag", b"", CONTENT_TYPE="text/plain").json == {"entities": []}


def test_several_texts_in_order(app: Application) -> None:
    assert post(app, {"texts": ["Ada", "", "b", TEXT]}).json == {
        "results": [as_json("Ada"), as_json(""), as_json("b"), as_json(TEXT)]
    }
    assert post(app, {"texts": []}).json == {"results": []}
    assert post(app, {"texts": ["a"] * MOST_TEXTS}).status == 413, "the body limit of this test comes first"


def test_health_and_labels(app: Application) -> None:
    post(app, {"texts": ["Ada", "b"]})
    health = call(app, "GET", "/health").json
    seconds = health.pop("seconds")
    assert 0 <= seconds < 60
    counts = {"requests": 1, "refused": 0, "late": 0, "failed": 0, "texts": 2, "batches": 1, "waiting": 0}
    assert health == {"status": "ok", "model": "fake", "version": __version__, "labels": 2, **counts}
    assert call(app, "GET", "/labels").json == {"labels": ["LOC", "PER"]}


@pytest.mark.parametrize("path", ["/", "/health", "/labels"])
def test_head_is_get_without_a_body(app: Application, path: str) -> None:
    got, head = call(app, "GET", path), call(app, "HEAD", path)
    assert got.status == head.status == 200
    assert len(got.body) == int(got.headers["Content-Length"]) > 0
    assert head.body == b""
    if path != "/health":  # whose numbers change
        assert head.headers == got.headers


@pytest.mark.parametrize("path", ["/nothing", "/tag/", "", "/../pyproject.toml", "/page.html", "//", "/tag\x1b[31m"])
def test_404(app: Application, path: str) -> None:
    for method in ("GET", "POST"):
        assert call(app, method, path).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "get", ""])
def test_405_says_what_is_allowed(app: Application, method: str) -> None:
    for path in ("/", "/health", "/labels"):
        response = call(app, method, path)
        assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")
    if method != "POST":
        assert (call(app, method, "/tag").status, call(app, method, "/tag").headers["Allow"]) == (405, "POST")
    assert call(app, "GET", "/tag").status == call(app, "HEAD", "/tag").status == 405


def test_413(app: Application) -> None:
    edge = json.dumps({"text": "x" * (2000 - len('{"text": ""}'))}).encode()
    assert len(edge) == app.max_bytes
    assert call(app, "POST", "/tag", edge).status == 200
    assert "2,000 bytes at most" in call(app, "POST", "/tag", edge + b" ").message
    assert call(app, "POST", "/tag", b"{}", CONTENT_LENGTH="9" * 5000).status == 413


def test_413_for_many_texts(batcher: Batcher) -> None:
    app = application(batcher, max_bytes=100_000)
    assert post(app, {"texts": ["a"] * MOST_TEXTS}).status == 200
    assert f"{MOST_TEXTS:,} texts at most" in post(app, {"texts": ["a"] * (MOST_TEXTS + 1)}).message


@pytest.mark.parametrize(
    "environ",
    [
        {"CONTENT_TYPE": ""},
        {"CONTENT_TYPE": "application/x-www-form-urlencoded"},
        {"CONTENT_TYPE": "text/html"},
        {"CONTENT_TYPE": "application/json; charset=latin-1"},
        {"CONTENT_TYPE": "text/plain; charset=utf-16"},
        {"HTTP_CONTENT_ENCODING": "gzip"},
    ],
)
def test_415(app: Application, environ: dict[str, str]) -> None:
    response = post(app, {"text": "Ada"}, **environ)
    assert response.status == 415
    assert response.message


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"Ada", "not JSON"),
        (b'{"text": "Ada"', "not JSON"),
        (b'{"text": "Ada"} x', "not JSON"),
        (b'"Ada"', "must hold a JSON object"),
        (b"[]", "must hold a JSON object"),
        (b"{}", "found an empty object"),
        (b'{"text": null}', "found 'text' (NoneType)"),
        (b'{"text": ["Ada"]}', "found 'text' (list)"),
        (b'{"texts": "Ada"}', "found 'texts' (str)"),
        (b'{"texts": ["Ada", 1]}', "found 'texts' (list)"),
        (b'{"text": "Ada", "texts": []}', "found 'text' (str), 'texts' (list)"),
        (b'{"text": "Ada", "language": "en"}', "'language' (str)"),
        (b'{"text": "Ada", "text": "Ben"}', "duplicate key 'text'"),
        (b'{"text": NaN}', "NaN is not JSON"),
        (b'{"text": 1e999}', "too large"),
        (b'{"text": "\\ud83d"}', "lone surrogate"),
        (b'{"\\udc00": ""}', "lone surrogate"),
        (b'{"texts": ["\\udc00"]}', "lone surrogate"),
        (b'{"text": "\xff"}', "not UTF-8"),
        (b'\xef\xbb\xbf{"text": "Ada"}', "byte order mark"),
        (b'{"text": "\x00"}', "not JSON"),
        (b'{"text": ' + b"[" * 1900, "nested too deeply"),
    ],
)
def test_400(app: Application, body: bytes, reason: str) -> None:
    response = call(app, "POST", "/tag", body)
    assert response.status == 400
    assert reason in response.message


def test_400_for_what_is_no_utf_8_and_for_wrong_lengths(app: Application) -> None:
    assert "byte 3" in call(app, "POST", "/tag", b"Ada\xff", CONTENT_TYPE="text/plain").message
    assert call(app, "POST", "/tag", b"\xed\xa0\x80", CONTENT_TYPE="text/plain").status == 400, "a surrogate"
    assert "has 2 bytes" in call(app, "POST", "/tag", b"{}", CONTENT_LENGTH="3").message
    for length in ("-1", "1.5", "+2", "\uff12", "x"):
        assert call(app, "POST", "/tag", b"{}", CONTENT_LENGTH=length).status == 400


@pytest.mark.parametrize("key", ["k" * 900, "\x1b[31m" * 80])
def test_messages_are_short_and_plain(app: Application, key: str) -> None:
    body = json.dumps({key: 1}).encode()
    for response in (call(app, "POST", "/tag", body), call(app, "POST", "/tag", body[:-1] + b"," + body[1:])):
        assert response.status == 400
        assert len(response.message) < 500
        assert response.message.isprintable()


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        *((name, True) for name in ("localhost", "LocalHost:8000", "127.0.0.1:8000", "127.1.2.3", "[::1]:8000")),
        *((name, True) for name in ("model.localhost", "[0:0:0:0:0:0:0:1]")),
        *((name, False) for name in ("", "evil.example", "evil.example:8000", "localhost.evil.example", "10.0.0.1")),
        *((name, False) for name in ("evil@localhost", "localhost, evil.example", "localhost:8000:1", "[::1", "[::2]")),
        *((name, False) for name in ("localhost/evil.example", "localhost\n", "127.0.0.1.evil.example", "2130706433")),
    ],
)
def test_on_loopback_the_host_must_be_this_machine(batcher: Batcher, host: str, allowed: bool) -> None:
    app = application(batcher)
    for method, path in (("GET", "/"), ("GET", "/health"), ("POST", "/tag"), ("GET", "/nothing")):
        assert (call(app, method, path, HTTP_HOST=host).status != 403) is allowed
    assert call(application(batcher, loopback=False), "GET", "/", HTTP_HOST=host).status == 200


def test_pages_of_others_are_refused(app: Application) -> None:
    for site, status in (("same-origin", 200), ("none", 200), ("cross-site", 403), ("same-site", 403)):
        assert post(app, {"text": "Ada"}, HTTP_SEC_FETCH_SITE=site).status == status


def test_every_answer_has_the_headers_of_a_careful_server(app: Application) -> None:
    answers = [
        *(call(app, "GET", path) for path in ("/", "/health", "/labels", "/nothing", "/tag")),
        *(call(app, "POST", "/tag", body) for body in (b"", b'{"text": "Ada"}')),
        call(app, "GET", "/", HTTP_HOST="evil.example"),
    ]
    assert {answer.status for answer in answers} == {200, 400, 403, 404, 405}
    for answer in answers:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; ")
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert not any(name.lower().startswith("access-control") for name in answer.headers)
        assert int(answer.headers["Content-Length"]) == len(answer.body)


def test_503_when_the_queue_is_full_or_the_time_is_over(tagger: FakeTagger) -> None:
    batcher = Batcher(tagger, most_requests=1)
    app = application(batcher, seconds=0.2)
    tagger.free.clear()
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(post, app, {"text": "Ada"})
        assert tagger.busy.wait(10)
        full = post(app, {"text": "Ben"})
        for response, reason in ((full, "1 requests wait already"), (late.result(), r"no answer within 0\.2 s")):
            assert (response.status, response.headers["Retry-After"]) == (503, "1")
            assert re.search(reason, response.message)
    tagger.free.set()
    assert batcher.close(10)
    assert post(app, {"text": "Ada"}).status == 503
    assert call(app, "GET", "/health").status == 503
    assert call(app, "GET", "/").status == 200


def test_500_when_the_model_fails_and_its_words_stay_in_the_log(batcher: Batcher) -> None:
    log: list[str] = []
    app = application(batcher, log=log)
    response = post(app, {"texts": ["Ada", "poison"]})
    assert response.status == 500
    assert "poisonous" not in response.message
    assert any("a text is poisonous" in line for line in log)
    assert all(line.isprintable() for line in log)


def test_500_for_a_mistake_of_ours(batcher: Batcher, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    app = application(batcher, log=log)
    monkeypatch.setattr(app, "batcher", None)
    response = post(app, {"text": "Ada"})
    assert (response.status, response.message) == (500, "the server made a mistake; its log says which")
    assert log[0].startswith("AttributeError: ")


@given(method=st.text(max_size=5), path=st.text(max_size=10), host=st.text(max_size=5))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_of_a_request_is_logged_raw(batcher: Batcher, method: str, path: str, host: str) -> None:
    log: list[str] = []
    call(application(batcher, log=log), method, path, b"\x1b]0;text\x07", HTTP_HOST=host, REMOTE_ADDR=host)
    assert len(log) == 1
    assert log[0].isprintable()


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["text", "texts", "x"]) | st.text(), inner),
    max_leaves=10,
)
BODIES = (
    st.binary(max_size=300)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from(["text", "texts"]), JSON).map(lambda value: json.dumps(value).encode())
    | st.tuples(st.text(), st.binary(max_size=3)).map(lambda pair: json.dumps({"text": pair[0]}).encode() + pair[1])
)


@given(body=BODIES, content_type=st.sampled_from(["application/json", "text/plain", "application/json; charset=utf-8"]))
@example(body=b'{"texts": ' + b"[" * 1000 + b"]" * 1000 + b"}", content_type="application/json")
@example(body=b'{"text":' * 200, content_type="application/json")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_makes_the_server_fail(app: Application, body: bytes, content_type: str) -> None:
    response = call(app, "POST", "/tag", body, CONTENT_TYPE=content_type)
    assert response.status in (200, 400, 413)
    if response.status != 200:
        assert response.message
    elif content_type == "text/plain":
        assert response.json == as_json(body.decode())
    else:
        value = json.loads(body)
        assert response.json == (
            as_json(value["text"]) if "text" in value else {"results": [as_json(text) for text in value["texts"]]}
        )


@given(text=st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_text_is_taken(app: Application, text: str) -> None:
    assert post(app, {"text": text}).json == as_json(text)
    assert call(app, "POST", "/tag", text.encode(), CONTENT_TYPE="text/plain").json == as_json(text)


def test_many_at_a_time_are_answered_right(app: Application) -> None:
    texts = [f"Ada {number} {'x' * (number % 7)} Ben" for number in range(60)]
    gate = threading.Barrier(20)

    def one(number: int) -> list[Response]:
        gate.wait(10)
        return [post(app, {"text": text}) for text in texts[number::20]]

    with ThreadPoolExecutor(20) as pool:
        for number, answers in enumerate(pool.map(one, range(20))):
            assert [answer.json for answer in answers] == [as_json(text) for text in texts[number::20]]


def test_the_page_needs_nothing_from_elsewhere_and_its_policy_fits(app: Application) -> None:
    response = call(app, "GET", "/")
    page = response.body.decode()
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "//" not in re.sub(r"(^|\s)// .*", "", page), "no URL of another server"
    for unsafe in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", " style=", " onclick="):
        assert unsafe not in page
    policy = dict(rule.split(" ", 1) for rule in response.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    for name in ("style", "script"):
        (content,) = re.findall(f"<{name}>(.*?)</{name}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy[f"{name}-src"] == f"'sha256-{digest}'"
