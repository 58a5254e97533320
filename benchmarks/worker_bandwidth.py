"""A worker that measures how fast this machine reads arrays and writes them back; see harness/serve.py."""

import os
from collections.abc import Callable

import numpy as np
from harness.serve import refuse, serve
from harness.timing import seconds_of

ELEMENTS = 2**25  # 134 MB an array, more than any cache holds


class BandwidthWorker:
    """Two loops, each by Numba and by torch as far as they are installed: over one array, which is read and written (8
    bytes an element), and over four, of which three are written (28 bytes), the traffic of AdamW."""

    def __init__(self) -> None:
        self.arrays = [np.ones(ELEMENTS, dtype=np.float32) for _ in range(4)]
        loops: dict[str, tuple[int, Callable[[], object]]] = {**_numba_loops(self.arrays), **_torch_loops(self.arrays)}
        if not loops:
            refuse(ModuleNotFoundError(name="numba"))
        self.loops = loops

    def measure(self) -> dict[str, float]:
        """Return bytes a second of each loop."""
        return {name: size * ELEMENTS / seconds_of(loop) for name, (size, loop) in self.loops.items()}


def _numba_loops(arrays: list[np.ndarray]) -> dict[str, tuple[int, Callable[[], object]]]:
    try:
        import numba
    except ImportError:
        return {}

    @numba.njit(parallel=True, fastmath=True)
    def one(x):
        for i in numba.prange(x.size):
            x[i] = x[i] * np.float32(0.5) + np.float32(0.5)

    @numba.njit(parallel=True, fastmath=True)
    def four(p, g, m, v):
        half = np.float32(0.5)
        for i in numba.prange(p.size):
            m[i] = half * (m[i] + g[i])
            v[i] = half * (v[i] + g[i])
            p[i] = half * (m[i] + v[i])

    return {
        "a Numba loop over one array": (8, lambda: one(arrays[0])),
        "a Numba loop over four arrays": (28, lambda: four(*arrays)),
    }


def _torch_loops(arrays: list[np.ndarray]) -> dict[str, tuple[int, Callable[[], object]]]:
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    tensor = torch.from_numpy(arrays[0])
    return {"torch's mul_": (8, lambda: tensor.mul_(1.0))}


if __name__ == "__main__":
    serve(BandwidthWorker())
