"""One thread pool in the process, and it is ours.

A pool's idle workers do not sleep at once: for some milliseconds they spin, in case more work comes. On a machine of
two cores a worker of one pool that spins takes half of the next call of another. So all parallel work of the compiled
kernels goes through the pool of Numba, and the BLAS that NumPy calls is held to one thread from the first parallel
kernel on. That holds for the whole process, your own NumPy code included; ``MINITL_BLAS_THREADS=keep`` in the
environment leaves the BLAS as it is, a number gives it that many.

Our own workers spin too, or every kernel would wait for them to wake up, but for a tenth of a millisecond only
(libgomp's default is a hundred times that): when another program wants a core, it does not wait for a thread that does
nothing, nor do our kernels for one that was made to stop while it spun. ``OMP_WAIT_POLICY`` and ``GOMP_SPINCOUNT`` in
the environment ask for something else.

The pool has one thread for each core that the process may use; ``NUMBA_NUM_THREADS`` asks for fewer. No result depends
on their number.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from contextlib import AbstractContextManager, nullcontext

#: Pools in the order in which they are tried. libgomp ("omp") hands out work in 2 microseconds, "workqueue", which
#: needs nothing installed, in 60.
LAYERS = ("omp", "tbb", "workqueue")
LAYERS_THAT_SURVIVE_A_FORK = ("tbb", "workqueue")

SPINS = "100000"  # turns of libgomp's empty loop, before a worker sleeps

# glibc's names for: from which size on memory is mapped afresh for every array, and how much free memory is kept.
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1


class ThreadPool:
    """When the pool starts, who may use it, and what becomes of it in a fork."""

    def __init__(self) -> None:
        self._layer: str | None = None
        self._lost = False
        self._start_lock = threading.Lock()
        self._turns: AbstractContextManager[object] = nullcontext()
        if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
            os.register_at_fork(after_in_child=self._after_fork)

    def turn(self) -> AbstractContextManager[object]:
        """Start the pool if it has not been, and return what a caller enters around a parallel kernel: a lock, where
        the pool serves one caller at a time.

        Raises:
            RuntimeError: the process was forked from one that had used the pool, whose threads did not come along.
        """
        if self._lost:
            raise RuntimeError(
                "this process was forked from one that had used minitl's threads; they stayed behind, and libgomp ends "
                "a process that asks for them. Start workers with multiprocessing's 'spawn' method, fork before the "
                "first kernel runs, or compute with minitl.use_kernels('reference')"
            )
        if self._layer is None:
            self._start()
        return self._turns

    def _start(self) -> None:
        import numba

        with self._start_lock:
            if self._layer is not None:
                return
            limit_blas(os.environ.get("MINITL_BLAS_THREADS", "1"))
            keep_freed_memory()
            if "OMP_WAIT_POLICY" not in os.environ:
                os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read by libgomp when it is loaded, now at the earliest
            if "NUMBA_THREADING_LAYER_PRIORITY" not in os.environ:
                numba.config.THREADING_LAYER_PRIORITY = list(LAYERS)
            numba.get_num_threads()  # starts the threads
            self._layer = numba.threading_layer()
            if self._layer == "workqueue":
                self._turns = threading.Lock()

    def _after_fork(self) -> None:
        self._lost = self._layer is not None and self._layer not in LAYERS_THAT_SURVIVE_A_FORK


def limit_blas(threads: str) -> None:
    """Hold every BLAS in the process to that many threads; ``"keep"`` leaves them alone.

    Raises:
        ValueError: neither ``"keep"`` nor a number of threads.
    """
    if threads == "keep":
        return
    if not threads.isdecimal() or int(threads) < 1:
        raise ValueError(f"MINITL_BLAS_THREADS must be 'keep' or a number of threads, got {threads!r}")
    import threadpoolctl

    threadpoolctl.threadpool_limits(int(threads), user_api="blas")


def keep_freed_memory() -> None:
    """Let glibc reuse the memory of large arrays: it maps those over 32 MB afresh every time, and the system then fills
    every page with zeros before its first use, which takes longer than most kernels. Other C libraries are left alone.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 2**30)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


pool = ThreadPool()
