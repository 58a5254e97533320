"""BertConfig: Hugging Face's names and defaults, every field checked, unknown keys kept, hostile files refused."""

import json
import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.errors import CheckpointError
from minitl.models import BertConfig


def write(path, values):
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def test_defaults_are_those_of_bert_base():
    config = BertConfig()
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (30522, 768, 12)
    assert (config.num_attention_heads, config.intermediate_size, config.hidden_act) == (12, 3072, "gelu")
    assert (config.max_position_embeddings, config.type_vocab_size, config.layer_norm_eps) == (512, 2, 1e-12)
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob, config.classifier_dropout) == (
        0.1,
        0.1,
        None,
    )
    assert (config.initializer_range, config.pad_token_id, config.position_embedding_type) == (0.02, 0, "absolute")
    assert config.num_labels == 2
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1}


def test_labels_determine_their_number_and_their_inverse():
    config = BertConfig(id2label={1: "B-PER", 0: "O"})
    assert (config.num_labels, config.id2label, config.label2id) == (2, {0: "O", 1: "B-PER"}, {"O": 0, "B-PER": 1})
    assert BertConfig(label2id={"O": 0, "X": 1}).id2label == {0: "O", 1: "X"}
    assert BertConfig(num_labels=3).id2label[2] == "LABEL_2"
    assert BertConfig(num_labels=2).with_labels(id2label=["O", "X", "Y"]).num_labels == 3
    assert not BertConfig(num_labels=3).has_named_labels
    assert config.has_named_labels


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"hidden_size": 10, "num_attention_heads": 3}, ValueError, "divisible"),
        ({"hidden_act": "swish"}, ValueError, "gelu_new"),
        ({"hidden_act": ["gelu"]}, ValueError, "hidden_act"),
        ({"position_embedding_type": "relative_key"}, ValueError, "absolute"),
        ({"vocab_size": -1}, ValueError, "vocab_size"),
        ({"vocab_size": True}, TypeError, "vocab_size"),
        ({"vocab_size": 30522.0}, TypeError, "vocab_size"),
        ({"num_hidden_layers": 2**31}, ValueError, "num_hidden_layers"),
        ({"num_hidden_layers": 0}, ValueError, "num_hidden_layers"),
        ({"intermediate_size": None}, TypeError, "intermediate_size"),
        ({"hidden_dropout_prob": 1.0}, ValueError, "hidden_dropout_prob"),
        ({"attention_probs_dropout_prob": -0.1}, ValueError, "attention_probs_dropout_prob"),
        ({"classifier_dropout": math.nan}, ValueError, "classifier_dropout"),
        ({"hidden_dropout_prob": None}, TypeError, "hidden_dropout_prob"),
        ({"initializer_range": math.inf}, ValueError, "initializer_range"),
        ({"layer_norm_eps": 0.0}, ValueError, "layer_norm_eps"),
        ({"layer_norm_eps": "1e-12"}, TypeError, "layer_norm_eps"),
        ({"pad_token_id": 30522}, ValueError, "pad_token_id"),
        ({"pad_token_id": -1}, ValueError, "pad_token_id"),
        ({"num_labels": 0}, ValueError, "num_labels"),
        ({"num_labels": 2**31 - 1}, ValueError, "num_labels"),  # refused before a map of that size is built
        ({"num_labels": 3, "id2label": {0: "O"}}, ValueError, "num_labels is 3"),
        ({"id2label": {0: "O", 1: "O"}}, ValueError, "both 0 and 1"),
        ({"id2label": {0: "O", 2: "X"}}, ValueError, "gap"),
        ({"id2label": {}}, ValueError, "id2label"),
        ({"id2label": {"0": "O"}}, TypeError, "whole number"),
        ({"id2label": {0: 7}}, TypeError, "string"),
        ({"id2label": {0: "O"}, "label2id": {"X": 0}}, ValueError, "inverse"),
        ({"label2id": {"O": 0, "X": 0}}, ValueError, "both"),
        ({"extra": {"is_decoder": True}}, ValueError, "is_decoder"),
        ({"extra": {"add_cross_attention": True}}, ValueError, "add_cross_attention"),
        ({"extra": {"pruned_heads": {"0": [1]}}}, ValueError, "pruned_heads"),
        ({"extra": {"quantization_config": {"bits": 8}}}, ValueError, "quantization_config"),
        ({"extra": {"vocab_size": 3}}, ValueError, "vocab_size"),
    ],
)
def test_a_value_that_cannot_be_honoured_is_refused_by_name(arguments, error, words):
    with pytest.raises(error, match=words):
        BertConfig(**arguments)


