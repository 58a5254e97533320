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
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cli_tools import COMMAND
from serving.load_clients import PATIENCE, TIMEOUT, Client, Connection, Seen
from serving.load_requests import Good, bad_requests, good_requests, head
from tiny import write_tiny_model

from minitl.models import BertForTokenClassification

TAGS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}
GROWTH_ALLOWED = 64  # MB after three tenths of the time: what threads and the allocator keep
SHOWN = 20  # violations


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
    began = time.monotonic()
    await asyncio.gather(*lasting)
    await asyncio.to_thread(server.wait, PATIENCE)
    seen.stopping = time.monotonic() - began
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


def served(folder: Path, arguments: argparse.Namespace) -> Seen:
    """Start the server for a model, load it and stop it; what is wrong with its end is a violation, too."""
    good = good_requests(BertForTokenClassification.from_pretrained(folder), arguments.seed)
    command = [*COMMAND, "serve", str(folder), "--port", "0", "--timeout", str(TIMEOUT)]
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            if url:
                seen = asyncio.run(load(int(url.rstrip("/").rpartition(":")[2]), server, good, arguments))
            code = server.wait(timeout=PATIENCE)
        finally:
            server.kill()
        log.seek(0)
        said = log.read().splitlines()
    if not url:
        raise SystemExit("\n".join(["the server did not start", *said]))
    if code != 128 + signal.SIGTERM:
        seen.violations.append(f"exit code {code} instead of {128 + signal.SIGTERM}")
    if not said or " stopped, after " not in said[-1]:
        seen.violations.append(f"the last line of the log is {said[-1:]!r}")
    seen.violations += [f"log: {line}" for line in said[:-1] if not line.endswith(" ms")]
    return seen


def main() -> int:
    """Print what the clients saw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, help="folder of a token classifier; a tiny random one if left out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        tiny = Path(work) / "tiny"
        seen = served(
            arguments.model or write_tiny_model(tiny, id2label=TAGS, initializer_range=2.0),
            arguments,
        )
    memory = [*(seen.memory[len(seen.memory) * tenth // 10] for tenth in range(10)), seen.memory[-1]]
    growth = memory[-1] - memory[3]
    if growth > GROWTH_ALLOWED:
        seen.violations.append(f"memory grew by {growth:.1f} MB, {GROWTH_ALLOWED} are allowed")
    print(table(seen, arguments.seconds))
    print(f"all: {sum(seen.answers.values()) / arguments.seconds:,.0f} requests a second, {arguments.clients} clients")
    print(f"memory in MB, each tenth of the time: {', '.join(f'{one:.0f}' for one in memory)}")
    print(f"memory since three tenths of the time: {growth:+.1f} MB")
    print(f"the server ended {seen.stopping:.1f} s after SIGTERM")
    for violation in seen.violations[:SHOWN]:
        print(f"VIOLATION: {violation}")
    print(f"seed {arguments.seed}: {len(seen.violations)} violations")
    return 1 if seen.violations else 0


if __name__ == "__main__":
    sys.exit(main())
