"""The weights of a model folder: one ``model.safetensors``, or shards listed in ``model.safetensors.index.json``.

The index is data from outside, and several libraries joined its file names to the folder unchecked; here a name must be
a plain file name that ends in ``.safetensors`` and lead to a regular file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minitl import strict_json
from minitl.errors import CheckpointError
from minitl.models.safetensors_file import SafetensorsFile, TensorInfo, read_header

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
LARGEST_INDEX = 10_000_000  # bytes

# What a folder holds that was saved without safetensors, by what can turn it into one that minitl reads.
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.ckpt", "model.pt", "pytorch_model.pt")
OTHER_FORMATS = ("tf_model.h5", "flax_model.msgpack", "model.onnx", "rust_model.ot")


@dataclass(frozen=True)
class WeightsFolder:
    """Where every tensor of a folder lies; nothing of the payload has been read.

    Attributes:
        folder: the model folder.
        tensors: name -> dtype, shape and byte range, over all files.
        files: name -> the file it is in.
        unlisted: names that a shard holds though the index does not list them there.
        notes: remarks for the load report.
    """

    folder: Path
    tensors: dict[str, TensorInfo]
    files: dict[str, Path]
    unlisted: list[str]
    notes: list[str]

    @contextmanager
    def reader(self, dtype: str) -> Iterator["WeightsReader"]:
        """Open the files for reading tensors as ``dtype``, one file at a time."""
        reader = WeightsReader(self, dtype)
        try:
            yield reader
        finally:
            reader.close()


class WeightsReader:
    """Reads tensors by name, keeping the file of the last one open."""

    def __init__(self, weights: WeightsFolder, dtype: str) -> None:
        self._weights = weights
        self._dtype = dtype
        self._open: SafetensorsFile | None = None

    def read(self, name: str) -> np.ndarray:
        """One tensor as a new array; CheckpointError as :meth:`SafetensorsFile.read`, or when the file has changed."""
        path = self._weights.files[name]
        if self._open is None or self._open.path != path:
            self.close()
            self._open = SafetensorsFile(path).__enter__()
        if self._open.tensors.get(name) != self._weights.tensors[name]:
            raise CheckpointError(f"{path}: the file changed while it was being loaded; load it again")
        return self._open.read(name, self._dtype)

    def close(self) -> None:
        """Close the open file, if any."""
        if self._open is not None:
            self._open.__exit__(None, None, None)
            self._open = None


def open_weights(folder: Path) -> WeightsFolder:
    """Find the weights of a model folder and check the header of every file.

    Args:
        folder: the model folder.

    Returns:
        Where every tensor lies.

    Raises:
        CheckpointError: no safetensors file (pickles are never read), a damaged file, an index whose file names leave
            the folder or whose tensors are not where it says.
    """
    single, index = folder / SINGLE_FILE, folder / INDEX_FILE
    if single.exists() or single.is_symlink():
        tensors = read_header(single)
        notes = [f"{INDEX_FILE} was not read: {SINGLE_FILE} is there too"] if index.exists() else []
        return WeightsFolder(folder, tensors, dict.fromkeys(tensors, single), [], notes)
    if index.exists():
        return _open_shards(folder, index)
    raise CheckpointError(_explain_missing(folder))


def shard_names(index: Path) -> dict[str, str]:
    """Read an index: tensor name -> file name, every file name checked to stay in the folder.

    Raises:
        CheckpointError: not strict JSON, no ``weight_map``, or a value that is not a plain ``*.safetensors`` file name.
    """
    weight_map = strict_json.read_object(index, largest=LARGEST_INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: weight_map must map tensor names to file names")
    for name, value in weight_map.items():
        if not _is_plain_name(value):
            raise CheckpointError(
                f"{index}: weight_map[{name!r}] is {str(value)[:80]!r}; it must be the plain name of a "
                ".safetensors file in the same folder"
            )
    return weight_map


def _is_plain_name(value: Any) -> bool:
    if not isinstance(value, str) or not value.endswith(".safetensors") or value.startswith("."):
        return False
    return not any(character in value for character in "/\\:\0") and value.isprintable() and len(value) <= 255


def _open_shards(folder: Path, index: Path) -> WeightsFolder:
    weight_map = shard_names(index)
    tensors: dict[str, TensorInfo] = {}
    files: dict[str, Path] = {}
    unlisted = []
    absent = []
    for shard in sorted(set(weight_map.values())):
        header = read_header(folder / shard)
        absent += [f"{name} ({shard})" for name, file in weight_map.items() if file == shard and name not in header]
        for name, info in header.items():
            if name in tensors:
                raise CheckpointError(f"{folder}: tensor {name!r} is in two shards, {files[name].name} and {shard}")
            tensors[name] = info
            files[name] = folder / shard
            if weight_map.get(name) != shard:
                unlisted.append(name)
    if absent:
        listed = "\n  ".join(absent)
        raise CheckpointError(f"{index}: lists tensors that their shards do not hold:\n  {listed}")
    return WeightsFolder(folder, tensors, files, unlisted, [])


def _explain_missing(folder: Path) -> str:
    pickles = [name for name in PICKLES if (folder / name).exists()]
    if pickles:
        return (
            f"{folder}: has {pickles[0]} but no {SINGLE_FILE}. A pickle can run code when it is read, so minitl never "
            'reads one. Convert it once, on a machine with transformers, if you trust it: python -c "from transformers '
            "import AutoModel; AutoModel.from_pretrained('FOLDER').save_pretrained('NEW_FOLDER')\""
        )
    others = [name for name in OTHER_FORMATS if (folder / name).exists()]
    if others:
        return f"{folder}: has {others[0]} but no {SINGLE_FILE}; minitl reads safetensors only"
    named = sorted(path.name for path in folder.glob("*.safetensors"))
    if named:
        return f"{folder}: has {named[0]} but neither {SINGLE_FILE} nor {INDEX_FILE}; rename it, or fetch the index"
    return f"{folder}: has no {SINGLE_FILE} (and no {INDEX_FILE}); fetch the weights into this folder"
