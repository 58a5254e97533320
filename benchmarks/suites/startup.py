"""How long until something happens: importing a program, and the end of its first training step."""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness.batches import natural
from harness.child import Worker, WorkerError, child_environment
from harness.peers import MINITL, MINITL_BF16, TORCH, TORCH_COMPILE, Peer
from harness.settings import Settings, announce
from harness.tables import Column, Table

IMPORTS = {
    "minitl": "minitl",
    "minitl with its BERT": "minitl.models.bert",
    "numpy": "numpy",
    "torch": "torch",
    "torch with transformers' BERT": "torch, transformers.models.bert.modeling_bert",
}
CACHES = ("NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
COMPILE_ROUNDS = 0  # with a kept cache: torch.compile takes half a minute even then
PEERS = (MINITL, MINITL_BF16, TORCH, TORCH_COMPILE)
COLUMNS = [
    Column("what", "what"),
    Column("program", "program"),
    Column("seconds", "seconds", ".2f"),
    Column("seconds_least", "", ".2f"),
    Column("seconds_most", "", ".2f"),
    Column("rounds", "rounds", "d"),
    Column("note", "note"),
]
NOTES = [
    "*import*: time of the import statement in a fresh Python, files in the system's cache. *first step*: from the "
    "start of the process to the end of the first training step of minilm on one CoNLL-2003 batch of 32, the making "
    "of the model included. *empty cache*: nothing compiled was kept from an earlier run.",
]


def run(settings: Settings) -> Table:
    """Measure imports and first steps."""
    table = Table("startup", "Import and first step", COLUMNS, notes=list(NOTES))
    table.rows += _imports(settings)
    table.rows += _first_steps(settings)
    return table


def _imports(settings: Settings) -> list[dict[str, Any]]:
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for number in range(settings.rounds):
        announce(f"startup: imports, round {number + 1} of {settings.rounds}")
        for name, modules in IMPORTS.items():
            seconds = _import_seconds(modules, settings.threads)
            if seconds is not None:
                times[name].append(seconds)
    return [_row("import", name, found, "" if found else "not installed") for name, found in times.items()]


def _import_seconds(modules: str, threads: int) -> float | None:
    code = f"import time; start = time.perf_counter(); import {modules}; print(time.perf_counter() - start)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tempfile.gettempdir(),
        env=child_environment(threads),
        check=False,
    )
    return float(done.stdout) if done.returncode == 0 else None


def _first_steps(settings: Settings) -> list[dict[str, Any]]:
    """Every program starts once with an empty cache, and then, in turns, with what that run has left there."""
    peers = settings.wanted(PEERS)
    empty: dict[str, list[float]] = {peer.name: [] for peer in peers}
    kept: dict[str, list[float]] = {peer.name: [] for peer in peers}
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(settings.rounds + 1):
            announce(f"startup: first steps, round {number} of {settings.rounds}")
            for peer in peers:
                if peer.name in failures or (peer is TORCH_COMPILE and number > COMPILE_ROUNDS):
                    continue
                try:
                    seconds = _first_step_seconds(settings, peer, Path(folder, peer.name.replace(" ", "-")))
                except WorkerError as error:
                    failures[peer.name] = str(error)
                else:
                    (kept if number else empty)[peer.name].append(seconds)
    rows = [_row("first step, empty cache", peer.name, empty[peer.name], failures.get(peer.name, "")) for peer in peers]
    return rows + [_row("first step", name, found, "") for name, found in kept.items() if found]


def _first_step_seconds(settings: Settings, peer: Peer, cache: Path) -> float:
    """Return the time from the start of a process to the end of its first step."""
    workload = natural("conll2003", 32, 1)
    worker = Worker(peer.script, settings.threads, dict.fromkeys(CACHES, str(cache)))
    try:
        worker.call("prepare_training", model="minilm", **peer.prepare)
        worker.call("load", orders={peer.order: workload.orders[peer.order]}, scored_share=workload.scored_share)
        worker.call("steps", order=peer.order, **peer.options)
        return time.perf_counter() - worker.started
    finally:
        worker.close()


def _row(what: str, program: str, found: list[float], note: str) -> dict[str, Any]:
    row: dict[str, Any] = {"what": what, "program": program, "rounds": len(found), "note": note}
    if found:
        row |= {"seconds": statistics.median(found), "seconds_least": min(found), "seconds_most": max(found)}
    return row