def test_harmless_forms_of_refused_fields_are_kept():
    config = BertConfig(extra={"is_decoder": False, "pruned_heads": {}, "use_cache": True}, pad_token_id=None)
    assert config.to_dict()["use_cache"] is True
    assert config.pad_token_id is None


def test_a_field_changed_later_is_checked_again_before_it_is_saved(tmp_path):
    config = BertConfig()
    config.hidden_size = 100
    with pytest.raises(ValueError, match="divisible"):
        config.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
known_keys = st.sampled_from([*BertConfig().to_dict(), "num_labels", "is_decoder", "pruned_heads"])


@given(
    heads=st.integers(1, 16),
    width=st.integers(1, 64),
    labels=st.lists(words.filter(str.isprintable), min_size=1, max_size=9, unique=True),
    rate=st.floats(0, 0.99),
    extra=st.dictionaries(words.map(lambda word: "x_" + word), json_values, max_size=4),
)
def test_saving_and_loading_keeps_everything(tmp_path_factory, heads, width, labels, rate, extra):
    folder = tmp_path_factory.mktemp("config")
    config = BertConfig(
        hidden_size=heads * width,
        num_attention_heads=heads,
        id2label=dict(enumerate(labels)),
        hidden_dropout_prob=rate,
        classifier_dropout=rate,
        extra=extra,
    )
    config.save(folder, architecture="BertForTokenClassification", dtype="float32")
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert written["model_type"] == "bert"
    assert written["architectures"] == ["BertForTokenClassification"]
    assert set(written["id2label"]) == {str(number) for number in range(len(labels))}
    loaded = BertConfig.from_json_file(folder / "config.json")
    assert {key: loaded.extra.pop(key) for key in ("architectures", "dtype")}["dtype"] == "float32"
    assert loaded == config


@given(st.dictionaries(known_keys | words, json_values, max_size=6))
def test_any_object_loads_or_gives_one_checkpoint_error(tmp_path_factory, values):
    path = write(tmp_path_factory.mktemp("any") / "config.json", values)
    with suppress(CheckpointError):
        config = BertConfig.from_json_file(path)
        known = set(config.to_dict()) - set(config.extra)
        assert config.extra == {key: value for key, value in values.items() if key not in known | {"num_labels"}}


def test_the_dtype_that_is_held_replaces_an_old_torch_dtype(tmp_path):
    BertConfig(extra={"torch_dtype": "float16", "transformers_version": "4.8.2"}).save(tmp_path, dtype="float64")
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["dtype"] == "float64"
    assert "torch_dtype" not in written
    assert written["transformers_version"] == "4.8.2"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"vocab_size": 5, "vocab_size": 6}', "duplicate key 'vocab_size'"),
        (b'{"extra_key": {"a": 1, "\\u0061": 2}}', "duplicate key 'a'"),
        (b'{"layer_norm_eps": NaN}', "NaN"),
        (b'{"layer_norm_eps": -Infinity}', "Infinity"),
        (b'{"layer_norm_eps": 1e400}', "too large"),
        (b'{"vocab_size": ' + b"9" * 5000 + b"}", "too large"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": ["\\ud800"]}', "surrogate"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ('{"a": 1}'.encode("utf-16"), "UTF-8"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b"[1]", "object"),
        (b"", "not JSON"),
        (b'{"vocab_size": 5', "cut short"),
        (b'{"model_type": "roberta"}', "roberta"),
        (b'{"id2label": {"0": "O", "01": "X"}}', "class number"),
        (b'{"id2label": {"0": "O", "-1": "X"}}', "class number"),
        (b'{"id2label": ["O"], "num_labels": 1}', "map numbers to names"),
        (b'{"num_labels": 3, "id2label": {"0": "O"}}', "num_labels"),
        (b"{" + b" " * 10_000_001 + b"}", "more than"),
    ],
)
def test_a_hostile_file_gives_one_error_that_names_it(tmp_path, data, words):
    path = tmp_path / "config.json"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=words) as caught:
        BertConfig.from_json_file(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_in_its_place_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        BertConfig.from_json_file(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match="not a regular file"):
        BertConfig.from_json_file(tmp_path)
