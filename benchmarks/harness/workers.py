"""The processes of a suite, each started and prepared once."""

from typing import Any

from harness.child import Worker, WorkerError
from harness.peers import Peer
from harness.settings import announce


class Workers:
    """Starts a worker for every process that peers need; the block's end ends them all.

    Attributes:
        failures: for each peer that cannot run, why.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.failures: dict[str, str] = {}
        self._running: dict[str, Worker] = {}

    def prepare(self, peer: Peer, method: str, **arguments: Any) -> None:
        """Start the peer's process, if it does not run yet, and call a method that makes it ready."""
        if peer.process in self._running or peer.name in self.failures:
            return
        announce(f"  preparing {peer.name}")
        worker = Worker(peer.script, self.threads)
        try:
            worker.call(method, **arguments, **peer.prepare)
        except WorkerError as error:
            self.failures[peer.name] = str(error)
            announce(f"  {peer.name}: {error}")
            worker.close()
        else:
            self._running[peer.process] = worker

    def __getitem__(self, peer: Peer) -> Worker:
        return self._running[peer.process]

    def runs(self, peer: Peer) -> bool:
        """Tell whether the peer is ready."""
        return peer.process in self._running and peer.name not in self.failures

    def fail(self, peer: Peer, reason: str) -> None:
        """Leave a peer out from now on, and say so."""
        announce(f"  {peer.name}: {reason}")
        self.failures[peer.name] = reason

    def close(self) -> None:
        """End all processes."""
        for worker in self._running.values():
            worker.close()
        self._running.clear()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
