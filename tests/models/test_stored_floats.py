"""A tagger whose files hold floats of 16 bits, in one file or in shards, loads with exactly the numbers they hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import minitl
from minitl.models import BertConfig, BertForTokenClassification

SIZES = {
    "vocab_size": 12,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
}
LABELS = {0: "O", 1: "B-LOC", 2: "I-LOC"}
IDS = np.array([[2, 5, 6, 7, 3], [2, 5, 9, 3, 0]])
MASK = np.array([[1, 1, 1, 1, 1], [0, 1, 1, 1, 0]])
DTYPES = {"F32": "<f4", "F64": "<f8", "F16": "<f2"}


def stored(array: np.ndarray, dtype: str) -> tuple[bytes, np.ndarray]:
    """Return the bytes of an array in a file, and the numbers that those bytes are, in float64."""
    if dtype == "BF16":  # the upper half of a float32, here cut off rather than rounded
        upper = (array.astype("<f4").view("<u4") >> 16).astype("<u2")
        return upper.tobytes(), (upper.astype("<u4") << 16).view("<f4").astype(np.float64)
    kept = array.astype(DTYPES[dtype])
    return kept.tobytes(), kept.astype(np.float64)


def write_file(path: Path, arrays: Mapping[str, np.ndarray], dtypes: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Write a safetensors file by hand, and return the numbers that it holds."""
    header, data, held = {}, b"", {}
    for name, array in arrays.items():
        payload, held[name] = stored(array, dtypes[name])
        offsets = [len(data), len(data) + len(payload)]
        header[name] = {"dtype": dtypes[name], "shape": list(array.shape), "data_offsets": offsets}
        data += payload
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return held


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("kinds", [["BF16"], ["F16"], ["F16", "BF16", "F32", "F64"]], ids="+".join)
def test_a_tagger_loads_with_the_numbers_of_its_files(tmp_path: Path, kinds: list[str], shards: int) -> None:
    minitl.manual_seed(3)
    config = BertConfig(**SIZES, id2label=LABELS, initializer_range=0.3)  # type: ignore[arg-type]
    arrays = BertForTokenClassification(config, dtype="float64").state_dict()
    config.save(tmp_path)
    names = sorted(arrays)
    dtypes = {name: kinds[number % len(kinds)] for number, name in enumerate(names)}
    held, weight_map = {}, {}
    for number in range(shards):
        part = names[number::shards]
        file = "model.safetensors" if shards == 1 else f"model-{number + 1:05}-of-{shards:05}.safetensors"
        held |= write_file(tmp_path / file, {name: arrays[name] for name in part}, dtypes)
        weight_map |= dict.fromkeys(part, file)
    if shards > 1:
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    logits = {}
    for dtype in ("float32", "float64"):
        model = BertForTokenClassification.from_pretrained(tmp_path, dtype=dtype)
        assert model.load_report is not None
        assert model.load_report.new == model.load_report.unexpected == []
        assert model.config.id2label == LABELS
        for name, array in model.state_dict().items():
            assert array.dtype == dtype
            np.testing.assert_array_equal(array, held[name].astype(dtype), err_msg=name)
        logits[dtype] = model(IDS, MASK).logits.numpy()
        built = BertForTokenClassification(config, dtype=dtype).eval()
        built.load_state_dict(held)
        np.testing.assert_array_equal(logits[dtype], built(IDS, MASK).logits.numpy())
        model.save_pretrained(tmp_path / dtype)
        again = BertForTokenClassification.from_pretrained(tmp_path / dtype, dtype=dtype).state_dict()
        assert again.keys() == held.keys()
        for name, array in model.state_dict().items():
            np.testing.assert_array_equal(again[name], array, err_msg=name)
    # logits of order 1; the bound of DESIGN for float32 beside float64
    np.testing.assert_allclose(logits["float32"], logits["float64"], rtol=0, atol=2e-5)
