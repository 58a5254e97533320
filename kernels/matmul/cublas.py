"""Matrix products by cuBLASLt, NVIDIA's library, on the stream that CuPy works on.

CuPy has products of its own, but none that a CUDA graph can record, and none of batches of bfloat16. So this file calls
the library through ctypes: a handle for the process, and for each kind of product a *plan*, made once: descriptions of
the operation and of the matrices, and the algorithm that the library's heuristic puts first. (The first one is the same
in every run; the fastest of several measurements would not be, and with it the last bits of a result.)

cuBLASLt stores matrices by columns, and an array of ours is stored by rows: to the library it is its own transpose. So
c = a b is asked for as c' = b' a', where the prime costs nothing: the operands change places, and are transposed for
the library where they are transposed for us.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from ctypes import byref, c_float, c_int, c_int64, c_size_t, c_uint64, c_void_p
from typing import Any, NamedTuple

import numpy as np

from minitl.kernels.launch import HOW_TO_GET_CUPY, Array, address, array_module

# cublasLt.h, cublas_api.h and library_types.h of CUDA 13
R_32F, R_64F, R_16F, R_16BF = 0, 1, 2, 14
COMPUTE_32F, COMPUTE_64F, COMPUTE_32F_FAST_TF32 = 68, 70, 77
TRANSPOSED, NOT_TRANSPOSED = 1, 0
DESC_TRANSA, DESC_TRANSB, DESC_EPILOGUE, DESC_BIAS_POINTER, DESC_BIAS_BATCH_STRIDE = 3, 4, 7, 8, 10
LAYOUT_BATCH_COUNT, LAYOUT_STRIDED_BATCH_OFFSET = 5, 6
PREF_MAX_WORKSPACE_BYTES, PREF_MIN_ALIGNMENT_A_BYTES = 1, 5  # B, C and D follow A
EPILOGUE_BIAS = 4
STATUS = {
    1: "NOT_INITIALIZED", 3: "ALLOC_FAILED", 7: "INVALID_VALUE", 8: "ARCH_MISMATCH", 11: "MAPPING_ERROR",
    13: "EXECUTION_FAILED", 14: "INTERNAL_ERROR", 15: "NOT_SUPPORTED", 16: "LICENSE_ERROR",
}  # fmt: skip

TYPES = {"float32": R_32F, "float64": R_64F, "float16": R_16F, "bfloat16": R_16BF}
WORKSPACE_BYTES = 32 << 20  # as NVIDIA recommends for Hopper
BEST_ALIGNMENT = 256  # of an address, in bytes; more makes no difference

_tf32: ContextVar[bool] = ContextVar("tf32", default=False)


class CublasError(RuntimeError):
    """cuBLASLt is not here, or refuses a product."""


def tf32_is_on() -> bool:
    """Tell whether operands of float32 products are rounded to tf32 here: 11 bits, for the tensor cores."""
    return _tf32.get()


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Choose, inside the block, whether float32 operands are rounded to tf32; the sums are float32 in any case."""
    token = _tf32.set(on)
    try:
        yield
    finally:
        _tf32.reset(token)


class Algorithm(ctypes.Structure):
    """cublasLtMatmulAlgo_t, whose content is the library's business."""

    _fields_ = (("data", c_uint64 * 8),)


