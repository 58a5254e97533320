"""The number of a random call that only the GPU knows."""

from __future__ import annotations

from minitl.kernels.launch import Array


class DeviceCall(int):
    """This number plus the one that lies in the GPU's memory.

    A CUDA graph is recorded once and run in every step; numbers in it stay as they are, memory does not.

    Attributes:
        base: (1,) uint64, on the device.
    """

    base: Array

    def __new__(cls, offset: int, base: Array) -> DeviceCall:
        call = super().__new__(cls, offset)
        call.base = base
        return call
