"""from_pretrained and save_pretrained: round trips, every dialect, shards, and one clear error for every damage."""

import json
import os

import numpy as np
import pytest

import minitl
from minitl.errors import CheckpointError
from minitl.models import BertConfig, BertForTokenClassification, BertModel
from minitl.models.names import Dialect, to_checkpoint
from minitl.models.pretrained import require_tokenizer
from minitl.models.safetensors_file import write

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Paris", "is", "nice", "##r", "."]
TINY = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
}
LABELS = {0: "O", 1: "B-LOC", 2: "I-LOC"}
IDS = np.array([[2, 5, 6, 7, 3], [2, 5, 9, 3, 0]])
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])


def encoder(seed=0, dtype="float32", add_pooler=True, **changes):
    minitl.manual_seed(seed)
    return BertModel(BertConfig(**{**TINY, **changes}), dtype=dtype, add_pooler=add_pooler).eval()


def classifier(seed=0, dtype="float32", **changes):
    minitl.manual_seed(seed)
    config = BertConfig(**{"id2label": LABELS, **TINY, **changes})
    return BertForTokenClassification(config, dtype=dtype).eval()


def write_folder(folder, arrays, config=None, **more):
    """A model folder with these tensors, as another program would write it."""
    folder.mkdir(exist_ok=True)
    write(folder / "model.safetensors", arrays)
    values = {"model_type": "bert", **TINY, **(config or {}), **more}
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def write_shards(folder, arrays, count=2):
    """Split the tensors over ``count`` files with an index, and remove the single file."""
    names = sorted(arrays)
    weight_map = {}
    for number in range(count):
        shard = f"model-{number + 1:05}-of-{count:05}.safetensors"
        part = names[number::count]
        write(folder / shard, {name: arrays[name] for name in part})
        weight_map |= dict.fromkeys(part, shard)
    (folder / "model.safetensors").unlink(missing_ok=True)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return weight_map


def assert_same_arrays(left, right):
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


@pytest.fixture
def saved(tmp_path):
    """A folder saved by a trained token classifier with a tokenizer."""
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    from minitl.text.tokenizer import TextTokenizer

    model = classifier()
    model.tokenizer = TextTokenizer.from_folder(tmp_path)
    model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_saving_and_loading_gives_the_same_model(tmp_path, dtype):
    model = classifier(dtype=dtype, extra={"use_cache": True, "transformers_version": "4.8.2"})
    model.save_pretrained(tmp_path / "new" / "folder")
    loaded = BertForTokenClassification.from_pretrained(tmp_path / "new" / "folder", dtype=dtype)
    assert_same_arrays(loaded.state_dict(), model.state_dict())
    assert not loaded.training
    assert loaded.config.id2label == LABELS
    assert loaded.config.extra["use_cache"] is True
    assert loaded.config.extra["transformers_version"] == "4.8.2"
    assert loaded.config.extra["architectures"] == ["BertForTokenClassification"]
    assert loaded.config.extra["dtype"] == dtype
    np.testing.assert_array_equal(loaded(IDS, MASK).logits.numpy(), model(IDS, MASK).logits.numpy())
    assert loaded.load_report.new == []
    assert loaded.tokenizer is None
    with pytest.raises(CheckpointError, match=r"tokenizer\.json nor vocab\.txt"):
        require_tokenizer(loaded)


def test_the_tokenizer_travels_with_the_model(saved):
    model = BertForTokenClassification.from_pretrained(saved)
    tokenizer = require_tokenizer(model)
    assert tokenizer.encode_words(["Paris", "nicer"]) == [[5], [7, 8]]
    assert {"config.json", "model.safetensors", "tokenizer.json", "vocab.txt"} <= {
        path.name for path in saved.iterdir()
    }
    assert not [path for path in saved.iterdir() if path.name.startswith(".")]
    model.save_pretrained(saved)  # over itself
    again = BertForTokenClassification.from_pretrained(saved)
    assert_same_arrays(again.state_dict(), model.state_dict())