class Heuristic(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = (
        ("algorithm", Algorithm),
        ("workspace_bytes", c_size_t),
        ("status", c_int),
        ("waves", c_float),
        ("reserved", c_int * 4),
    )


class Kind(NamedTuple):
    """What a plan depends on.

    Attributes:
        m, n, k: c is (m, n), k the length of the sums.
        transpose_a, transpose_b: whether a is (k, m), b (n, k).
        operand, result: names of dtypes.
        bias: whether one is added to each row.
        tf32: whether float32 operands are rounded to it.
        batch: how many products.
        strides: elements from one a, b, c and bias of a batch to the next; 0 for one that all share.
        alignments: bytes, of the addresses of a, b, c and bias.
    """

    m: int
    n: int
    k: int
    transpose_a: bool
    transpose_b: bool
    operand: str
    result: str
    bias: bool
    tf32: bool
    batch: int
    strides: tuple[int, int, int, int]
    alignments: tuple[int, int, int, int]


class Plan:
    """Everything for a call but the addresses."""

    def __init__(self, library: Any, handle: c_void_p, kind: Kind) -> None:
        self._library, self._handle, self._kind = library, handle, kind
        double = kind.operand == "float64"
        compute = COMPUTE_64F if double else COMPUTE_32F_FAST_TF32 if kind.tf32 else COMPUTE_32F
        self._description = c_void_p()
        self._do("cublasLtMatmulDescCreate", byref(self._description), compute, R_64F if double else R_32F)
        # b and a change places, see above
        self._describe(DESC_TRANSA, c_int(TRANSPOSED if kind.transpose_b else NOT_TRANSPOSED))
        self._describe(DESC_TRANSB, c_int(TRANSPOSED if kind.transpose_a else NOT_TRANSPOSED))
        if kind.bias:
            self._describe(DESC_EPILOGUE, c_int(EPILOGUE_BIAS))
            self._describe(DESC_BIAS_POINTER, c_void_p(kind.alignments[3]))  # the heuristic looks at its last bits
            if kind.batch > 1:
                self._describe(DESC_BIAS_BATCH_STRIDE, c_int64(kind.strides[3]))
        # our (rows, columns) are the library's (columns, rows), one beside the other without a gap
        a_shape = (kind.m, kind.k) if kind.transpose_a else (kind.k, kind.m)
        b_shape = (kind.k, kind.n) if kind.transpose_b else (kind.n, kind.k)
        self._a = self._layout(TYPES[kind.operand], *a_shape, kind.strides[0])
        self._b = self._layout(TYPES[kind.operand], *b_shape, kind.strides[1])
        self._c = self._layout(TYPES[kind.result], kind.n, kind.m, kind.strides[2])
        number = ctypes.c_double if double else c_float
        self._one, self._zero = number(1), number(0)
        self.algorithm = self.heuristics(1)[0].algorithm

    def _layout(self, dtype: int, rows: int, columns: int, stride: int) -> c_void_p:
        layout = c_void_p()
        sizes = c_uint64(rows), c_uint64(columns), c_int64(rows)
        self._do("cublasLtMatrixLayoutCreate", byref(layout), dtype, *sizes)
        if self._kind.batch > 1:
            for attribute, value in (
                (LAYOUT_BATCH_COUNT, c_int(self._kind.batch)),
                (LAYOUT_STRIDED_BATCH_OFFSET, c_int64(stride)),
            ):
                self._set("cublasLtMatrixLayoutSetAttribute", layout, attribute, value)
        return layout

    def _describe(self, attribute: int, value: Any) -> None:
        self._set("cublasLtMatmulDescSetAttribute", self._description, attribute, value)

    def _set(self, function: str, what: c_void_p, attribute: int, value: Any) -> None:
        self._do(function, what, attribute, byref(value), c_size_t(ctypes.sizeof(value)))

    def heuristics(self, most: int) -> list[Heuristic]:
        """Return the algorithms that the library proposes, the one it thinks fastest first."""
        preference = c_void_p()
        self._do("cublasLtMatmulPreferenceCreate", byref(preference))
        try:
            a, b, c, _ = self._kind.alignments
            settings: list[tuple[int, Any]] = [(PREF_MAX_WORKSPACE_BYTES, c_size_t(WORKSPACE_BYTES))]
            settings += [
                (PREF_MIN_ALIGNMENT_A_BYTES + i, ctypes.c_uint32(bytes_)) for i, bytes_ in enumerate((b, a, c, c))
            ]
            for attribute, value in settings:
                self._set("cublasLtMatmulPreferenceSetAttribute", preference, attribute, value)
            found, count = (Heuristic * most)(), c_int()
            layouts = self._b, self._a, self._c, self._c
            search = self._handle, self._description, *layouts, preference, most, found, byref(count)
            self._do("cublasLtMatmulAlgoGetHeuristic", *search)
        finally:
            self._library.cublasLtMatmulPreferenceDestroy(preference)
        if not count.value:
            raise CublasError(f"cuBLASLt has no algorithm for {self._kind}")
        return list(found[: count.value])

    def run(
        self, a: int, b: int, c: int, bias: int, accumulate: bool, workspace: int, stream: int, algorithm: Any = None
    ) -> None:
        """Compute c = a b + bias, or c += a b, for addresses on the device."""
        if bias:
            self._describe(DESC_BIAS_POINTER, c_void_p(bias))
        factors = byref(self._one), byref(self._one if accumulate else self._zero)
        self._do(
            "cublasLtMatmul",
            *(self._handle, self._description, factors[0]),
            *(c_void_p(b), self._b, c_void_p(a), self._a, factors[1]),
            *(c_void_p(c), self._c, c_void_p(c), self._c),
            *(byref(algorithm or self.algorithm), c_void_p(workspace), c_size_t(WORKSPACE_BYTES), c_void_p(stream)),
        )

    def _do(self, function: str, *arguments: Any) -> None:
        status = getattr(self._library, function)(*arguments)
        if status:
            raise CublasError(f"{function}: CUBLAS_STATUS_{STATUS.get(status, status)} for {self._kind}")


_plans: dict[Kind, Plan] = {}
_workspaces: list[Any] = []  # the one of this process, on its GPU


def product(
    a: Array,
    b: Array,
    out: Array,
    *,
    transpose_a: bool,
    transpose_b: bool,
    accumulate: bool = False,
    bias: Array | None = None,
) -> None:
    """Write ``a b + bias`` into ``out``, or add ``a b`` to it. Nothing waits for the GPU.

    Each may be one matrix or a stack of them, (G, rows, columns), of which every one is multiplied; what is no stack
    serves for all. Shapes are trusted (``arguments.check_product``), and no length is 0.

    Args:
        a: (M, K), or (K, M) with ``transpose_a``.
        b: (K, N), or (N, K) with ``transpose_b``; of the dtype of ``a``.
        out: (M, N), of that dtype, or float32 beside operands of 16 bits.
        transpose_a, transpose_b: how a and b are stored.
        accumulate: add to ``out``.
        bias: (N,), or (G, N), of the dtype of ``out``.

    Raises:
        CublasError: the library is not here, or fails.
    """
    k, m = a.shape[-2:] if transpose_a else a.shape[:-3:-1]
    stacks = [array for array in (a, b, out) if array.ndim == 3]
    kind = Kind(
        *(m, out.shape[-1], k, transpose_a, transpose_b, a.dtype.name, out.dtype.name, bias is not None),
        tf32=a.dtype == np.float32 and _tf32.get(),
        batch=len(stacks[0]) if stacks else 1,
        strides=(_stride(a), _stride(b), _stride(out), 0 if bias is None or bias.ndim == 1 else bias.shape[1]),
        alignments=(_alignment(a), _alignment(b), _alignment(out), 0 if bias is None else _alignment(bias)),
    )
    plan = _plans.get(kind)
    if plan is None:
        plan = _plans[kind] = Plan(*_library(), kind)
    cuda = array_module(a).cuda
    if not _workspaces:
        _workspaces.append(cuda.alloc(WORKSPACE_BYTES))
    places = address(a), address(b), address(out), 0 if bias is None else address(bias)
    plan.run(*places, accumulate, _workspaces[0].ptr, cuda.get_current_stream().ptr)


def _stride(array: Array) -> int:
    return array.shape[1] * array.shape[2] if array.ndim == 3 else 0


def _alignment(array: Array) -> int:
    place = address(array)
    return min(place & -place, BEST_ALIGNMENT)


@functools.cache
def _library() -> tuple[Any, c_void_p]:
    """Load cuBLASLt, and return it with a handle."""
    library = _load()
    for name in ("Create", "MatmulDescCreate", "MatrixLayoutCreate", "MatmulAlgoGetHeuristic", "Matmul"):
        getattr(library, f"cublasLt{name}").restype = c_int
    handle = c_void_p()
    status = library.cublasLtCreate(byref(handle))
    if status:
        raise CublasError(f"cublasLtCreate: CUBLAS_STATUS_{STATUS.get(status, status)}")
    return library, handle


def _load() -> Any:
    """Find the library where CuPy finds NVIDIA's: in wheels, in a toolkit, or on the loader's path."""
    try:
        from cuda import pathfinder

        return ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublasLt").abs_path)
    except Exception as error:
        for name in ("libcublasLt.so.13", "libcublasLt.so.12", "cublasLt64_13.dll", "cublasLt64_12.dll"):
            try:
                return ctypes.CDLL(name)
            except OSError:
                continue
        raise CublasError(f"cuBLASLt is not installed ({error}): {HOW_TO_GET_CUPY}") from None
