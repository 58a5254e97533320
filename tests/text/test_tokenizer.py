"""The tokenizer: loading from either file, saving, and what is refused."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minitl.errors import CheckpointError
from minitl.text import TextTokenizer
from minitl.text import tokenizer as tokenizer_module


def test_pieces_of_words(tokenizer: TextTokenizer) -> None:
    ids = tokenizer.encode_words(["Angela", "Merkel", "\u200b", "", "visited", "Pa\u0301ris"])
    names = {number: token for token, number in tokenizer._tokenizer.get_vocab().items()}
    assert [[names[number] for number in word] for word in ids] == [
        ["angela"],
        ["mer", "##kel"],
        [],
        [],
        ["visited"],
        ["paris"],
    ]
    flat, piece_words = tokenizer.encode_sentences([["Merkel", "\u200b", "the"], []])[0]
    assert piece_words.tolist() == [0, 0, 2]
    assert flat.dtype == piece_words.dtype == np.int64


def test_special_ids(tokenizer: TextTokenizer) -> None:
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id) == (0, 1, 2, 3)
    assert tokenizer.vocab_size == 90
    assert tokenizer.encode_words(["[SEP]"]) == [[3]]


def test_words_over_the_limit_become_unknown(tokenizer: TextTokenizer) -> None:
    assert tokenizer.max_word_characters == 100
    assert tokenizer.encode_words(["a" * 101]) == [[1]]
    assert len(tokenizer.encode_words(["a" * 100])[0]) == 100
    assert 1 not in tokenizer.encode_words(["a" * 60 + "-" + "a" * 60])[0]


@pytest.mark.parametrize(
    "at_the_cut", ["z" * 90, "z" * 120, "[SEP]", "[SEP]-[SEP]", "e\u0301" * 70, "東" * 9, "q" * 900]
)
def test_the_beginning_of_a_long_word_has_its_first_pieces(tokenizer: TextTokenizer, at_the_cut: str) -> None:
    """Whatever lies where it is cut; what vanishes before that makes the first pieces come so late."""
    for pieces in (1, 2):
        length = 8 * pieces + 256
        for inside in (1, 2, 3, 4, 5, 6, 33, 63, 64, 65, 80, 99, 100, 101, 119, 120):
            word = "\u200b" * (length - inside) + at_the_cut + "-z" * 3000
            beginning = tokenizer.beginning(word, pieces)
            assert len(beginning) < len(word)
            assert tokenizer.encode_words([beginning])[0][:pieces] == tokenizer.encode_words([word])[0][:pieces]


def test_the_beginning_of_a_long_word_is_short(tokenizer: TextTokenizer) -> None:
    for unit in ("a-", "a", "東", "a.b,", "éĳ", "각", "e\u0301\u0327"):
        assert len(tokenizer.beginning(unit * 50_000, 30)) < 5000
    for word in ("", "a", "a-" * 500):
        assert tokenizer.beginning(word, 30) == word


def test_too_many_letters_are_unknown_in_every_alphabet(tokenizer: TextTokenizer) -> None:
    """So that the beginning of a word may leave most of them out."""
    letters = [one for one in map(chr, range(0, sys.maxunicode + 1, 31)) if re.fullmatch(tokenizer_module._LETTER, one)]
    assert len(letters) > 1000
    assert tokenizer.encode_words([letter * 164 for letter in letters]) == [[tokenizer.unk_id]] * len(letters)


def test_saved_folder_gives_the_same_ids_and_keeps_settings(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    tokenizer.settings["custom"] = [1]
    tokenizer.save(tmp_path / "new", model_max_length=77)
    files = {path.name for path in (tmp_path / "new").iterdir()}
    assert files == {"tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json"}
    settings = json.loads((tmp_path / "new" / "tokenizer_config.json").read_text())
    assert settings["custom"] == [1]
    assert settings["model_max_length"] == 77
    assert settings["do_lower_case"] is True
    words = ["Angela", "\u6771\u4eac", "Me\u0301rkel", "[MASK]", "\u200b"]
    for removed in ("", "tokenizer.json"):
        (tmp_path / "new" / removed).unlink() if removed else None
        assert TextTokenizer.from_folder(tmp_path / "new").encode_words(words) == tokenizer.encode_words(words)


def test_truncation_and_padding_are_switched_off(vocabulary_folder: Path, tmp_path: Path) -> None:
    TextTokenizer.from_folder(vocabulary_folder).save(tmp_path)
    state = json.loads((tmp_path / "tokenizer.json").read_text())
    state["truncation"] = {"max_length": 8, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    state["padding"] = {
        "strategy": {"Fixed": 8},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    loaded = TextTokenizer.from_folder(tmp_path)
    assert len(loaded.encode_sentences([["the"] * 20])[0][0]) == 20
    assert len(loaded.encode_sentences([["the"]])[0][0]) == 1
    assert loaded.notes == ["truncation to 8 tokens switched off", "padding switched off"]


def test_a_cased_vocabulary_keeps_case_and_accents(vocabulary_folder: Path, tmp_path: Path) -> None:
    text = (vocabulary_folder / "vocab.txt").read_text(encoding="utf-8")
    (tmp_path / "vocab.txt").write_text(text + "Angela\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    cased = TextTokenizer.from_folder(tmp_path)
    assert cased.encode_words(["Angela", "angela", "ANGELA", "par\u0301is"]) == [[90], [5], [1], [1]]


def test_a_repeated_line_counts_once_and_moves_nothing(vocabulary_folder: Path, tmp_path: Path) -> None:
    text = (vocabulary_folder / "vocab.txt").read_text(encoding="utf-8")
    (tmp_path / "vocab.txt").write_text(text + "the\nlast\n", encoding="utf-8")
    loaded = TextTokenizer.from_folder(tmp_path)
    assert loaded.notes == ["1 lines of vocab.txt repeat others; the last one counts"]
    assert loaded.encode_words(["the", "last"]) == [[90], [91]]
    loaded.save(tmp_path)
    for name in ("", "tokenizer.json"):
        (tmp_path / name).unlink() if name else None
        assert TextTokenizer.from_folder(tmp_path).encode_words(["the", "last", "visited"]) == [[90], [91], [7]]


def test_settings_win_over_the_normaliser(vocabulary_folder: Path, tmp_path: Path) -> None:
    TextTokenizer.from_folder(vocabulary_folder).save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    loaded = TextTokenizer.from_folder(tmp_path)
    assert loaded.encode_words(["THE"]) == [[1]]
    assert loaded.notes == ["do_lower_case=False of tokenizer_config.json overrides True"]
    (tmp_path / "tokenizer_config.json").unlink()
    assert TextTokenizer.from_folder(tmp_path).encode_words(["THE"]) != [[1]]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "expected tokenizer.json or vocab.txt, found neither"),
        ({"vocab.txt": b"the\n"}, "missing \\[UNK\\], \\[SEP\\], \\[PAD\\], \\[CLS\\]"),
        ({"vocab.txt": b"\xff\n"}, "expected UTF-8"),
        ({"tokenizer.json": b"{"}, "tokenizer.json: is not JSON"),
        ({"tokenizer.json": b"[]"}, "must hold a JSON object {...}, found list"),
        ({"tokenizer.json": b'{"model": {"vocab": {"a": 0}}}'}, "tokenizers library cannot read it"),
        ({"vocab.txt": b"the\n", "tokenizer_config.json": b"nonsense"}, "tokenizer_config.json: is not JSON"),
        (
            {"tokenizer.json": b'{"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": []}'},
            "expected a WordPiece tokenizer as BERT has, found 'BPE'",
        ),
    ],
)
def test_folders_that_cannot_be_loaded(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        TextTokenizer.from_folder(tmp_path)


def test_the_largest_number_that_transformers_writes_is_read(vocabulary_folder: Path, tmp_path: Path) -> None:
    TextTokenizer.from_folder(vocabulary_folder).save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624838656}')
    assert TextTokenizer.from_folder(tmp_path).settings == {"model_max_length": int(1e30)}


def test_words_that_are_no_text(tokenizer: TextTokenizer) -> None:
    with pytest.raises(ValueError, match=r"'\\ud83d' holds half of a surrogate pair"):
        tokenizer.encode_words(["the", "\ud83d"])
    with pytest.raises(TypeError, match="a word must be a string, found 3"):
        tokenizer.encode_words([3])  # type: ignore[list-item]


def test_importing_the_package_does_not_import_tokenizers() -> None:
    code = "import sys, minitl.text, minitl.metrics, minitl.viz; sys.exit('tokenizers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