def test_a_tokenizer_of_another_model_is_said_and_refused_when_used(saved):
    config = json.loads((saved / "config.json").read_text())
    arrays = {name: np.array(array) for name, array in classifier().state_dict().items()}
    arrays["bert.embeddings.word_embeddings.weight"] = arrays["bert.embeddings.word_embeddings.weight"][:7]
    write_folder(saved, arrays, {**config, "vocab_size": 7})
    model = BertForTokenClassification.from_pretrained(saved)
    assert "another model" in str(model.load_report)
    with pytest.raises(CheckpointError, match="another model"):
        require_tokenizer(model)


@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize("gamma_beta", [False, True])
def test_an_encoder_in_any_dialect_loads_into_both_models(tmp_path, prefix, gamma_beta):
    source = encoder()
    dialect = Dialect(prefix, gamma_beta)
    arrays = {to_checkpoint(name, dialect): array for name, array in source.state_dict().items()}
    buffer = {("bert." if prefix else "") + "embeddings.position_ids": np.arange(16)[None]}
    folder = write_folder(tmp_path / "m", {**arrays, **buffer})
    loaded = BertModel.from_pretrained(folder)
    assert_same_arrays(loaded.state_dict(), source.state_dict())
    expected = source(IDS, MASK)
    np.testing.assert_array_equal(loaded(IDS, MASK).pooler_output.numpy(), expected.pooler_output.numpy())
    headed = BertForTokenClassification.from_pretrained(folder, num_labels=5)
    np.testing.assert_array_equal(headed.bert(IDS, MASK).last_hidden_state.numpy(), expected.last_hidden_state.numpy())
    assert headed.config.num_labels == 5
    assert headed.load_report.new == ["classifier.weight", "classifier.bias"]
    assert "NEW, random: classifier (2 tensors): train before use" in str(headed.load_report)
    for report in (loaded.load_report, headed.load_report):
        assert sorted(report.file_names()) == sorted([*arrays, *buffer])


def test_a_checkpoint_named_as_bert_base_cased_was_published(tmp_path):
    """Its names: bert. prefix, gamma/beta, both pre-training heads (the decoder tied, so absent), a pooler."""
    width, vocabulary = TINY["hidden_size"], TINY["vocab_size"]
    arrays = {to_checkpoint(name, Dialect(True, True)): array for name, array in encoder().state_dict().items()}
    shapes = {
        "cls.predictions.bias": (vocabulary,),
        "cls.predictions.transform.dense.weight": (width, width),
        "cls.predictions.transform.dense.bias": (width,),
        "cls.predictions.transform.LayerNorm.gamma": (width,),
        "cls.predictions.transform.LayerNorm.beta": (width,),
        "cls.seq_relationship.weight": (2, width),
        "cls.seq_relationship.bias": (2,),
    }
    heads = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    folder = write_folder(tmp_path / "m", {**arrays, **heads}, architectures=["BertForMaskedLM"])
    report = BertForTokenClassification.from_pretrained(folder, num_labels=9).load_report
    assert str(report) == (
        f"from folder {folder}\n"
        "loaded 37 tensors (10 renamed gamma/beta)\n"
        "not used: pooler (2 tensors: bert.pooler.dense.bias, bert.pooler.dense.weight); this model has none\n"
        "not used: masked-language-model head (5 tensors: cls.predictions.bias, "
        "cls.predictions.transform.LayerNorm.beta, cls.predictions.transform.LayerNorm.gamma, ...); "
        "only pre-training needs it\n"
        "not used: next-sentence head (2 tensors: cls.seq_relationship.bias, cls.seq_relationship.weight); "
        "only pre-training needs it\n"
        "NEW, random: classifier (2 tensors): train before use\n"
        "note: the folder has no tokenizer (tokenizer.json or vocab.txt): text cannot be read with it"
    )
    assert sorted(report.file_names()) == sorted([*arrays, *heads])
    untied = {**arrays, **heads, "cls.predictions.decoder.weight": np.zeros((vocabulary, width), np.float32)}
    report = BertModel.from_pretrained(write_folder(tmp_path / "m", untied)).load_report
    assert "not used: masked-language-model head (6 tensors" in str(report)
    assert "loaded 39 tensors (prefix bert. removed, 10 renamed gamma/beta)" in str(report)


