"""A model that the example has trained and saved opens in transformers, with the same logits, labels and tokens."""

import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from minitl.models import BertForTokenClassification  # noqa: E402
from minitl.text import encode_dataset, load_corpus  # noqa: E402

FOLDER = os.environ.get("MINITL_SAVED_MODEL", "")
pytestmark = pytest.mark.skipif(not FOLDER, reason="MINITL_SAVED_MODEL names no folder saved by the example")


def test_transformers_gives_the_same_logits_and_labels() -> None:
    ours = BertForTokenClassification.from_pretrained(FOLDER)
    theirs = transformers.AutoModelForTokenClassification.from_pretrained(FOLDER).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
    assert theirs.config.id2label == ours.config.id2label
    assert len(ours.config.id2label) == 9
    sentences = load_corpus().test[:64]
    encoded = tokenizer(
        [list(sentence.words) for sentence in sentences],
        is_split_into_words=True,
        padding=True,
        truncation=False,
        return_tensors="np",
    )
    assert ours.tokenizer is not None
    own = encode_dataset(sentences, ours.tokenizer, {label: n for n, label in ours.config.id2label.items()}, 512)
    for row, mask, (window,) in zip(encoded["input_ids"], encoded["attention_mask"], own.windows, strict=True):
        np.testing.assert_array_equal(row[mask == 1], window.input_ids)
    mask = encoded["attention_mask"]
    logits = ours(encoded["input_ids"], mask).logits.numpy()
    with torch.no_grad():
        reference = theirs(torch.tensor(encoded["input_ids"]), attention_mask=torch.tensor(mask)).logits.numpy()
    kept = mask == 1
    # float32 logits of a trained tagger reach 10; both sides round every one of some twenty products in a row
    np.testing.assert_allclose(logits[kept], reference[kept], rtol=0, atol=2e-5)
    assert (logits.argmax(-1) == reference.argmax(-1))[kept].all()


def test_it_comes_back_from_transformers_bit_for_bit(tmp_path: Path) -> None:
    ours = BertForTokenClassification.from_pretrained(FOLDER)
    transformers.AutoModelForTokenClassification.from_pretrained(FOLDER).save_pretrained(
        tmp_path, max_shard_size="40MB"
    )
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    again = BertForTokenClassification.from_pretrained(tmp_path)
    assert again.config.id2label == ours.config.id2label
    assert again.state_dict().keys() == ours.state_dict().keys()
    for name, array in ours.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], array, err_msg=name)
