"""In which precision a model computes: float32, or bfloat16 with sums in float32.

bfloat16 is a float32 without its lower 16 bits: the same range, 8 bits of precision. Processors and GPUs that have it
multiply it at two to sixteen times the speed of float32, and it is half as much to read and write. What needs precision
are the small differences that add up, so parameters, their gradients, the optimizer's moments and saved files stay
float32, and every sum is taken in float32. (Kalamkar et al. 2019, "A Study of BFLOAT16 for Deep Learning Training".)

So bfloat16 is a policy for computing, and no dtype of a parameter:

    with minitl.precision("auto"):
        step = train_step(model, [batch], optimizer)

On a CPU only the operands of linear layers are rounded, for memory there is fast enough. On a GPU the activations, what
lies between the layers, are bfloat16 as well: the policy begins at the embeddings, and what they return goes through
the layers as it is. A GPU has two more choices: "tf32", float32 arrays and products of operands rounded to 11 bits;
and for prediction "float16", which GPUs from before bfloat16 multiply fast, too. Its range is too small for gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minitl.device import check_device, module_of
from minitl.errors import PrecisionError
from minitl.kernels.launch import Array, bfloat16, cupy_or_none
from minitl.kernels.processor import processor
from minitl.kernels.select import select

if TYPE_CHECKING:
    from minitl.tensor import Tensor

CHOICES = ("float32", "bfloat16", "float16", "tf32", "auto")
TENSOR_CORES = 8  # GPUs from compute capability 8.0 on multiply bfloat16 and tf32


@dataclass(frozen=True)
class Precision:
    """A policy.

    Attributes:
        compute: ``"float32"``, where operands are multiplied as they are (float64 ones too); ``"bfloat16"``, where
            the float32 operands of linear layers are rounded to it first; ``"tf32"``, where a GPU rounds them; or
            ``"float16"``, in which a GPU predicts.
    """

    compute: str = "float32"


class Shadow:
    """A copy of a parameter in 16 bits, which is made when it is first asked for.

    Attributes:
        version: of the parameter, when it was rounded; -1 before.
    """

    def __init__(self, make: Callable[[], Array]) -> None:
        """Take a function that returns memory of the parameter's shape."""
        self._make, self.version = make, -1
        self._array: Array | None = None

    @property
    def exists(self) -> bool:
        """Whether it was asked for."""
        return self._array is not None

    @property
    def array(self) -> Array:
        if self._array is None:
            self._array = self._make()
        return self._array


_FLOAT32 = Precision()
_current: ContextVar[Precision] = ContextVar("precision", default=_FLOAT32)


def current_precision() -> Precision:
    """Return the policy that holds here."""
    return _current.get()


@contextmanager
def precision(compute: str, device: str = "cpu") -> Iterator[Precision]:
    """Choose the precision inside a ``with`` block.

    An operation that was recorded in the block is differentiated in the same precision, wherever ``backward()`` is
    called. The choice is a context variable: it holds for the current thread and for the tasks started from it.

    Args:
        compute: ``"float32"``; ``"bfloat16"``; ``"tf32"``, for GPUs; ``"float16"``, for predicting on GPUs; or
            ``"auto"``, which is bfloat16 where the device multiplies it in hardware (AVX512-BF16: Intel from Cooper
            Lake and Sapphire Rapids on, AMD from Zen 4 on; GPUs from compute capability 8.0 on) and float32 on all
            others, the simulator among them. With the reference kernels, which only imitate it, "bfloat16" works
            everywhere and "auto" is float32.
        device: where it shall hold: whether it can is found out here, and not in the middle of the training.

    Raises:
        ValueError: another word.
        DeviceError: there is no such device here.
        PrecisionError: a precision that the device does not have.

    >>> with precision("float32") as policy:
    ...     policy.compute
    'float32'
    """
    if compute not in CHOICES:
        raise ValueError(f"precision takes {', '.join(map(repr, CHOICES))}, not {compute!r}")
    check_device(device)
    resolve = _resolved if device.partition(":")[0] == "cpu" else _resolved_for_cuda
    token = _current.set(Precision(resolve(compute, device)))
    try:
        yield _current.get()
    finally:
        _current.reset(token)


