"""Data folders: which files are found, and what is said when they are not."""

from pathlib import Path

import pytest

from minitl.errors import DataError
from minitl.text import read_folder

IOB1 = "-DOCSTART- O\n\nEU I-ORG\nand O\nUN I-ORG\nWHO B-ORG\n"
IOB2 = "EU B-ORG\nand O\nUN B-ORG\nWHO B-ORG\n"


def fill(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ("train", "dev", "test"),
        ("train__txt", "valid__txt", "test__txt"),
        ("eng__train", "eng__testa", "eng__testb"),
        ("train__conll", "testa__bio", "testb"),
        ("eng__train__iob", "dev__tsv", "eng__testb__iob"),
    ],
)
def test_names(tmp_path: Path, names: tuple[str, str, str]) -> None:
    fill(tmp_path, **dict.fromkeys(names, IOB2), notes__md="not data", __train__swp="not data", train__txt__orig="no")
    data = read_folder(tmp_path)
    assert [len(part) for part in (data.train, data.dev, data.test)] == [1, 1, 1]
    assert data.train[0].source == str(tmp_path / names[0].replace("__", "."))


def test_everything_becomes_iob2_and_is_said(tmp_path: Path) -> None:
    fill(tmp_path, train=IOB1, dev=IOB1, test=IOB1 + "\nBonn I-LOC\n")
    data = read_folder(tmp_path)
    assert data.scheme == "IOB1"
    assert data.train[0].tags == ("B-ORG", "O", "B-ORG", "B-ORG")
    assert data.labels.names == ("O", "B-LOC", "B-ORG")
    assert "tags are IOB1, converted to IOB2" in data.notes
    assert "labels of test that never occur in train and so cannot be learnt: B-LOC" in data.notes
    assert "1 sentences in 1 document(s), 4 words, 3 entities (ORG 3)" in data.notes[0]


def test_a_part_without_entities_does_not_hide_the_scheme(tmp_path: Path) -> None:
    fill(tmp_path, train=IOB1, dev="a O\n", test="Bonn I-LOC\n")
    assert read_folder(tmp_path).test[0].tags == ("B-LOC",)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "expected a file train or eng.train with any extension, found no files"),
        ({"dev": IOB2, "a__md": ""}, "expected a file train or eng.train with any extension, found a.md, dev"),
        ({"train": IOB2, "test": IOB2}, "expected a file dev or valid or testa .* move about a tenth"),
        ({"train": IOB2, "dev": IOB2}, "expected a file test or testb"),
        ({"train": IOB2, "train__txt": IOB2}, "expected one file for train .*, found train, train.txt; keep one"),
        ({"train": IOB2, "dev": IOB2, "valid": IOB2, "test": IOB2}, "found dev, valid"),
        ({"train": IOB2, "dev": IOB2, "test": ""}, "test: expected sentences"),
        ({"train": IOB2, "dev": IOB2, "test": "a O\nb I-X\n"}, r"test:2: expected tags of one scheme .*'I-X' may not"),
        ({"train": "a S-X\n", "dev": "a S-X\n", "test": "a O\nb B-X\n"}, r"test:2: .*ends after 'B-X'"),
    ],
)
def test_errors_say_what_was_looked_for_and_found(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_folder(fill(tmp_path, **files))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a folder with train, dev and test"):
        read_folder(tmp_path / "none")
