"""A tiny tagger and tiny data, made in a moment: for tests of everything that stands above the model."""

from pathlib import Path

import minitl
from minitl.models import BertConfig, BertForTokenClassification
from minitl.text import PackedBatch, TextTokenizer, encode_dataset, read_folder

WORDS = (
    "anna", "lives", "in", "oslo", "and", "works", "for", "acme", "today", "with", "ben", "near", "rome", "while",
    "bolt", "sells", "tea",
)  # fmt: skip
TYPES = {"anna": "PER", "ben": "PER", "oslo": "LOC", "rome": "LOC", "acme": "ORG", "bolt": "ORG"}


def tiny_config(**changes: object) -> BertConfig:
    sizes = {
        "vocab_size": len(WORDS) + 5,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 32,
    }
    return BertConfig(**(sizes | changes))  # type: ignore[arg-type]


def write_tiny_model(folder: Path, **changes: object) -> Path:
    """Write a random tagger with its vocabulary; the labels are those of :func:`write_tiny_data`."""
    minitl.manual_seed(1)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n")
    model = BertForTokenClassification(tiny_config(**changes))
    model.tokenizer = TextTokenizer.from_folder(folder)
    model.save_pretrained(folder)
    return folder


def write_tiny_data(folder: Path, sentences: int = 12) -> Path:
    """Write train, dev and test; a word always has the same tag, so that even a tiny model can learn them."""
    folder.mkdir(parents=True, exist_ok=True)
    for shift, part in enumerate(("train", "dev", "test")):
        lines = []
        for number in range(sentences):
            for step in range(3 + number % 5):
                word = WORDS[(7 * shift + 3 * number + 5 * step) % len(WORDS)]
                lines.append(f"{word}\t{'B-' + TYPES[word] if word in TYPES else 'O'}")
            lines.append("")
        (folder / f"{part}.conll").write_text("\n".join(lines) + "\n")
    return folder


def packed_batches(model_folder: Path, data_folder: Path, batch_size: int) -> list[PackedBatch]:
    """The training sentences of a tiny data folder, packed in order."""
    from minitl.text import batches

    data = read_folder(data_folder)
    tokenizer = TextTokenizer.from_folder(model_folder)
    encoded = encode_dataset(data.train, tokenizer, data.labels.ids, 32)
    return [batch.packed for batch in batches(encoded, batch_size, shuffle=False, group_by_length=False)]
