"""Many clients at once, good and bad ones, against the real ``minitl serve``: every answer is compared.

    python tests/serving/load.py                                    60 s, 200 clients, a tiny random model
    python tests/serving/load.py --seconds 10 --clients 50 --seed 3 --model runs/ner-1

Each client sends what it draws, mostly good requests of all sizes, on connections that it keeps or renews; some of them
slowly, in chunks, or several at once. Others are wrong in every layer, cut off, or left before the answer comes. What
must hold: a good request is answered with 200 and with what ``model.tag_texts`` returns for it, however long the queue;
a bad one with its 4xx; ``/health`` with 200 at any time; the memory of the server stays. At the end every client sends
one more request and the server gets SIGTERM: all of these are answered, and it exits with 143.

Exit code: 0, or 1 when anything of this did not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cli_tools import COMMAND
from serving.load_requests import Bad, Good, bad_requests, good_requests, head
from tiny import write_tiny_model

from minitl.models import BertForTokenClassification

SHARES = {"short": 5.0, "plain text": 2.0, "unicode": 2.0, "long": 0.5, "very long": 0.1}  # batch: 1
TAGS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}
PATIENCE = 60.0  # seconds that a client waits: more than the 30 after which the server itself gives up
GROWTH_ALLOWED = 64  # MB of memory after the first third: what threads and the allocator keep; a leak would be more
SHOWN = 20  # violations


@dataclass
class Seen:
    """What the clients saw."""

    answers: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    violations: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)  # MB, each second

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


async def watch_health(port: int, end: float, seen: Seen) -> None:
    """Ask for the health several times a second, on a new connection."""
    while time.monotonic() < end:
        connection, began = Connection(port), time.monotonic()
        try:
            await connection.send(head("GET /health HTTP/1.1", "Connection: close"))
            status, body = await connection.answer()
            seen.note("health", began, None if status == 200 else f"{status}: {body[:200]!r}")
        except (OSError, EOFError, TimeoutError) as error:
            seen.note("health", began, f"no answer: {type(error).__name__}: {error}")
        await asyncio.sleep(0.2)


async def watch_memory(process: int, end: float, seen: Seen) -> None:
    while time.monotonic() < end:
        seen.memory.append(resident_megabytes(process))
        await asyncio.sleep(1)


def resident_megabytes(process: int) -> float:
    """What a process holds in memory."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


async def load(port: int, server: subprocess.Popen[str], good: list[Good], arguments: argparse.Namespace) -> Seen:
    """Let the clients work, then stop the server while each has one more request under way."""
    seen, end = Seen(), time.monotonic() + arguments.seconds
    clients = [
        Client(port, good, bad_requests(), seen, random.Random(f"{arguments.seed} {number}"))
        for number in range(arguments.clients)
    ]
    watching = (watch_health(port, end, seen), watch_memory(server.pid, end, seen))
    await asyncio.gather(*watching, *(client.run(end) for client in clients))
    all_sent = asyncio.Barrier(arguments.clients + 1)
    lasting = [asyncio.create_task(client.last(all_sent)) for client in clients]
    await all_sent.wait()
    server.send_signal(signal.SIGTERM)
    await asyncio.gather(*lasting)
    return seen


def table(seen: Seen, seconds: float) -> str:
    """Counts and times of every kind of request."""
    lines = [f"{'kind':<14}{'answers':>9}{'a second':>10}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}"]
    for kind in sorted(seen.answers):
        times = sorted(1000 * one for one in seen.seconds[kind])
        p99 = times[min(len(times) - 1, int(0.99 * len(times)))]
        count = seen.answers[kind]
        lines.append(
            f"{kind:<14}{count:>9,}{count / seconds:>10.1f}{statistics.median(times):>9.0f}{p99:>9.0f}{times[-1]:>9.0f}"
        )
    return "\n".join(lines)


def main() -> int:
    """Start the server, load it, stop it; print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, help="folder of a token classifier; a tiny random one if left out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = arguments.model or write_tiny_model(Path(work) / "tiny", id2label=TAGS, initializer_range=2.0)
        good = good_requests(BertForTokenClassification.from_pretrained(folder), arguments.seed)
        log = Path(work) / "log"
        with log.open("w") as stderr, subprocess.Popen(
            [*COMMAND, "serve", str(folder), "--port", "0"], stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as server:  # fmt: skip
            try:
                assert server.stdout is not None
                url = server.stdout.readline().strip()
                if not url:
                    raise SystemExit(f"the server did not start: {log.read_text()}")
                seen = asyncio.run(load(int(url.rstrip("/").rpartition(":")[2]), server, good, arguments))
                began = time.monotonic()
                code = server.wait(timeout=PATIENCE)
                stopping = time.monotonic() - began
            finally:
                server.kill()
        said = log.read_text().splitlines()
    if code != 128 + signal.SIGTERM:
        seen.violations.append(f"exit code {code} instead of 143")
    if not said or " stopped, after " not in said[-1]:
        seen.violations.append(f"the last line of the log is {said[-1:]!r}")
    unusual = [line for line in said[:-1] if not line.endswith(" ms")]
    seen.violations += [f"log: {line}" for line in unusual]
    warm, last = seen.memory[len(seen.memory) // 3], seen.memory[-1]
    if last - warm > GROWTH_ALLOWED:
        seen.violations.append(f"memory grew by {last - warm:.1f} MB, {GROWTH_ALLOWED} are allowed")
    print(table(seen, arguments.seconds))
    print(f"all: {sum(seen.answers.values()) / arguments.seconds:,.0f} requests a second, {arguments.clients} clients")
    print(f"memory: {warm:.1f} MB after a third, {last:.1f} MB at the end, at most {max(seen.memory):.1f} MB")
    print(f"stopped {stopping:.1f} s after the last answer, with exit code {code}")
    for violation in seen.violations[:SHOWN]:
        print(f"VIOLATION: {violation}")
    print(f"seed {arguments.seed}: {len(seen.violations)} violations")
    return 1 if seen.violations else 0


if __name__ == "__main__":
    sys.exit(main())