def test_without_a_pooler_in_the_files_there_is_no_pooler_output(tmp_path):
    folder = write_folder(tmp_path / "m", encoder(add_pooler=False).state_dict())
    model = BertModel.from_pretrained(folder)
    assert model(IDS).pooler_output is None
    assert "pooler_output will be None" in str(model.load_report)
    model.save_pretrained(tmp_path / "again")
    assert_same_arrays(BertModel.from_pretrained(tmp_path / "again").state_dict(), model.state_dict())


@pytest.mark.parametrize("stored", ["float64", "float16"])
def test_other_float_dtypes_are_converted(tmp_path, stored):
    arrays = {name: array.astype(stored) for name, array in encoder(dtype="float64").state_dict().items()}
    folder = write_folder(tmp_path / "m", arrays)
    for dtype in ("float32", "float64"):
        loaded = BertModel.from_pretrained(folder, dtype=dtype).state_dict()
        assert_same_arrays(loaded, {name: array.astype(dtype) for name, array in arrays.items()})
    with pytest.raises(ValueError, match="dtype"):
        BertModel.from_pretrained(folder, dtype="float16")


def test_not_a_number_in_the_files_is_said(tmp_path):
    arrays = {name: np.array(array) for name, array in encoder().state_dict().items()}
    arrays["pooler.dense.bias"][3] = np.nan
    report = BertModel.from_pretrained(write_folder(tmp_path / "m", arrays)).load_report
    assert "WARNING: pooler.dense.bias holds NaN" in str(report)


def test_labels_can_be_asked_for_only_where_they_fit_the_trained_head(tmp_path):
    model = classifier()
    model.save_pretrained(tmp_path)
    load = BertForTokenClassification.from_pretrained
    for fitting in ({}, {"num_labels": 3}, {"id2label": LABELS}, {"id2label": ["O", "B-LOC", "I-LOC"]}):
        loaded = load(tmp_path, **fitting)
        assert_same_arrays(loaded.state_dict(), model.state_dict())
        assert loaded.config.id2label == LABELS
    for other in ({"num_labels": 4}, {"id2label": ["O", "I-LOC", "B-LOC"]}, {"id2label": ["O", "X"]}):
        with pytest.raises(CheckpointError, match="new_head=True"):
            load(tmp_path, **other)
        fresh = load(tmp_path, **other, new_head=True)
        assert fresh.load_report.new == ["classifier.weight", "classifier.bias"]
        assert fresh.classifier.weight.shape == (fresh.config.num_labels, 8)
        assert "trained classifier (2 tensors" in str(fresh.load_report)
    with pytest.raises(ValueError, match="num_labels is 2"):
        load(tmp_path, num_labels=2, id2label=LABELS)
    with pytest.raises(ValueError, match="no classifier"):
        BertModel.from_pretrained(tmp_path, num_labels=3)
    assert "not used: classifier" in str(BertModel.from_pretrained(tmp_path).load_report)


def test_a_head_without_label_names_may_be_given_names(tmp_path):
    classifier(id2label=None, num_labels=3).save_pretrained(tmp_path)
    assert BertForTokenClassification.from_pretrained(tmp_path, id2label=LABELS).config.id2label == LABELS
    kept = BertForTokenClassification.from_pretrained(tmp_path, num_labels=3)
    assert kept.load_report.new == []


def test_a_classifier_of_another_task_is_not_taken_for_a_tagger(tmp_path):
    arrays = classifier().state_dict()
    folder = write_folder(tmp_path / "m", arrays, id2label=LABELS, architectures=["BertForSequenceClassification"])
    with pytest.raises(CheckpointError, match=r"BertForSequenceClassification.*new_head=True"):
        BertForTokenClassification.from_pretrained(folder)
    assert BertForTokenClassification.from_pretrained(folder, new_head=True).load_report.new


