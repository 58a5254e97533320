"""ONNX Runtime computes from an exported file what minitl computes; and the file holds what it should."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity import largest, padded_inputs, random_config

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

import minitl  # noqa: E402
from minitl._version import __version__  # noqa: E402
from minitl.errors import CheckpointError  # noqa: E402
from minitl.models import BertConfig, BertForTokenClassification, BertModel, export_onnx  # noqa: E402
from minitl.models.onnx_export import NEWEST_OPSET, OLDEST_OPSET, onnx_bytes  # noqa: E402

pytestmark = pytest.mark.reference

# Of the largest output. Both sides round each of up to two dozen LayerNorm outputs to 6e-8. In 2,400 batches of 600
# random models the most that was measured is 1.4e-6, and 3.4e-6 where a single token has but a few small logits; either
# side is as far from float64. A tanh for an erf is ten times the tolerance, see below.
TOLERANCE = 5e-6
SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40, "vocab_size": 50}


def random_model(kind: type, seed: int, **changes: Any) -> Any:
    """A model in which biases and norms are random, too: at 0 and 1 a mistake would not show."""
    config = BertConfig(**(random_config(seed) | changes))
    minitl.manual_seed(seed)
    model = kind(config).eval()
    random = np.random.default_rng(seed)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.copy_(parameter.numpy() + 0.1 * random.standard_normal(parameter.shape).astype(np.float32))
    return model


def session(file: bytes | Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    source = file if isinstance(file, bytes) else str(file)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def batches(config: BertConfig, seed: int) -> list[dict[str, np.ndarray]]:
    """Every kind of padding in several shapes; a single token; and the longest sentence."""
    random = np.random.default_rng(seed)
    options = {"vocabulary": config.vocab_size, "classes": 2, "segments": config.type_vocab_size}
    lengths = (11, 4, config.max_position_embeddings)
    found = [padded_inputs(random, **options, length=length).arguments(labels=False) for length in lengths]
    return [*found, {name: array[:1, :1] for name, array in found[0].items()}]


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert theirs.dtype == np.float32
    assert theirs.shape == ours.shape
    error = largest(ours - theirs) / largest(ours)
    assert error <= TOLERANCE, f"largest difference {error:.1e} of the largest output"


@pytest.mark.parametrize("seed", range(8))
def test_logits_are_minitls(seed: int) -> None:
    """Eight configurations: every activation twice; sizes, epsilons, numbers of segments."""
    model = random_model(BertForTokenClassification, seed)
    opset = OLDEST_OPSET + seed % (NEWEST_OPSET - OLDEST_OPSET + 1)
    running = session(onnx_bytes(model, opset=opset))
    for inputs in batches(model.config, seed):
        (logits,) = running.run(["logits"], inputs)
        assert_close(model(**inputs).logits.numpy(), logits)
        assert not logits[inputs["attention_mask"] == 0].any(), "0 at masked columns, as in minitl"


@pytest.mark.parametrize("add_pooler", [True, False])
def test_hidden_states_and_pooler_are_minitls(add_pooler: bool) -> None:
    model = random_model(lambda config: BertModel(config, add_pooler=add_pooler), 4)  # type: ignore[arg-type]
    running = session(onnx_bytes(model))
    assert [one.name for one in running.get_outputs()] == ["last_hidden_state", "pooler_output"][: 1 + add_pooler]
    for inputs in batches(model.config, 1):
        expected = model(**inputs)
        state, *pooled = running.run(None, inputs)
        assert_close(expected.last_hidden_state.numpy(), state)
        assert not state[inputs["attention_mask"] == 0].any()
        if add_pooler:
            assert_close(expected.pooler_output.numpy(), *pooled)


def test_the_tolerance_tells_the_activations_apart() -> None:
    inputs = batches(BertConfig(**random_config(4)), 0)[0]
    logits = []
    for name in ("gelu", "gelu_new", "relu"):
        model = random_model(BertForTokenClassification, 4, hidden_act=name)
        logits.append(session(onnx_bytes(model)).run(None, inputs)[0])
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert largest(logits[first] - logits[second]) > 10 * TOLERANCE * largest(logits[0])


def test_what_stands_under_the_mask_is_without_effect() -> None:
    model = random_model(BertForTokenClassification, 2, **SIZES, max_position_embeddings=16)
    running = session(onnx_bytes(model))
    clean = batches(model.config, 0)[0]
    (expected,) = running.run(None, clean)
    masked = clean["attention_mask"] == 0
    poisoned = {name: np.where(masked & (name != "attention_mask"), 10**9, array) for name, array in clean.items()}
    np.testing.assert_array_equal(running.run(None, poisoned)[0], expected)
    wide = {name: np.pad(array, ((0, 0), (0, 20))) for name, array in clean.items()}  # beyond the last position
    assert_close(np.pad(expected, ((0, 0), (0, 20), (0, 0))), running.run(None, wide)[0])
    assert_close(model(**wide).logits.numpy(), running.run(None, wide)[0])


def test_a_row_with_nothing_kept_is_zero_and_leaves_the_others_alone() -> None:
    model = random_model(BertForTokenClassification, 1)
    running = session(onnx_bytes(model))
    inputs = batches(model.config, 3)[0]
    (expected,) = running.run(None, inputs)
    inputs["attention_mask"] = inputs["attention_mask"].copy()
    inputs["attention_mask"][2] = 0
    (logits,) = running.run(None, inputs)
    expected[2] = 0
    np.testing.assert_array_equal(logits, expected)


def test_a_kept_id_out_of_range_is_an_error() -> None:
    model = random_model(BertForTokenClassification, 0)
    inputs = batches(model.config, 0)[0]
    inputs["input_ids"] = inputs["input_ids"].copy()
    inputs["input_ids"][0, 0] = model.config.vocab_size
    with pytest.raises(Exception, match="out of data bounds"):
        session(onnx_bytes(model)).run(None, inputs)


@pytest.mark.parametrize("opset", [OLDEST_OPSET, NEWEST_OPSET])
def test_what_the_file_holds(tmp_path: Path, opset: int) -> None:
    labels = {0: "O", 1: "B-ÉTÉ", 2: "I-ÉTÉ"}
    config = BertConfig(**SIZES, id2label=labels, extra={"task": "ner"})
    model = BertForTokenClassification(config)
    path = tmp_path / "model.onnx"
    path.write_bytes(b"before")
    export_onnx(model, path, opset=opset)
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]
    onnx.checker.check_model(str(path), full_check=True)
    proto = onnx.load(path)
    assert (proto.producer_name, proto.producer_version) == ("minitl", __version__)
    assert [(one.domain, one.version) for one in proto.opset_import] == [("", opset)]
    assert proto.ir_version == {17: 8, 22: 10}[opset], "the oldest that has these operators"

    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(metadata["id2label"]) == {str(number): label for number, label in labels.items()}
    assert BertConfig.from_dict(json.loads(metadata["config"])) == config

    stored = {one.name: onnx.numpy_helper.to_array(one) for one in proto.graph.initializer}
    for name, array in model.state_dict().items():
        assert stored[name].dtype == np.float32
        np.testing.assert_array_equal(stored.pop(name), array, err_msg=name)
    assert max(array.size for array in stored.values()) <= 2, "constants beside the weights"
    read = {name for node in proto.graph.node for name in node.input}
    assert read >= set(model.state_dict()) | set(stored)

    sizes = {
        one.name: [size.dim_param or size.dim_value for size in one.type.tensor_type.shape.dim]
        for one in (*proto.graph.input, *proto.graph.output)
    }
    padded = ["batch", "sequence"]
    assert sizes == {
        "input_ids": padded, "attention_mask": padded, "token_type_ids": padded, "logits": [*padded, 3],
    }  # fmt: skip


def test_the_same_model_gives_the_same_bytes_whatever_its_mode() -> None:
    model = random_model(BertForTokenClassification, 3)
    first = onnx_bytes(model)
    model.train()
    assert onnx_bytes(model) == first
    assert model.training


def test_where_no_file_can_be_is_one_error(tmp_path: Path) -> None:
    model = random_model(BertForTokenClassification, 3)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name, words in {
        "none/model.onnx": "cannot be written", "folder": "not a regular file", "link": "not a regular file",
    }.items():  # fmt: skip
        with pytest.raises(CheckpointError, match=words):
            export_onnx(model, tmp_path / name)
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_the_checker_refuses_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise onnx.checker.ValidationError("no")

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    with pytest.raises(onnx.checker.ValidationError):
        export_onnx(random_model(BertForTokenClassification, 3), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
