"""Safetensors files: read by our own strict reader, written by the library.

The format: 8 bytes, the length n of the header as an unsigned little-endian integer; n bytes of JSON, an object
``name -> {"dtype", "shape", "data_offsets": [start, end]}`` and optionally ``"__metadata__"``, strings to strings;
then the data, in which the byte ranges lie end to end without a hole or an overlap up to the end of the file.

Why our own check: the reference reader lets a duplicate name pass (the last one wins), and some impossible shapes leave
it as NumPy errors. Why our own care in writing: the reference writer for NumPy copies the memory behind an array as
it lies, so a transposed or broadcast array would be written wrong without an error; arrays are made contiguous first.

Source: the format's description in the safetensors repository. We deviate on the strict side: a header may not begin
with white space, may not be longer than ``LARGEST_HEADER``, and an entry may not hold unknown fields.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from minitl import atomic_file, strict_json
from minitl.errors import CheckpointError
from minitl.plain_file import open_plain

LARGEST_HEADER = 2_000_000  # bytes, about 20,000 tensors; BERT-large needs 50,000 bytes (the format allows 10^8)
MOST_DIMENSIONS = 32
LFS_POINTER = b"version https://git-lfs"  # how a file starts that Git LFS has not fetched

DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
}  # fmt: skip
FLOAT_DTYPES = ("F64", "F32", "F16", "BF16")  # what a parameter can be read from
NUMPY_DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F16": "float16", "F32": "float32", "F64": "float64", "C64": "complex64",
}  # fmt: skip
WRITABLE = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool")  # fmt: skip  # noqa: E501


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One entry of a header: dtype by its safetensors name, shape, and the byte range [start, end) in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: str | Path) -> dict[str, TensorInfo]:
    """Read and check the header of a safetensors file; the payload is not touched.

    Args:
        path: the file.

    Returns:
        name -> TensorInfo, in the order of the byte ranges.

    Raises:
        CheckpointError: the file is missing, not a regular file, a Git LFS pointer, cut short, or breaks a rule of the
            format; the message names the file and the rule.
    """
    path = Path(path)
    with open_plain(path) as stream:
        return _read_header(stream, path)


def _read_header(stream: FileIO, path: Path) -> dict[str, TensorInfo]:
    try:
        size = os.fstat(stream.fileno()).st_size
        first = stream.read(len(LFS_POINTER)) or b""
        if first == LFS_POINTER:
            raise CheckpointError(f"{path}: is a Git LFS pointer, not the weights; fetch them with: git lfs pull")
        length = _checked_length(first[:8], size, path)
        stream.seek(8)
        header = stream.read(length) or b""
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    return parse_header(header, data_size=size - 8 - length, where=str(path))


def parse_header(header: bytes, *, data_size: int, where: str) -> dict[str, TensorInfo]:
    """Check the JSON part of a file whose data section has ``data_size`` bytes; see :func:`read_header`."""
    if not header.startswith(b"{"):
        raise CheckpointError(f"{where}: the header does not begin with '{{'; the file is damaged or not safetensors")
    entries = strict_json.parse_object(header, f"{where}: header")
    if "__metadata__" in entries:
        metadata = entries.pop("__metadata__")
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise CheckpointError(f"{where}: __metadata__ must map strings to strings")
    first_byte = 8 + len(header)
    found = {name: _checked_entry(name, entry, first_byte, where) for name, entry in entries.items()}
    ordered = dict(sorted(found.items(), key=lambda item: (item[1].start, item[1].end)))
    position = first_byte
    for name, info in ordered.items():
        if info.start != position:
            what = "overlaps the tensor before it" if info.start < position else "leaves a hole before it"
            raise CheckpointError(
                f"{where}: tensor {name!r} {what} (starts at byte {info.start - first_byte:,} of the data, "
                f"expected {position - first_byte:,})"
            )
        position = info.end
    if position != first_byte + data_size:
        raise CheckpointError(
            f"{where}: the header describes {position - first_byte:,} bytes of data, the file holds {data_size:,}; "
            "the file is cut short or damaged, fetch it again"
        )
    return ordered


def _checked_length(prefix: bytes, size: int, path: Path) -> int:
    if len(prefix) < 8:
        raise CheckpointError(f"{path}: {size} bytes, too short for a safetensors file; fetch it again")
    length = int.from_bytes(prefix, "little")
    if length > size - 8:
        raise CheckpointError(
            f"{path}: the header claims {length:,} bytes, the file has {size - 8:,} after its first 8; "
            "it is cut short or not a safetensors file"
        )
    if length > LARGEST_HEADER:
        raise CheckpointError(f"{path}: the header claims {length:,} bytes, more than the {LARGEST_HEADER:,} allowed")
    return length


def _checked_entry(name: str, entry: Any, first_byte: int, where: str) -> TensorInfo:
    here = f"{where}: tensor {name!r}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{here} must have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise CheckpointError(f"{here} has the unknown dtype {repr(dtype)[:80]}")
    if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape):
        raise CheckpointError(f"{here} has the shape {repr(shape)[:80]}, which is not a list of sizes")
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(type(offset) is int for offset in offsets)):
        raise CheckpointError(f"{here} has the data_offsets {repr(offsets)[:80]}, which are not two whole numbers")
    start, end = offsets
    if not 0 <= start <= end:
        raise CheckpointError(f"{here} has the data_offsets {offsets}, which are not a range")
    bits = DTYPE_BITS[dtype]
    extent = bits
    for side in shape:
        bits *= side
        extent *= max(side, 1)  # a zero side must not hide an impossible one: NumPy refuses [0, 2^63]
    if len(shape) > MOST_DIMENSIONS or extent >= 2**63:
        raise CheckpointError(f"{here} has the impossible shape {repr(shape)[:80]}")
    if bits % 8 or bits // 8 != end - start:
        raise CheckpointError(
            f"{here} is {dtype} of shape {shape}, {bits / 8:,g} bytes, but its data_offsets span {end - start:,}"
        )
    return TensorInfo(dtype, tuple(shape), first_byte + start, first_byte + end)


class SafetensorsFile:
    """One open file: ``tensors`` from its header, and ``read`` for one array at a time; for ``with`` blocks.

    Args:
        path: the file; its header is checked at once.

    Raises:
        CheckpointError: as :func:`read_header`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._stream = open_plain(self.path)
        try:
            self.tensors = _read_header(self._stream, self.path)
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def read(self, name: str, dtype: str = "float32") -> np.ndarray:
        """Read one tensor as floating-point numbers.

        Args:
            name: a key of ``tensors``.
            dtype: "float32" or "float64", what to convert to. Widening is exact; narrowing rounds to nearest.

        Returns:
            A new array of the tensor's shape.

        Raises:
            CheckpointError: the tensor is not of a floating-point dtype, or a finite value does not fit ``dtype``.
        """
        info = self.tensors[name]
        if info.dtype not in FLOAT_DTYPES:
            raise CheckpointError(f"{self.path}: tensor {name!r} is {info.dtype}; only {', '.join(FLOAT_DTYPES)} load")
        stored = self._read_bfloat16(info) if info.dtype == "BF16" else self._read(info, NUMPY_DTYPES[info.dtype])
        with np.errstate(over="ignore", invalid="ignore"):  # overflow is found, and named, just below
            converted: np.ndarray = stored.astype(dtype, copy=False)
        if converted.itemsize < stored.itemsize and not np.array_equal(np.isfinite(stored), np.isfinite(converted)):
            raise CheckpointError(
                f"{self.path}: tensor {name!r} is {info.dtype} and holds values too large for {dtype}; "
                "load it with dtype='float64'"
            )
        return converted

    def read_stored(self, name: str) -> np.ndarray:
        """Read one tensor as it is stored, of any dtype that NumPy has.

        Raises:
            CheckpointError: NumPy has no such dtype.
        """
        info = self.tensors[name]
        if info.dtype not in NUMPY_DTYPES:
            raise CheckpointError(f"{self.path}: tensor {name!r} is {info.dtype}, which NumPy does not have")
        if info.dtype == "BOOL":  # a byte other than 0 and 1 is true, too; NumPy would keep it as it is
            return self._read(info, "uint8") != 0
        return self._read(info, NUMPY_DTYPES[info.dtype])

    def _read_bfloat16(self, info: TensorInfo) -> np.ndarray:
        """NumPy has no bfloat16; one is the upper half of a float32."""
        return (self._read(info, "uint16").astype(np.uint32) << np.uint32(16)).view(np.float32)

    def _read(self, info: TensorInfo, dtype: str) -> np.ndarray:
        """Read the bytes of a tensor into a new array; they are little-endian in the file."""
        array = np.empty(info.shape, np.dtype(dtype).newbyteorder("<"))
        waiting = array.reshape(-1).view(np.uint8).data
        try:
            self._stream.seek(info.start)
            while waiting and (count := self._stream.readinto(waiting)):  # a read has at most two gigabytes
                waiting = waiting[count:]
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be read ({error.strerror or error})") from None
        if waiting:
            raise CheckpointError(f"{self.path}: became shorter while it was being read; load it again")
        return array.astype(dtype, copy=False)


def write(path: str | Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays to a safetensors file in one step: a crash leaves the old file or the new one, never half of one.

    Args:
        path: the file to write or replace; its folder must exist.
        arrays: name -> array of any layout; copied only where it is not contiguous.
        metadata: strings to strings; the default ``{"format": "pt"}`` is what transformers asks for.

    Raises:
        TypeError: an array of a dtype the format lacks. ValueError: a name the format reserves.
        CheckpointError: ``path`` cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    dense = {}
    for name, array in arrays.items():
        if name == "__metadata__":
            raise ValueError("the name '__metadata__' is reserved by the format")
        if array.dtype.name not in WRITABLE:
            raise TypeError(f"array {name!r} has dtype {array.dtype}, which cannot be written")
        dense[name] = np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")
    with atomic_file.replacing(Path(path)) as temporary:
        try:
            save_file(dense, temporary, metadata={"format": "pt"} if metadata is None else dict(metadata))
        except SafetensorError as error:  # a full disk, for example
            raise CheckpointError(f"{path}: cannot be written ({error})") from None