def test_shards_load_like_one_file(tmp_path):
    model = classifier()
    model.save_pretrained(tmp_path)
    write_shards(tmp_path, model.state_dict(), count=3)
    loaded = BertForTokenClassification.from_pretrained(tmp_path)
    assert_same_arrays(loaded.state_dict(), model.state_dict())
    write(tmp_path / "model.safetensors", model.state_dict())
    report = BertForTokenClassification.from_pretrained(tmp_path).load_report
    assert "index.json was not read" in str(report)


def test_tensors_that_the_index_does_not_list_are_reported(tmp_path):
    model = classifier()
    model.save_pretrained(tmp_path)
    arrays = dict(model.state_dict())
    weight_map = write_shards(tmp_path, {**arrays, "extra": np.zeros(2)}, count=2)
    del weight_map["extra"]
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    report = BertForTokenClassification.from_pretrained(tmp_path).load_report
    assert "does not list (1 tensor: extra)" in str(report)
    assert sorted(report.file_names()) == sorted([*arrays, "extra"])


ESCAPES = ("../x.safetensors", "/etc/passwd", "/tmp/x.safetensors", "a/b.safetensors", "..", "", ".safetensors")
NOT_NAMES = ("a\\b.safetensors", "C:x.safetensors", "a\0.safetensors", "a\n.safetensors", "model.bin", None, 3, ["x"])


@pytest.mark.parametrize("value", [*ESCAPES, *NOT_NAMES])
def test_a_shard_index_cannot_leave_the_folder(tmp_path, monkeypatch, value):
    model = classifier()
    model.save_pretrained(tmp_path)
    weight_map = write_shards(tmp_path, model.state_dict())
    weight_map["bert.embeddings.LayerNorm.bias"] = value
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    import minitl.models.weights_folder as weights_folder

    monkeypatch.setattr(weights_folder, "read_header", lambda path: pytest.fail(f"opened {path}"))
    with pytest.raises(CheckpointError, match="plain name"):
        BertForTokenClassification.from_pretrained(tmp_path)


def test_damaged_shards_give_one_error_each(tmp_path):
    model = classifier()
    model.save_pretrained(tmp_path)
    arrays = model.state_dict()
    weight_map = write_shards(tmp_path, arrays)
    index = tmp_path / "model.safetensors.index.json"
    load = BertForTokenClassification.from_pretrained

    def expect(words, content):
        index.write_text(json.dumps(content))
        with pytest.raises(CheckpointError, match=words):
            load(tmp_path)

    expect("weight_map", {})
    expect("weight_map", {"weight_map": {}})
    expect("weight_map", {"weight_map": [1]})
    expect("do not hold", {"weight_map": {**weight_map, "ghost": "model-00001-of-00002.safetensors"}})
    expect("absent.safetensors: does not exist", {"weight_map": {**weight_map, "ghost": "absent.safetensors"}})
    write(tmp_path / "model-00003.safetensors", {"classifier.bias": np.zeros(3), "x": np.zeros(1)})
    expect("two shards", {"weight_map": {**weight_map, "x": "model-00003.safetensors"}})
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.safetensors")
        expect("not a regular file", {"weight_map": {**weight_map, "x": "pipe.safetensors"}})
    index.write_text('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}')
    with pytest.raises(CheckpointError, match="duplicate key"):
        load(tmp_path)


def test_links_to_regular_files_are_followed(tmp_path):
    """The Hugging Face cache keeps its files as links into another folder."""
    classifier().save_pretrained(tmp_path / "blobs")
    (tmp_path / "snapshot").mkdir()
    for path in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshot" / path.name).symlink_to(path)
    assert BertForTokenClassification.from_pretrained(tmp_path / "snapshot").load_report.new == []


