"""The clients of tests/serving/load.py, and what they see: good requests in several ways, bad ones, and none at all."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise

from serving.load_requests import Bad, Good

TIMEOUT = 300.0  # seconds after which the server gives up; on a busy machine a queue is long, and that is no fault
PATIENCE = TIMEOUT + 30  # seconds that a client waits
SHARES = {"short": 5.0, "plain text": 2.0, "unicode": 2.0, "long": 0.5, "very long": 0.1}  # batch: 1


@dataclass
class Seen:
    """What the clients saw."""

    answers: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    violations: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)  # MB, each second
    stopping: float = 0.0  # seconds from SIGTERM to the server's end

    def note(self, kind: str, began: float, problem: str | None = None) -> None:
        self.answers[kind] += 1
        self.seconds[kind].append(time.monotonic() - began)
        if problem is not None:
            self.violations.append(f"{kind}: {problem}")


class Connection:
    """One connection of a client, opened when it is needed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, *parts: bytes, pause: float = 0.0) -> None:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
        for part in parts:
            self._streams[1].write(part)
            await self._streams[1].drain()
            if pause:
                await asyncio.sleep(pause)

    async def answer(self) -> tuple[int, bytes]:
        """Status and body of the next answer; the connection is closed when the answer says so."""
        assert self._streams is not None
        raw = await asyncio.wait_for(self._streams[0].readuntil(b"\r\n\r\n"), PATIENCE)
        status, *lines = raw.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await asyncio.wait_for(self._streams[0].readexactly(int(fields["content-length"])), PATIENCE)
        if fields.get("connection", "").lower() == "close":
            self.close()
        return int(status.split(" ")[1]), body

    def close(self, *, reset: bool = False) -> None:
        """Close the connection; with a reset, what is under way is thrown away."""
        if self._streams is not None:
            if reset:
                connected = self._streams[1].get_extra_info("socket")
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            self._streams[1].transport.abort() if reset else self._streams[1].close()
            self._streams = None


class Client:
    """Sends what it draws until the end, then a last request while the server is being stopped."""

    def __init__(self, port: int, good: list[Good], bad: list[Bad], seen: Seen, drawn: random.Random) -> None:
        self._port, self._goods, self._bads, self._seen, self._drawn = port, good, bad, seen, drawn
        self._weights = [SHARES.get(one.kind, 1.0) for one in good]
        self._connection = Connection(port)

    async def run(self, end: float) -> None:
        ways = [(self.plain, 70), (self.wrong, 15), (self.in_chunks, 3), (self.dripping, 3), (self.at_once, 3),
                (self.expecting, 2), (self.leaving, 4)]  # fmt: skip
        while time.monotonic() < end:
            (way,) = self._drawn.choices([way for way, _ in ways], [weight for _, weight in ways])
            began = time.monotonic()
            try:
                await way()
            except (OSError, EOFError, TimeoutError) as error:
                self._seen.note(way.__name__, began, f"no answer: {type(error).__name__}: {error}")
                self._connection.close()
            if self._drawn.random() < 0.2:
                self._connection.close()

    def _good(self) -> Good:
        return self._drawn.choices(self._goods, self._weights)[0]

    async def plain(self) -> None:
        good, began = self._good(), time.monotonic()
        await self._connection.send(good.head() + good.body)
        self._seen.note(good.kind, began, good.difference(*await self._connection.answer()))

    async def in_chunks(self) -> None:
        good, began = self._good(), time.monotonic()
        cuts = sorted({0, len(good.body), *(self._drawn.randint(0, len(good.body)) for _ in range(5))})
        parts = [good.body[start:stop] for start, stop in pairwise(cuts)]
        sent = [b"%x\r\n%s\r\n" % (len(part), part) for part in parts]
        await self._connection.send(good.head(chunked=True), *sent, b"0\r\n\r\n")
        self._seen.note("in chunks", began, good.difference(*await self._connection.answer()))

    async def dripping(self) -> None:
        good, began = self._good(), time.monotonic()
        whole = good.head() + good.body
        size = -(-len(whole) // 20)
        parts = [whole[start : start + size] for start in range(0, len(whole), size)]
        await self._connection.send(*parts, pause=self._drawn.uniform(0.01, 0.2))
        self._seen.note("dripping", began, good.difference(*await self._connection.answer()))

    async def at_once(self) -> None:
        began = time.monotonic()
        several = [self._good() for _ in range(3)]
        await self._connection.send(b"".join(good.head() + good.body for good in several))
        for good in several:
            self._seen.note("three at once", began, good.difference(*await self._connection.answer()))

    async def expecting(self) -> None:
        good, began = self._good(), time.monotonic()
        await self._connection.send(good.head("Expect: 100-continue", "Connection: close"))
        assert self._connection._streams is not None
        if good.body:  # to an empty one there is nothing to say but the answer
            line = await asyncio.wait_for(self._connection._streams[0].readuntil(b"\r\n\r\n"), PATIENCE)
            assert line == b"HTTP/1.1 100 Continue\r\n\r\n", line
            await self._connection.send(good.body)
        self._seen.note("expects 100", began, good.difference(*await self._connection.answer()))

    async def wrong(self) -> None:
        bad, began = self._drawn.choice(self._bads), time.monotonic()
        problem = None
        try:
            await self._connection.send(bad.sent)
            status, body = await self._connection.answer()
            if status != bad.status or not body.startswith(b'{"error": '):
                problem = f"{status} instead of {bad.status} for {bad.sent[:200]!r}: {body[:200]!r}"
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            self._connection.close()
            if not bad.closes:
                problem = f"no answer to {bad.sent[:200]!r}: {type(error).__name__}"
        self._seen.note(bad.kind, began, problem)

    async def leaving(self) -> None:
        """What has no answer: a request cut off, or left, in four ways."""
        good, began = self._good(), time.monotonic()
        whole = good.head() + good.body
        connection = Connection(self._port)  # not the kept one, which may hold nothing by now
        await connection.send(whole[: self._drawn.randint(1, len(whole))] if self._drawn.random() < 0.5 else whole)
        connection.close(reset=self._drawn.random() < 0.5)
        self._seen.note("left", began)

    async def last(self, all_sent: asyncio.Barrier) -> None:
        """Send one more request; its answer must come although the server is told to stop once all are sent."""
        good, began = self._good(), time.monotonic()
        try:
            await self._connection.send(good.head() + good.body)
        finally:
            await all_sent.wait()
        try:
            self._seen.note("in flight", began, good.difference(*await self._connection.answer()))
            with suppress(OSError, EOFError):  # one that goes on sending must not keep the server
                while True:
                    await self._connection.send(good.head() + good.body)
                    await self._connection.answer()
        except (OSError, EOFError, TimeoutError) as error:
            self._seen.note("in flight", began, f"no answer: {type(error).__name__}: {error}")
