"""Arrays that other libraries share with minitl: NumPy's ``__array__``, and DLPack, which they all speak.

    np.asarray(tensor)          a read-only view, as tensor.numpy() gives it
    np.from_dlpack(tensor)      the memory itself, to read and to write; so do torch.from_dlpack, jax.dlpack.from_dlpack
    minitl.from_dlpack(x)       a Tensor in the memory of an array of theirs

Nothing is copied, so what one side writes the other side reads. That is the danger, too: autograd knows what minitl's
own writers write (the optimizer, ``copy_``, ``load_state_dict``) and raises where a value has changed that a gradient
still needs. What comes through shared memory it cannot see; such a gradient is computed from the new values, in
silence. Write between two steps, not between a forward and its backward.

DLPack's reference: the Python array API standard, "Data interchange mechanisms".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from minitl.device import module_of
from minitl.errors import DeviceError
from minitl.kernels.launch import is_short
from minitl.tensor import DTYPES, Tensor

# DLPack's numbers of the kinds of memory (DLDeviceType), those that a CPU reads and those that a GPU of CUDA reads.
HOST_MEMORY = {1: "CPU", 3: "pinned", 11: "pinned (ROCm)"}
GPU_MEMORY = {2: "CUDA", 13: "CUDA, managed"}


def as_numpy(tensor: Tensor, dtype: npt.DTypeLike | None, copy: bool | None) -> npt.NDArray[Any]:
    """Do what NumPy's protocol ``__array__`` asks of a tensor.

    Args:
        tensor: on the CPU, or the simulator.
        dtype: of the result; None for the tensor's own.
        copy: True for a copy, False for none ever, None for one where the dtype needs it.

    Returns:
        The tensor's memory as a read-only array; or a copy, which may be written.

    Raises:
        ValueError: ``copy=False``, and the dtype needs one.
        TypeError: the tensor is on a GPU.
    """
    if not isinstance(tensor.array, np.ndarray):
        raise TypeError(f"this tensor is on {tensor.device!r}; call .numpy() to copy its values to the host")
    if copy is False and dtype is not None and np.dtype(dtype) != tensor.dtype:
        raise ValueError(f"copy=False, but {tensor.dtype} becomes {np.dtype(dtype)} only by a copy")
    return np.array(tensor.numpy(), dtype=dtype, copy=copy)


def export(
    tensor: Tensor,
    stream: Any,
    max_version: tuple[int, int] | None,
    dl_device: tuple[int, int] | None,
    copy: bool | None,
) -> Any:
    """Return a DLPack capsule of the tensor's own array, which its consumer may write; see ``Tensor.__dlpack__``."""
    if tensor.requires_grad:
        raise BufferError("a tensor that requires a gradient cannot be shared through DLPack; use tensor.detach()")
    if is_short(tensor.dtype) and isinstance(tensor.array, np.ndarray):
        raise BufferError(
            f"NumPy cannot share {tensor.dtype} through DLPack; convert the tensor first: tensor.astype('float32')"
        )
    asked = {"stream": stream, "max_version": max_version, "dl_device": dl_device, "copy": copy}
    # NumPy 2.0 knows only the first of them, and None says nothing
    return tensor.array.__dlpack__(**{name: value for name, value in asked.items() if value is not None})


def from_dlpack(source: Any) -> Tensor:
    """Return a tensor in the memory of another library's array, without a copy: what one writes the other sees.

    Autograd does not see what the other library writes: a value that a gradient still needs must not be changed
    between forward and backward. The memory lives until both have let go of it.

    Args:
        source: an array or tensor of any library with ``__dlpack__``, of any strides: PyTorch, JAX, CuPy, NumPy.

    Returns:
        A leaf without a gradient, on ``"cpu"`` or ``"cuda"``. It cannot be written where the source cannot.

    Raises:
        TypeError: ``source`` does not speak DLPack.
        BufferError: its library does not share it (PyTorch: a tensor that requires a gradient), or a Tensor does not
            hold its dtype: float32, float64, integers and bool are held, in the byte order of this machine.
        DeviceError: it is neither in the memory of the host nor of a GPU that can be used here.

    >>> ours = np.zeros(3, dtype=np.float32)
    >>> theirs = from_dlpack(ours)
    >>> ours[1] = 5
    >>> theirs
    Tensor([0., 5., 0.], dtype=float32)
    """
    if isinstance(source, Tensor):
        return source.detach()  # on the same device, the simulator too, and its writes stay seen
    kind = type(source).__name__
    if not (hasattr(source, "__dlpack__") and hasattr(source, "__dlpack_device__")):
        raise TypeError(
            f"from_dlpack needs an array with __dlpack__, not {kind}; Tensor(array) takes lists and numbers"
        )
    xp = module_of(_device_of(source))
    try:
        array = xp.from_dlpack(source)
    except (BufferError, RuntimeError) as error:  # NumPy says by a RuntimeError that it does not know a dtype
        dtype = f" of {source.dtype}" if hasattr(source, "dtype") else ""
        raise BufferError(f"from_dlpack cannot share this {kind}{dtype}: {error}{_HOLDS}") from error
    if array.dtype not in DTYPES:
        raise BufferError(f"from_dlpack cannot share this {kind} of {array.dtype}{_HOLDS}")
    return Tensor(array, device=_device_of(source))


_HOLDS = " (a Tensor holds float32, float64, int8 to int64, uint8 and bool; convert other dtypes first)"


def _device_of(source: Any) -> str:
    """Return minitl's name of the device that an array says its memory is on."""
    kind, number = (int(part) for part in source.__dlpack_device__())
    if kind in HOST_MEMORY:
        return "cpu"
    if kind in GPU_MEMORY:
        return f"cuda:{number}" if number else "cuda"
    raise DeviceError(
        f"this {type(source).__name__} is in memory of DLPack's kind {kind}, which neither the CPU nor a CUDA GPU "
        "reads; copy it to the host with its own library first"
    )
