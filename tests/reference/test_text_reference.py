"""Token ids and labels equal those of transformers' fast tokenizer with ``is_split_into_words=True``."""

import json
import os
import random
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

transformers = pytest.importorskip("transformers")

from minitl.text import LabelSet, Sentence, TextTokenizer, encode_dataset, load_corpus, read_conll  # noqa: E402

pytestmark = pytest.mark.reference

LABELS = LabelSet(("O", "B-PER", "I-PER", "B-LOC", "I-LOC"))
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ODD_WORDS = [
    "", " ", "\u200b", "\u200d", "\ufeff", "\x00", "\x07", "\u00ad", "\ufffd", "\u00a0", "\u2028", "\u0085", "a\u200bb",
    "x" * 100, "x" * 101, "\u6771" * 120, "[SEP]", "[UNK]x", "a[MASK]b", "U.S.", "3-2", "O'Brien", "1,000.5",
    "İstanbul", "STRASSE", "straße", "ﬁne", "e\u0301", "E\u0301cole", "\U0001f600", "\U0001f468\u200d\U0001f469",
    "اليوم", "हिन्दी", "東京タワー", "한국어", "…", "—", "``", "''", "http://t.co/abc",
    "@anna", "#x_y", "\u00b4", "½", "Ⅳ", "\U00020000",
]  # fmt: skip
ALPHABET = (
    string.ascii_letters
    + string.digits
    + string.punctuation
    + "éÉüßøÅçñİıŞąžΣςΩд東京都にカ한글अ\u0301\u200b\U0001f600…—“”\u2019"
)


def random_sentences(count: int, seed: int) -> list[Sentence]:
    """Sentences of random words, one in five of them odd."""
    source = random.Random(seed)
    sentences = []
    for _ in range(count):
        words = [
            source.choice(ODD_WORDS)
            if source.random() < 0.2
            else "".join(source.choices(ALPHABET, k=source.randint(1, 12)))
            for _ in range(source.randint(1, 30))
        ]
        sentences.append(Sentence(tuple(words), tuple(source.choices(LABELS.names, k=len(words)))))
    return sentences


def write_vocabulary(folder: Path, *, cased: bool, end: str = "\n") -> Path:
    """A vocabulary of characters and a few hundred random pieces, with special tokens where BERT has them."""
    source = random.Random(7)
    letters = sorted(set(ALPHABET if cased else ALPHABET.lower()) - set("\u200b\u0301"))
    letters = letters[: len(letters) * 4 // 5]  # some characters stay unknown
    pieces = {"".join(source.choices(letters, k=source.randint(2, 4))) for _ in range(400)}
    tokens = letters + sorted(pieces) + [f"##{piece}" for piece in letters + sorted(pieces)]
    lines = ["[PAD]", "[unused0]", *SPECIAL[1:], *tokens]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("".join(line + end for line in lines), encoding="utf-8", newline="")
    return folder


def encode_as_transformers_users_do(
    tokenizer: Any, sentence: Sentence, label_ids: dict[str, int]
) -> tuple[list[int], list[int]]:
    """The usual recipe: the first piece of each word has its label, everything else -100."""
    assert sentence.tags is not None
    encoding = tokenizer(list(sentence.words), is_split_into_words=True)
    labels = []
    previous = None
    for word in encoding.word_ids():
        labels.append(label_ids[sentence.tags[word]] if word is not None and word != previous else -100)
        previous = word
    return encoding["input_ids"], labels


def assert_equal(ours: TextTokenizer, theirs: Any, sentences: Sequence[Sentence], label_ids: dict[str, int]) -> None:
    encoded = encode_dataset(sentences, ours, label_ids, max_length=100_000)
    for sentence, (window,) in zip(sentences, encoded.windows, strict=True):
        ids, labels = encode_as_transformers_users_do(theirs, sentence, label_ids)
        assert window.input_ids.tolist() == ids, sentence.words
        assert window.labels is not None
        assert window.labels.tolist() == labels, sentence.words


@pytest.mark.parametrize(
    "settings",
    [
        {"do_lower_case": True},
        {"do_lower_case": False},
        {"do_lower_case": True, "strip_accents": False},
        {"do_lower_case": False, "strip_accents": True},
        {"do_lower_case": False, "tokenize_chinese_chars": False},
        {},
        None,
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_vocabulary_file_tokenises_as_in_transformers(
    tmp_path: Path, settings: dict[str, Any] | None, end: str
) -> None:
    folder = write_vocabulary(tmp_path, cased=not (settings or {}).get("do_lower_case", True), end=end)
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    theirs = transformers.BertTokenizerFast.from_pretrained(folder)
    count = 1000 if end == "\n" and settings and len(settings) == 1 else 200
    assert_equal(TextTokenizer.from_folder(folder), theirs, random_sentences(count, seed=1), LABELS.ids)


@pytest.mark.parametrize("cased", [True, False])
def test_a_saved_folder_loads_in_transformers_with_the_same_tokens(tmp_path: Path, cased: bool) -> None:
    folder = write_vocabulary(tmp_path / "source", cased=cased)
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": not cased}))
    ours = TextTokenizer.from_folder(folder)
    ours.save(tmp_path / "saved", model_max_length=64)
    (tmp_path / "saved" / "config.json").write_text('{"model_type": "bert"}')
    sentences = random_sentences(200, seed=2)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert theirs.model_max_length == 64
    assert (theirs.cls_token_id, theirs.pad_token_id, len(theirs)) == (ours.cls_id, ours.pad_id, ours.vocab_size)
    assert_equal(ours, theirs, sentences, LABELS.ids)
    assert_equal(TextTokenizer.from_folder(tmp_path / "saved"), theirs, sentences, LABELS.ids)
    (tmp_path / "saved" / "tokenizer.json").unlink()
    assert_equal(ours, transformers.AutoTokenizer.from_pretrained(tmp_path / "saved"), sentences, LABELS.ids)


def test_a_folder_saved_by_transformers_loads_here(tmp_path: Path) -> None:
    folder = write_vocabulary(tmp_path / "source", cased=True)
    theirs = transformers.BertTokenizerFast.from_pretrained(folder, do_lower_case=False)
    theirs.save_pretrained(tmp_path / "saved")
    assert_equal(TextTokenizer.from_folder(tmp_path / "saved"), theirs, random_sentences(200, seed=3), LABELS.ids)


def real_sentences() -> list[Sentence]:
    """The embedded corpus, and the file that MINITL_CONLL_FILE names."""
    corpus = load_corpus()
    sentences = [*corpus.train, *corpus.dev, *corpus.test]
    named = os.environ.get("MINITL_CONLL_FILE")
    return sentences + (read_conll(named) if named else [])


@pytest.mark.parametrize("cased", [True, False])
def test_real_sentences(tmp_path: Path, cased: bool) -> None:
    """With MINITL_TOKENIZER_FOLDER the tokenizer of a real model is compared as well."""
    folders = [write_vocabulary(tmp_path, cased=cased)]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": not cased}))
    folders += [Path(name) for name in [os.environ.get("MINITL_TOKENIZER_FOLDER")] if name]
    sentences = real_sentences()
    label_ids = LabelSet.from_sentences(sentences).ids
    for folder in folders:
        theirs = transformers.BertTokenizerFast.from_pretrained(folder)
        assert_equal(TextTokenizer.from_folder(folder), theirs, sentences, label_ids)
