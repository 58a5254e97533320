"""The server on a real socket: what waitress answers by itself, limits of time, and an orderly end."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from typing import Any

import pytest
from fake_tagger import FakeTagger, application, as_json

from minitl.errors import ServerError
from minitl.serving import server as http
from minitl.serving.batching import Batcher
from minitl.serving.server import Server


@contextmanager
def running(tagger: FakeTagger, **options: Any) -> Iterator[tuple[Server, int]]:
    """A server in a thread; yields it and its port, and sees that it ends."""
    listening = http.listen("127.0.0.1", 0)
    server = Server(application(Batcher(tagger), **options), listening, threads=8)
    port = int(listening.getsockname()[1])
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(server.run()))
    thread.start()
    try:
        yield server, port
    finally:
        tagger.free.set()
        server.stop()
        thread.join(20)
    assert results == [True]


@pytest.fixture
def port(tagger: FakeTagger) -> Iterator[int]:
    with running(tagger) as (_, number):
        yield number


def post(port: int, text: str) -> tuple[int, Any]:
    with closing(HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("POST", "/tag", json.dumps({"text": text}), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def raw(port: int, sent: bytes) -> tuple[bytes, Any]:
    """Send bytes; return the first line and the body of what comes back until the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(sent)
        received = b""
        with suppress(ConnectionResetError):  # where more was sent than was read of it, as of a header without end
            while part := connection.recv(65536):
                received += part
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"Content-Type: application/json" in head
    assert b"X-Content-Type-Options: nosniff" in head
    assert b"Server:" not in head
    return head.split(b"\r\n")[0], json.loads(body)


def test_one_connection_serves_many_requests(port: int) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    for number in range(3):
        text = f"Ada {number} 👋"
        connection.request("POST", "/tag", text.encode(), {"Content-Type": "text/plain; charset=utf-8"})
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())) == (200, as_json(text))
    connection.request("HEAD", "/")
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, b"")
    connection.request("GET", "/health")
    assert json.loads(connection.getresponse().read())["requests"] == 3
    connection.close()


def test_a_body_in_chunks(port: int) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    parts = iter([b'{"te', b'xt": "A', b'da"}'])
    connection.request("POST", "/tag", parts, {"Content-Type": "application/json"}, encode_chunked=True)
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())) == (200, as_json("Ada"))
    connection.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"400"),  # TLS
        (b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n", b"400"),
        (b"POST /tag HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"POST /tag HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
        (b"POST /tag HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * (http.LARGEST_HEADER + 99) + b"\r\n\r\n", b"431"),
        (b"GET /\x1b[31m HTTP/1.0\r\nHost: localhost\r\n\r\n", b"404"),
        (b"GET / HTTP/1.0\r\n\r\n", b"403"),
        (b"PUT / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nExpect: 100-continue\r\n\r\n", b"405"),  # no body
        (b"POST /tag HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n", b"413"),
        (b"GET http://evil.example/ HTTP/1.0\r\nHost: evil.example\r\n\r\n", b"403"),
    ],
)
def test_what_is_no_good_request_gets_an_answer_in_json(port: int, sent: bytes, status: bytes) -> None:
    line, answer = raw(port, sent)
    assert line.split(b" ")[1] == status
    assert set(answer) == {"error"}
    assert answer["error"]["message"].isprintable()
    assert post(port, "Ada") == (200, as_json("Ada")), "and the server goes on"


def test_a_body_somewhat_too_long_is_read_and_refused(port: int) -> None:
    assert post(port, "x" * 60_000)[0] == 413


def test_a_request_that_drips_in_is_cut_off(tagger: FakeTagger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "RECEIVING_SECONDS", 0.3)
    with running(tagger) as (_, port), socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        began = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT011, PT012  (a broken pipe or a reset, at some time)
            while time.monotonic() < began + 10:
                connection.sendall(b"G")
                time.sleep(0.02)
        assert time.monotonic() - began >= 0.3


def test_stopping_finishes_what_runs_and_refuses_what_comes(tagger: FakeTagger) -> None:
    with (
        ThreadPoolExecutor(1) as pool,
        running(tagger) as (server, port),
        socket.create_connection(("127.0.0.1", port)) as idle,
    ):
        tagger.free.clear()
        answer = pool.submit(post, port, "Ada")
        assert tagger.busy.wait(10)
        server.stop()
        end = time.monotonic() + 10
        with pytest.raises(ConnectionRefusedError):  # noqa: PT012  (at some time)
            while time.monotonic() < end:
                with suppress(ConnectionResetError):  # it came in when the socket was being closed
                    socket.create_connection(("127.0.0.1", port)).close()
        tagger.free.set()
        assert answer.result(10) == (200, as_json("Ada"))
        assert idle.recv(1) == b"", "an idle connection keeps nobody waiting"


def test_what_was_sent_before_the_end_is_answered(tagger: FakeTagger) -> None:
    """Also where the server has not read it yet, or not even accepted the connection."""
    listening = http.listen("127.0.0.1", 0)
    server = Server(application(Batcher(tagger)), listening, threads=8)
    port = int(listening.getsockname()[1])
    request = b"GET /labels HTTP/1.1\r\nHost: localhost\r\n\r\n"
    clients = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(20)]
    for client in clients[1:]:
        client.sendall(request)
    clients[0].sendall(request * 2)
    server.stop()
    assert server.run() is True
    for number, client in enumerate(clients):
        received = b""
        while part := client.recv(65536):
            received += part
        client.close()
        assert received.count(b"HTTP/1.1 200 OK\r\n") == (2 if number == 0 else 1)
        assert received.count(b"Connection: close\r\n") == 1, "with the last answer"


