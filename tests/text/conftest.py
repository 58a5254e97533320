"""A small tokenizer for the tests of this folder."""

from pathlib import Path

import pytest

from minitl.text import TextTokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WHOLE = ["angela", "mer", "visited", "paris", "the", ".", ",", "-", "'", "!", "東", "京"]
LETTERS = [chr(number) for number in range(ord("a"), ord("z") + 1)] + [str(digit) for digit in range(10)]
VOCABULARY = SPECIAL + WHOLE + LETTERS + ["##kel"] + [f"##{letter}" for letter in LETTERS]


@pytest.fixture(scope="session")
def vocabulary_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with nothing but a vocab.txt."""
    folder = tmp_path_factory.mktemp("vocabulary")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tokenizer(vocabulary_folder: Path) -> TextTokenizer:
    return TextTokenizer.from_folder(vocabulary_folder)