def _resolved(compute: str, device: str) -> str:
    """Return what "auto" stands for on this processor; refuse what it does not have."""
    if compute == "float32":
        return compute
    if compute in ("tf32", "float16"):
        raise PrecisionError(
            f"precision {compute!r} is one of GPUs: say minitl.precision({compute!r}, device='cuda'); use 'float32'"
        )
    imitated = select("matmul", device).__name__.endswith(".reference")
    if compute == "auto":
        return "bfloat16" if not imitated and processor().bfloat16 else "float32"
    if not imitated and not processor().bfloat16:
        raise PrecisionError(
            "precision 'bfloat16' needs a processor that multiplies it (AVX512-BF16, in /proc/cpuinfo avx512_bf16), "
            "and this one does not; use 'float32', or 'auto', which takes bfloat16 only where it is. (For a model on a "
            "GPU say minitl.precision('bfloat16', device='cuda').) To see what rounding does to a model, at reference "
            "speed, go around it with minitl.use_kernels('reference')"
        )
    return compute


def _resolved_for_cuda(compute: str, device: str) -> str:
    """Return what "auto" stands for on this GPU, or the simulator; refuse what it does not have."""
    imitated = select("matmul", device).__name__.endswith(".reference")
    if device.partition(":")[0] == "cudasim":
        if compute == "tf32":
            raise PrecisionError("precision 'tf32' is one of GPUs, the simulator has none; use 'float32'")
        return "float32" if compute == "auto" else compute
    cupy = cupy_or_none()
    assert cupy is not None  # check_device has said so
    capability = cupy.cuda.Device().compute_capability  # "90" for 9.0
    there = int(capability) >= 10 * TENSOR_CORES
    if compute == "auto":
        return "bfloat16" if there and not imitated else "float32"
    if not there and compute in ("bfloat16", "tf32") and not (imitated and compute == "bfloat16"):
        raise PrecisionError(
            f"precision {compute!r} needs a GPU of compute capability {TENSOR_CORES}.0 or newer, this one has "
            f"{capability[:-1]}.{capability[-1]}; use 'float32' or 'auto', for prediction 'float16'"
        )
    return compute


def products_in_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Tell a linear layer whether to round its operands, which are of this dtype.

    Raises:
        TypeError: the policy is bfloat16 and the operands are not float32. A float64 model is there for its
            precision; rounding it in silence would give it the appearance of one.
    """
    if _current.get().compute != "bfloat16":
        return False
    if dtype != np.float32:
        raise TypeError(
            f"bfloat16 computes for float32 models, these operands are {dtype}; convert the model with "
            ".to(dtype='float32'), or compute it under minitl.precision('float32')"
        )
    return True


def activations_in(device: str) -> np.dtype[Any] | None:
    """Tell an embedding the dtype of 16 bits that the rows that it returns shall have, and with them what later layers
    return; None where they stay as they are.

    They have one where the policy names it and CUDA kernels compute.
    """
    compute = _current.get().compute
    if compute not in ("bfloat16", "float16") or not select("matmul", device).__name__.endswith(".cuda"):
        return None
    return bfloat16() if compute == "bfloat16" else np.dtype(np.float16)


def check_no_gradient(dtype: np.dtype[Any] | None, needs_gradient: Sequence[bool]) -> None:
    """Raise a PrecisionError if an operation on float16 would have to be differentiated."""
    if dtype == np.float16 and any(needs_gradient):
        raise PrecisionError(
            "precision 'float16' is for prediction, its range is too small for gradients: predict inside "
            "minitl.no_grad(), or train in 'float32', or on a GPU that has it in 'bfloat16'"
        )


def short_copy(weight: Tensor, dtype: np.dtype[Any]) -> Array:
    """Return a weight rounded to a dtype of 16 bits, for activations of that dtype, kept until the weight changes."""
    half = dtype == np.float16
    shadow = weight._half if half else weight._shadow
    if shadow is None:  # for bfloat16 an optimizer on a GPU has given one to each of its parameters
        shape, xp = weight.shape, module_of(weight.device)
        shadow = Shadow(lambda: xp.empty(shape, dtype))
        if half:
            weight._half = shadow
        else:
            weight._shadow = shadow
    if shadow.version != weight._version.value:
        shadow.array[...] = weight.array.astype(dtype)
        shadow.version = weight._version.value
    return shadow.array
