"""Kernels: how a device does the arithmetic. Array functions without autograd, one folder for each job.

Each folder holds ``reference.py``, the specification in plain NumPy/CuPy, and later ``cpu.py`` (Numba) and ``cuda.py``
with its ``.cu`` file; all of them offer the same functions with the same signatures: arrays in, arrays out, metadata by
keyword, no Tensor, no global state. :func:`select` is the only place that chooses between them.

This folder stands at the top of the repository because reading it is half the point; it is installed, and imported, as
``minitl.kernels``.
"""

from minitl.kernels.select import select, use_kernels

__all__ = ["select", "use_kernels"]
