"""Folders travel both ways: what minitl saves transformers loads with the same results, and the reverse."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import minitl  # noqa: E402
from minitl.models import BertConfig, BertForTokenClassification, BertModel  # noqa: E402

pytestmark = pytest.mark.reference

SIZES = {
    "vocab_size": 37,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 31,
    "max_position_embeddings": 20,
}
LABELS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}
# float32: DESIGN.md's bound for logits; float64: rounding of sums of a few dozen numbers of size 1, with a wide margin.
TOLERANCE = {"float32": 2e-5, "float64": 1e-9}
random = np.random.default_rng(0)
IDS = random.integers(1, 37, (3, 20))
MASK = np.arange(20) < np.array([[20], [13], [1]])
SEGMENTS = random.integers(0, 2, (3, 20))


def ours(model):
    out = model(IDS, MASK.astype(np.int64), SEGMENTS)
    return out.logits.numpy() if hasattr(out, "logits") else out.last_hidden_state.numpy()


def theirs(model):
    with torch.no_grad():
        out = model(torch.tensor(IDS), torch.tensor(MASK), torch.tensor(SEGMENTS))
    return (out.logits if hasattr(out, "logits") else out.last_hidden_state).numpy()


def assert_same(mine, reference, dtype="float32"):
    assert mine.dtype == reference.dtype == dtype
    difference = np.abs(mine - reference)[MASK].max()
    assert difference <= TOLERANCE[dtype], f"largest difference {difference:.3g} over {TOLERANCE[dtype]:g}"


def load_in_transformers(kind, folder):
    model, info = kind.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"], info
    assert not info["unexpected_keys"], info
    assert not info["mismatched_keys"], info
    return model.eval()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_new", "relu"])
def test_transformers_loads_a_saved_tagger(tmp_path, dtype, hidden_act):
    minitl.manual_seed(3)
    config = BertConfig(**SIZES, id2label=LABELS, hidden_act=hidden_act, initializer_range=0.3, layer_norm_eps=1e-6)
    model = BertForTokenClassification(config, dtype=dtype).eval()
    model.save_pretrained(tmp_path)
    reference = load_in_transformers(transformers.AutoModelForTokenClassification, tmp_path)
    assert type(reference).__name__ == "BertForTokenClassification"
    assert_same(ours(model), theirs(reference), dtype)
    assert reference.config.id2label == LABELS
    assert reference.config.label2id == {label: number for number, label in LABELS.items()}
    for name, tensor in reference.state_dict().items():
        np.testing.assert_array_equal(model.state_dict()[name], tensor.numpy(), err_msg=name)


@pytest.mark.parametrize("add_pooler", [True, False])
def test_transformers_loads_a_saved_encoder(tmp_path, add_pooler):
    model = BertModel(BertConfig(**SIZES), add_pooler=add_pooler).eval()
    model.save_pretrained(tmp_path)
    reference, info = transformers.BertModel.from_pretrained(
        tmp_path, add_pooling_layer=add_pooler, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert_same(ours(model), theirs(reference.eval()))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("shard", [None, "20KB"])
def test_a_folder_saved_by_transformers_loads(tmp_path, dtype, shard):
    torch.manual_seed(0)
    reference = transformers.BertForTokenClassification(
        transformers.BertConfig(**SIZES, id2label=LABELS, initializer_range=0.3)
    ).eval()
    reference = reference.to(getattr(torch, dtype))
    reference.save_pretrained(tmp_path, **({} if shard is None else {"max_shard_size": shard}))
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard is not None)
    held = "float64" if dtype == "float64" else "float32"
    model = BertForTokenClassification.from_pretrained(tmp_path, dtype=held)
    assert_same(ours(model), theirs(reference.to(getattr(torch, held))), held)
    assert model.config.id2label == LABELS
    assert model.load_report.new == model.load_report.unexpected == []
    for name, tensor in reference.state_dict().items():
        np.testing.assert_array_equal(model.state_dict()[name], tensor.numpy(), err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shard", [None, "20KB"])
def test_a_model_comes_back_from_transformers_bit_for_bit(tmp_path, dtype, shard):
    minitl.manual_seed(4)
    config = BertConfig(**SIZES, id2label=LABELS, initializer_range=0.3, layer_norm_eps=1e-6, classifier_dropout=0.2)
    model = BertForTokenClassification(config, dtype=dtype).eval()
    model.save_pretrained(tmp_path / "ours")
    reference = load_in_transformers(transformers.AutoModelForTokenClassification, tmp_path / "ours")
    reference.save_pretrained(tmp_path / "theirs", **({} if shard is None else {"max_shard_size": shard}))
    assert (len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1) == (shard is not None)
    again = BertForTokenClassification.from_pretrained(tmp_path / "theirs", dtype=dtype)
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], array, err_msg=name)
    np.testing.assert_array_equal(ours(again), ours(model))
    for name in ("id2label", "hidden_act", "layer_norm_eps", "classifier_dropout", "pad_token_id", *SIZES):
        assert getattr(again.config, name) == getattr(config, name), name


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("BertForPreTraining", "masked-language-model head"),
        ("BertForMaskedLM", "masked-language-model head"),
        ("BertForNextSentencePrediction", "next-sentence head"),
        ("BertForQuestionAnswering", "question-answering head"),
        ("BertForTokenClassification", "classifier"),
        ("BertModel", None),
    ],
)
def test_the_encoder_of_any_saved_bert_loads(tmp_path, kind, part):
    torch.manual_seed(0)
    reference = getattr(transformers, kind)(transformers.BertConfig(**SIZES)).eval()
    reference.save_pretrained(tmp_path)
    model = BertModel.from_pretrained(tmp_path)
    encoder = reference if kind == "BertModel" else reference.bert
    assert_same(ours(model), theirs(encoder))
    assert (model.pooler is None) == (encoder.pooler is None)
    parts = {name for name, _ in model.load_report.ignored}
    assert part is None or part in parts
    assert model.load_report.unexpected == []
    tagger = BertForTokenClassification.from_pretrained(tmp_path, num_labels=3, new_head=True)
    assert_same(tagger.bert(IDS, MASK.astype(np.int64), SEGMENTS).last_hidden_state.numpy(), theirs(encoder))


def test_unknown_configuration_keys_and_values_survive_both_programs(tmp_path):
    reference = transformers.BertForTokenClassification(
        transformers.BertConfig(**SIZES, id2label=LABELS, classifier_dropout=0.25, finetuning_task="ner")
    )
    reference.save_pretrained(tmp_path / "theirs")
    BertForTokenClassification.from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "ours")
    before = json.loads((tmp_path / "theirs" / "config.json").read_text())
    after = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert after.pop("label2id") == {label: number for number, label in LABELS.items()}
    del before["label2id"]  # transformers 5 leaves it out when it was not given
    assert {key: after[key] for key in before} == before
    again = transformers.AutoConfig.from_pretrained(tmp_path / "ours")
    assert again.classifier_dropout == 0.25
    assert again.finetuning_task == "ner"


def test_transformers_loads_the_tokenizer_of_a_saved_model(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Angela", "Merkel", "visited", "Paris", "##s", "."]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    BertForTokenClassification(BertConfig(**SIZES)).save_pretrained(tmp_path)
    model = BertForTokenClassification.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path / "saved")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    encoded = tokenizer("Angela Merkel visited Pariss.")["input_ids"]
    assert encoded == [2, 5, 6, 7, 8, 9, 10, 3]
    assert tokenizer.model_max_length == 20
    assert model.tokenizer.encode_words(["Angela", "Pariss", "."]) == [[5], [8, 9], [10]]
