"""The one thread pool: who may use it after a fork, what it does to the BLAS, and callers from several threads.

What happens to a process is tested in processes of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from minitl.kernels.threads import limit_blas

# A kernel on enough rows that it runs on the pool.
WORK = """
import os, sys, threading
import numpy as np
from minitl.kernels.gelu import cpu as gelu, reference
x = np.linspace(-3, 3, 200 * 600, dtype=np.float32).reshape(200, 600)
def work():
    return gelu.forward(x, None, approximate="none")
wanted = reference.forward(x, None, approximate="none")
"""

FORK = (
    WORK
    + """
work()
child = os.fork()
if child == 0:
    try:
        result = work()
    except RuntimeError as error:
        print(error)
        os._exit(3)
    os._exit(0 if np.allclose(result, wanted, atol=1e-6) else 4)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(np.array_equal(work(), work()))
"""
)


def run(script: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script],  # of forking with threads, since 3.12
        env=os.environ | {"NUMBA_NUM_THREADS": "2"} | environment,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def layer() -> str:
    return run(WORK + "work()\nimport numba\nprint(numba.threading_layer())")[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_is_told_what_happened() -> None:
    if layer() != "omp":
        pytest.skip("libgomp is not here; the other pools survive a fork")
    message, child_exit, parent_still_works = run(FORK)
    assert child_exit == "3", "libgomp ended the child before minitl could say why"
    assert "was forked" in message
    assert "spawn" in message
    assert "use_kernels('reference')" in message
    assert parent_still_works == "True"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_before_the_first_kernel_is_harmless() -> None:
    assert run(FORK.replace("\nwork()\nchild", "\nchild"))[0] == "0"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_pool_that_comes_with_numba_survives_a_fork() -> None:
    assert run(FORK, NUMBA_THREADING_LAYER="workqueue") == ["0", "True"]


@pytest.mark.parametrize("name", ["omp", "workqueue"])
def test_several_threads_may_call_kernels_at_once(name: str) -> None:
    """workqueue ends the process when two threads enter it; the pool lets one in after the other."""
    script = """
results = [None] * 4
def repeat(number):
    for _ in range(50):
        results[number] = work()
threads = [threading.Thread(target=repeat, args=(number,)) for number in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(all(np.array_equal(result, results[0]) for result in results), np.allclose(results[0], wanted, atol=1e-6))
"""
    if name == "omp" and layer() != "omp":
        pytest.skip("libgomp is not here")
    assert run(WORK + script, NUMBA_THREADING_LAYER=name) == ["True True"]


BLAS = """
import threadpoolctl
def blas():
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
before = blas()
work()
print(before, blas(), os.environ.get("OPENBLAS_NUM_THREADS"))
"""


def test_the_blas_is_held_to_one_thread_unless_told_otherwise() -> None:
    if not run(WORK + BLAS)[0].startswith("[2]"):
        pytest.skip("NumPy's BLAS has one thread anyway, or threadpoolctl does not know it")
    assert run(WORK + BLAS) == ["[2] [1] None"]
    assert run(WORK + BLAS, MINITL_BLAS_THREADS="keep") == ["[2] [2] None"]


@pytest.mark.parametrize("threads", ["0", "-1", "many", "1.5", ""])
def test_a_number_of_blas_threads_that_is_none(threads: str) -> None:
    with pytest.raises(ValueError, match="MINITL_BLAS_THREADS must be 'keep' or a number of threads"):
        limit_blas(threads)