def test_a_client_that_keeps_sending_does_not_keep_the_server(tagger: FakeTagger) -> None:
    with (
        ThreadPoolExecutor(1) as pool,
        running(tagger) as (server, port),
        closing(HTTPConnection("127.0.0.1", port, timeout=20)) as connection,
    ):
        tagger.free.clear()
        connection.request("POST", "/tag", b"Ada", {"Content-Type": "text/plain"})
        held = pool.submit(post, port, "Ben")  # another one, so that the server has something to wait for
        assert tagger.busy.wait(10)
        end = time.monotonic() + 10
        while server._application.batcher.counts()["waiting"] < 2 and time.monotonic() < end:  # until both have come in
            time.sleep(0.01)
        server.stop()
        tagger.free.set()
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())) == (200, as_json("Ada"))
        assert response.headers["Connection"] == "close"
        assert held.result(10) == (200, as_json("Ben"))


def test_half_a_request_does_not_keep_the_server(tagger: FakeTagger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "ENDING_SECONDS", 0.1)
    with running(tagger) as (server, port), socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"POST /tag HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
        assert post(port, "Ada") == (200, as_json("Ada")), "so that the half has been read"
        server.stop()
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""


def test_stopping_does_not_wait_for_ever(tagger: FakeTagger) -> None:
    listening = http.listen("127.0.0.1", 0)
    batcher = Batcher(tagger)
    server = Server(application(batcher, seconds=0.1), listening, threads=2)
    tagger.free.clear()
    with pytest.raises(Exception, match="no answer"):
        batcher.tag(["Ada"], 0.01)
    assert tagger.busy.wait(10)
    server.stop()
    began = time.monotonic()
    assert server.run() is False, "the worker is in the middle of something"
    assert time.monotonic() - began < 5
    tagger.free.set()
    assert batcher.close(10)


def test_a_port_in_use_and_other_impossible_addresses() -> None:
    with http.listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(ServerError, match=rf"cannot listen on '127\.0\.0\.1', port {port}: Address already in use"):
            http.listen("127.0.0.1", port)
    for host in ("192.0.2.1", "no such host", "\x1b[31m", "a" * 300):
        with pytest.raises(ServerError, match="cannot listen on") as caught:
            http.listen(host, 0)
        assert str(caught.value).isprintable()


def test_addresses() -> None:
    with http.listen("localhost", 0) as listening:
        assert http.is_loopback(listening)
    with http.listen("0.0.0.0", 0) as listening:
        assert not http.is_loopback(listening)
        assert http.url(listening) == f"http://0.0.0.0:{listening.getsockname()[1]}/"
    if socket.has_ipv6:
        try:
            listening = http.listen("::1", 0)
        except ServerError:
            return  # a machine without IPv6
        with listening:
            assert http.is_loopback(listening)
            assert http.url(listening) == f"http://[::1]:{listening.getsockname()[1]}/"
