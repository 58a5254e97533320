"""Matrix products by cuBLASLt without a GPU: a library that reads our descriptions as NVIDIA's does, and multiplies.

It knows what its manual says: matrices stand by columns, a leading dimension apart; a stack has a stride; the epilogue
adds a bias to each row of its result. So a wrong order of operands, transposition or length gives a wrong product.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minitl.kernels.launch import bfloat16
from minitl.kernels.matmul import cublas

DTYPES = {0: np.dtype(np.float32), 1: np.dtype(np.float64), 2: np.dtype(np.float16), 14: bfloat16()}


class FakeLibrary:
    """cuBLASLt on the host's memory.

    Attributes:
        searches: how often an algorithm was looked for.
        compute: the last description's compute type.
        fails: names of functions that return a status.
    """

    def __init__(self) -> None:
        self.objects: list[dict[Any, Any]] = []
        self.searches, self.compute = 0, 0
        self.fails: dict[str, int] = {}
        self.proposes = True

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cublasLt"):
            raise AttributeError(name)
        return lambda *arguments: self.fails.get(name) or getattr(self, "_" + name.removeprefix("cublasLt"))(*arguments)

    def _new(self, handle: Any, **content: Any) -> int:
        self.objects.append(content)
        handle._obj.value = len(self.objects)
        return 0

    def _object(self, handle: Any) -> dict[Any, Any]:
        return self.objects[handle.value - 1]

    def _MatmulDescCreate(self, handle: Any, compute: int, scale: int) -> int:
        self.compute = compute
        return self._new(handle, scale=scale)

    def _MatrixLayoutCreate(self, handle: Any, dtype: int, rows: Any, columns: Any, leading: Any) -> int:
        return self._new(handle, dtype=DTYPES[dtype], rows=rows.value, columns=columns.value, leading=leading.value)

    def _MatmulPreferenceCreate(self, handle: Any) -> int:
        return self._new(handle)

    def _MatmulPreferenceDestroy(self, handle: Any) -> int:
        return 0

    def _SetAttribute(self, what: Any, attribute: int, value: Any, size: Any) -> int:
        assert size.value == ctypes.sizeof(value._obj)
        self._object(what)[attribute] = value._obj.value
        return 0

    _MatmulDescSetAttribute = _MatrixLayoutSetAttribute = _MatmulPreferenceSetAttribute = _SetAttribute

    def _MatmulAlgoGetHeuristic(self, handle: Any, description: Any, a: Any, b: Any, c: Any, d: Any, *rest: Any) -> int:
        self.searches += 1
        rest[-1]._obj.value = int(self.proposes)
        return 0

    def _matrix(self, address: Any, layout: Any, number: int) -> np.ndarray:
        """What lies there, (rows, columns), with the strides of a matrix by columns; writable."""
        about = self._object(layout)
        dtype, rows, columns, leading = (about[name] for name in ("dtype", "rows", "columns", "leading"))
        offset = number * about.get(6, 0) * dtype.itemsize
        memory = (ctypes.c_char * (leading * columns * dtype.itemsize)).from_address(address.value + offset)
        return np.frombuffer(memory, dtype).reshape(columns, leading).T[:rows]

    def _Matmul(self, handle: Any, description: Any, alpha: Any, a: Any, a_layout: Any, *rest: Any) -> int:
        b, b_layout, beta, c, c_layout, d, d_layout, _algorithm, workspace, size, _stream = rest
        assert (c.value, c_layout.value) == (d.value, d_layout.value)
        assert workspace.value == WORKSPACE
        assert size.value == cublas.WORKSPACE_BYTES
        about = self._object(description)
        for number in range(self._object(d_layout).get(5, 1)):
            left, right = self._matrix(a, a_layout, number), self._matrix(b, b_layout, number)
            left, right = (x.T if about[key] else x for x, key in ((left, 3), (right, 4)))
            out = self._matrix(d, d_layout, number)
            product = alpha._obj.value * (left.astype(np.float64) @ right.astype(np.float64))
            product = product + beta._obj.value * out.astype(np.float64)
            if about.get(7) == 4:
                stride = about.get(10, 0) * out.dtype.itemsize * number
                memory = (ctypes.c_char * (len(out) * out.dtype.itemsize)).from_address(about[8] + stride)
                product += np.frombuffer(memory, out.dtype).astype(np.float64)[:, None]
            out[...] = product.astype(out.dtype)
        return 0


WORKSPACE = 4096


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> FakeLibrary:
    fake = FakeLibrary()
    stream = SimpleNamespace(ptr=0)
    cuda = SimpleNamespace(alloc=lambda size: SimpleNamespace(ptr=WORKSPACE), get_current_stream=lambda: stream)
    monkeypatch.setattr(cublas, "_library", lambda: (fake, ctypes.c_void_p()))
    monkeypatch.setattr(cublas, "array_module", lambda array: SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(cublas, "_plans", {})
    monkeypatch.setattr(cublas, "_workspaces", [])
    return fake


def normal(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32).astype(dtype)


def stored(x: np.ndarray, transposed: bool) -> np.ndarray:
    return np.ascontiguousarray(np.swapaxes(x, -1, -2)) if transposed else x


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("how", ["plain", "bias", "accumulate"])
@pytest.mark.parametrize(
    ("operand", "result"),
    [
        ("float32", "float32"),
        ("float64", "float64"),
        ("bfloat16", "bfloat16"),
        ("bfloat16", "float32"),
        ("float16",) * 2,
    ],
)
@pytest.mark.parametrize("stacks", [(), (3,)], ids=["one", "stack"])
def test_products(
    library: FakeLibrary, transpose_a: bool, transpose_b: bool, how: str, operand: str, result: str, stacks: tuple[int]
) -> None:
    dtypes = {str(dtype): dtype for dtype in DTYPES.values()}
    a, b = normal(*stacks, 5, 7, dtype=dtypes[operand]), normal(*stacks, 7, 4, dtype=dtypes[operand])
    out = normal(*stacks, 5, 4, dtype=dtypes[result])
    bias = normal(*stacks, 4, dtype=dtypes[result]) if how == "bias" else None
    wanted = a.astype(np.float64) @ b.astype(np.float64)
    if how == "accumulate":
        wanted += out.astype(np.float64)
    if bias is not None:
        wanted += bias.astype(np.float64)[..., None, :]
    cublas.product(
        *(stored(a, transpose_a), stored(b, transpose_b), out),
        transpose_a=transpose_a,
        transpose_b=transpose_b,
        accumulate=how == "accumulate",
        bias=bias,
    )
    np.testing.assert_array_equal(out, wanted.astype(out.dtype))


def test_one_operand_serves_a_stack(library: FakeLibrary) -> None:
    a, b, out = normal(3, 5, 7, dtype=np.float64), normal(7, 4, dtype=np.float64), np.empty((3, 5, 4))
    cublas.product(a, b, out, transpose_a=False, transpose_b=False)
    np.testing.assert_array_equal(out, a @ b)


def test_an_algorithm_is_looked_for_once(library: FakeLibrary) -> None:
    a, b, out = normal(5, 7), normal(7, 4), normal(5, 4)
    for _ in range(3):
        cublas.product(a, b, out, transpose_a=False, transpose_b=False)
    assert library.searches == 1
    cublas.product(b, out.T.copy(), normal(7, 5), transpose_a=False, transpose_b=False)
    assert library.searches == 2


@pytest.mark.parametrize(("on", "compute"), [(False, cublas.COMPUTE_32F), (True, cublas.COMPUTE_32F_FAST_TF32)])
def test_tf32_is_chosen_for_a_block(library: FakeLibrary, on: bool, compute: int) -> None:
    a, b, out = normal(5, 7), normal(7, 4), normal(5, 4)
    with cublas.tf32(on):
        cublas.product(a, b, out, transpose_a=False, transpose_b=False)
    assert library.compute == compute
    assert not cublas.tf32_is_on()
    with cublas.tf32(True):  # of float32 only
        cublas.product(*(x.astype(np.float64) for x in (a, b, out)), transpose_a=False, transpose_b=False)
    assert library.compute == cublas.COMPUTE_64F


@pytest.mark.parametrize(
    ("function", "status", "words"),
    [
        ("cublasLtMatmul", 13, "cublasLtMatmul: CUBLAS_STATUS_EXECUTION_FAILED"),
        ("cublasLtMatmulAlgoGetHeuristic", 15, "CUBLAS_STATUS_NOT_SUPPORTED"),
        ("cublasLtMatrixLayoutCreate", 99, "CUBLAS_STATUS_99"),
    ],
)
def test_its_errors_are_told(library: FakeLibrary, function: str, status: int, words: str) -> None:
    library.fails[function] = status
    with pytest.raises(cublas.CublasError, match=words):
        cublas.product(normal(5, 7), normal(7, 4), normal(5, 4), transpose_a=False, transpose_b=False)


def test_no_algorithm(library: FakeLibrary) -> None:
    library.proposes = False
    with pytest.raises(cublas.CublasError, match=r"no algorithm for Kind\(m=5, n=4, k=7"):
        cublas.product(normal(5, 7), normal(7, 4), normal(5, 4), transpose_a=False, transpose_b=False)


def test_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(cublas.CublasError, match=r'cuBLASLt is not installed .*: pip install "minitl\[cuda\]"'):
        cublas._load()