def damage_truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def damage_rename(folder):
    (folder / "model.safetensors").rename(folder / "weights.safetensors")


def damage_pickle(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def damage_remove(folder):
    (folder / "model.safetensors").unlink()


def damage_other_format(folder):
    (folder / "model.safetensors").rename(folder / "tf_model.h5")


def damage_pointer(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def damage_config_pointer(folder):
    (folder / "config.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def change_config(folder, **changes):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **changes}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_truncate, "cut short"),
        (damage_rename, r"weights\.safetensors.*rename it"),
        (damage_pickle, "never reads one"),
        (damage_remove, r"has no model\.safetensors"),
        (damage_other_format, "safetensors only"),
        (damage_pointer, "git lfs pull"),
        (damage_config_pointer, r"config\.json.*not JSON"),
        (lambda folder: (folder / "config.json").unlink(), r"no config\.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer.json"),
        (lambda folder: change_config(folder, hidden_size=16), "file .*, model .*16"),
        (lambda folder: change_config(folder, num_hidden_layers=3), "num_hidden_layers 3.*hold 2"),
        (lambda folder: change_config(folder, num_hidden_layers=2**31 - 1), "num_hidden_layers 2,147,483,647"),
        (lambda folder: change_config(folder, vocab_size=2**31 - 1), "word_embeddings"),
        (lambda folder: change_config(folder, intermediate_size=2**30), "intermediate"),
        (lambda folder: change_config(folder, model_type="roberta"), "roberta"),
        (lambda folder: change_config(folder, hidden_act="mish"), "mish"),
    ],
)
def test_a_damaged_folder_gives_one_clear_error_before_anything_is_built(saved, monkeypatch, damage, words):
    damage(saved)
    monkeypatch.setattr(BertForTokenClassification, "__init__", lambda *a, **k: pytest.fail("the model was built"))
    with pytest.raises(CheckpointError, match=words) as caught:
        BertForTokenClassification.from_pretrained(saved)
    assert str(saved) in str(caught.value)


def test_missing_and_misshaped_tensors_are_listed_together(tmp_path):
    arrays = {name: np.array(array) for name, array in classifier().state_dict().items()}
    del arrays["bert.encoder.layer.0.output.dense.bias"], arrays["bert.encoder.layer.1.output.dense.bias"]
    arrays["classifier.weight"] = arrays["classifier.weight"][:2]
    arrays["bert.embeddings.LayerNorm.bias"] = np.zeros(8, np.int8)
    arrays["bert.encoder.adapter"] = np.zeros(8, np.float32)
    folder = write_folder(tmp_path / "m", arrays, id2label=LABELS)
    with pytest.raises(CheckpointError) as caught:
        BertForTokenClassification.from_pretrained(folder)
    message = str(caught.value)
    assert "bert.encoder.layer.{0-1}.output.dense.bias" in message
    assert "classifier.weight: file (2, 8), model (3, 8)" in message
    assert "bert.embeddings.LayerNorm.bias: is I8" in message
    assert "bert.encoder.adapter" in message


def test_extra_names_are_reported_and_not_fatal(tmp_path):
    folder = write_folder(tmp_path / "m", {**encoder().state_dict(), "mystery.weight": np.zeros(3, np.float32)})
    report = BertModel.from_pretrained(folder).load_report
    assert "UNKNOWN, not used (1 tensor): mystery.weight" in str(report)


def test_saving_where_a_folder_cannot_be_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="not a folder"):
        encoder().save_pretrained(tmp_path / "file")


def test_the_random_head_depends_on_the_seed_only(tmp_path):
    folder = write_folder(tmp_path / "m", encoder().state_dict())
    heads = []
    for seed in (1, 1, 2):
        minitl.manual_seed(seed)
        heads.append(BertForTokenClassification.from_pretrained(folder, num_labels=4).classifier.weight.numpy())
    np.testing.assert_array_equal(heads[0], heads[1])
    assert not np.array_equal(heads[0], heads[2])
