"""The application on a socket: waitress, with limits, answers in JSON only, and an orderly end.

waitress reads requests in one thread, completely and with limits of its own, before a thread of its pool runs the
application. The pool is larger than the queue of the tagger: when that is full, there is a thread left to say so.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from minitl.errors import ServerError
from minitl.serving.application import Application, error_answer
from minitl.text.conll import escaped

CONNECTIONS = 512  # open at a time; others wait until one is closed
IDLE_SECONDS = 60  # after which a silent connection is closed
RECEIVING_SECONDS = 60  # in which a request must have come in completely, however it drips
ENDING_SECONDS = 2  # in which it must have done so once the server is being stopped
QUIET_SECONDS = 0.05  # without a byte from anybody, after which nothing is taken to be on its way any more
LARGEST_HEADER = 32_768  # bytes


def require_waitress() -> None:
    """Raise one clear error when waitress is missing.

    Raises:
        ServerError: it is not installed.
    """
    if importlib.util.find_spec("waitress") is None:
        raise ServerError('the server needs waitress, which is not installed; run: pip install "minitl[serve]"')


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Args:
        host: a name or an address.
        port: 0 picks a free one.

    Raises:
        ServerError: there is no such address here, or the port is in use or not allowed.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server((str(address[0]), port), family=family, backlog=1024)
    except (OSError, UnicodeError, OverflowError) as error:
        number = getattr(error, "errno", None)  # its own words name the address once more
        reason = os.strerror(number) if isinstance(number, int) and number > 0 else str(error)
        raise ServerError(
            f"cannot listen on {escaped(host)}, port {port}: {reason}; give another --host or --port (0: a free one)"
        ) from None


def is_loopback(listening: socket.socket) -> bool:
    """Whether only this machine can connect to a socket."""
    return ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback


def url(listening: socket.socket) -> str:
    """Return the URL of a socket's address."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if listening.family == socket.AF_INET6 else f"http://{host}:{port}/"


class Server:
    """Answers requests until :meth:`stop`.

    Args:
        application: what answers.
        listening: the socket, from :func:`listen`.
        threads: how many requests are worked on, or wait for the tagger, at a time.
    """

    def __init__(self, application: Application, listening: socket.socket, *, threads: int) -> None:
        import waitress
        from waitress import wasyncore

        self._application, self._wasyncore = application, wasyncore
        self._map: dict[int, Any] = {}
        self._stopping = False
        self._received = 0  # how many times something came in
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # that requests wait a little is nothing to report
        self._server = waitress.create_server(
            application,
            map=self._map,
            _start=False,
            sockets=[listening],
            threads=threads,
            connection_limit=CONNECTIONS,
            channel_timeout=IDLE_SECONDS,
            cleanup_interval=5,
            max_request_header_size=LARGEST_HEADER,
            # A body that is only somewhat too long is read, since a client that still sends may never see an answer.
            max_request_body_size=2 * application.max_bytes + 65_536,
            asyncore_use_poll=True,
            expose_tracebacks=False,
            log_socket_errors=False,
            ident=None,
        )
        self._server.channel_class = self._channel_class()
        self._server.accept_connections()

    def run(self) -> bool:
        """Answer requests; after :meth:`stop`, finish those that have been sent, within the time that one may take.

        Returns:
            Whether all threads have ended.
        """
        while not self._stopping:
            self._step()
        stopped = time.monotonic()
        end = stopped + self._application.seconds + 1
        self._accept_who_waits()
        self._wasyncore.dispatcher.close(self._server)  # the socket only: new clients are refused from here on
        is_quiet = False
        while time.monotonic() < end and not is_quiet:
            received, is_busy = self._received, self._is_busy(time.monotonic() < stopped + ENDING_SECONDS)
            self._step(1.0 if is_busy else QUIET_SECONDS)
            is_quiet = not is_busy and self._received == received
        has_ended = self._application.batcher.close(max(0.0, end - time.monotonic()))
        self._server.task_dispatcher.shutdown(timeout=1)
        self._wasyncore.close_all(self._map)
        self._server.trigger.close()
        return has_ended and not self._server.task_dispatcher.threads

    def stop(self) -> None:
        """Let :meth:`run` end soon; from any thread, or from the handler of a signal."""
        self._stopping = True
        with suppress(OSError):  # it has ended already
            self._server.pull_trigger()

    def _step(self, timeout: float = 1.0) -> None:
        self._wasyncore.loop(timeout=timeout, use_poll=True, map=self._map, count=1)

    def _accept_who_waits(self) -> None:
        """Take the connections that the system has made already, whose requests may be here, too."""
        known = -1
        while known < len(self._map) < CONNECTIONS:
            known = len(self._map)
            self._server.handle_accept()  # does nothing when there is none

    def _is_busy(self, with_incomplete: bool) -> bool:
        """Whether a request is being answered, or, if it counts, is coming in."""
        return any(
            channel.requests or channel.total_outbufs_len or (with_incomplete and channel.request is not None)
            for channel in list(self._server.active_channels.values())
        )

    def _channel_class(self) -> type:
        """Return waitress's connection, with errors in JSON, a limit for a request that drips in, and an end."""
        from waitress.channel import HTTPChannel
        from waitress.task import ErrorTask, WSGITask

        server, max_bytes = self, self._application.max_bytes

        class LastTask(WSGITask):  # type: ignore[misc]
            """Answers a request, and says that it was the connection's last one when the server is being stopped.

            Otherwise clients that keep their connections busy would keep the server from its end.
            """

            def build_response_header(self) -> bytes:
                if server._stopping and len(self.channel.requests) <= 1:
                    self.request.headers["CONNECTION"] = "close"
                header: bytes = super().build_response_header()
                return header

        class JsonErrorTask(ErrorTask):  # type: ignore[misc]
            """Answers what is no HTTP, or too long, before any application sees it."""

            def execute(self) -> None:
                error = self.request.error
                detail = f"{max_bytes:,} bytes at most" if error.code == 413 else escaped(error.body, 200)
                answer = error_answer(error.code, f"{error.reason}: {detail}")
                self.status, self.content_length = answer.line, len(answer.body)
                self.response_headers.extend(answer.headers())
                self.set_close_on_finish()
                self.write(answer.body)

        class Channel(HTTPChannel):  # type: ignore[misc]
            """One connection."""

            task_class = LastTask
            error_task_class = JsonErrorTask
            began: float | None = None  # when the first bytes of a request came that is not complete

            def received(self, data: bytes) -> bool:
                server._received += 1
                before = self.request
                result: bool = super().received(data)
                if self.request is None:
                    self.began = None
                elif self.request is not before:
                    self.began = time.monotonic()
                return result

            def send_continue(self) -> None:
                if self.request.completed:  # no body, or one that is refused; waitress would wait for it
                    self.request.expect_continue = False
                else:
                    super().send_continue()

            def readable(self) -> bool:
                if self.began is not None and time.monotonic() - self.began > RECEIVING_SECONDS:
                    self.will_close = True
                return bool(super().readable())

        return Channel


def log_to(write: Callable[[str], None]) -> None:
    """Send the warnings of waitress to a function, line by line and without control characters."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            for line in self.format(record).splitlines():
                write(escaped(line, 500)[1:-1])

    logger = logging.getLogger("waitress")
    logger.handlers[:] = [Handler()]
    logger.propagate = False
