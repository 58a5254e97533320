"""Malformed CoNLL files: every message as a whole, with file and line, what was expected and what was found."""

from pathlib import Path

import pytest

from minitl.errors import DataError
from minitl.text import lines, read_conll, read_folder

GOOD = b"EU\tB-ORG\nrejects\tO\n\n"
BINARY = "; this is a binary file, or UTF-16 or UTF-32: save it as UTF-8"

# Each file's bytes, and the one message that reading it may give; FILE stands for its path.
MALFORMED = {
    "nothing": (b"", "FILE: expected sentences, one word a line, found none"),
    "blank lines only": (b"\n \n\t\n", "FILE: expected sentences, one word a line, found none"),
    "document starts only": (b"-DOCSTART- O\n\n", "FILE: expected sentences, one word a line, found none"),
    "words without tags": (
        b"EU\nrejects\n",
        "FILE:1: expected a word and a tag, found 1 column(s): 'EU'; a file without tags is read with tag_column=None",
    ),
    "a line that lost its tag": (
        GOOD + b"Paris\tB-LOC\nslept\n",
        "FILE:5: expected 2 columns as in the lines before, found 1: 'slept'",
    ),
    "a line with a column more": (
        GOOD + b"Paris\tNNP\tB-LOC\n",
        "FILE:4: expected 2 columns as in the lines before, found 3: 'Paris\\tNNP\\tB-LOC'",
    ),
    "a word with a blank, blanks as separators": (
        b"EU B-ORG\nNew York B-LOC\n",
        "FILE:2: expected 2 columns as in the lines before, found 3: 'New York B-LOC'",
    ),
    "an empty word": (GOOD + b"x\t\tO\n", "FILE:4: expected 2 columns as in the lines before, found 3: 'x\\t\\tO'"),
    "an empty tag": (b"EU\tNNP\t\n", "FILE:1: expected a tag such as O, B-PER or I-PER, found 'NNP'"),
    "a tag without prefix": (GOOD + b"Paris\tLOC\n", "FILE:4: expected a tag such as O, B-PER or I-PER, found 'LOC'"),
    "a tag without type": (GOOD + b"Paris\tB-\n", "FILE:4: expected a tag such as O, B-PER or I-PER, found 'B-'"),
    "a small o": (GOOD + b"Paris\to\n", "FILE:4: expected a tag such as O, B-PER or I-PER, found 'o'"),
    "a zero for O": (GOOD + b"Paris\t0\n", "FILE:4: expected a tag such as O, B-PER or I-PER, found '0'"),
    "an underscore in a tag": (
        GOOD + b"Paris\tB_LOC\n",
        "FILE:4: expected a tag such as O, B-PER or I-PER, found 'B_LOC'",
    ),
    "an unknown prefix": (GOOD + b"Paris\tM-LOC\n", "FILE:4: expected a tag such as O, B-PER or I-PER, found 'M-LOC'"),
    "tag and word exchanged": (b"B-ORG\tEU\n", "FILE:1: expected a tag such as O, B-PER or I-PER, found 'EU'"),
    "commas for tabs": (
        b"EU,B-ORG\n",
        "FILE:1: expected a word and a tag, found 1 column(s): 'EU,B-ORG'; a file without tags is read with "
        "tag_column=None",
    ),
    "an escape sequence in a tag": (
        GOOD + b"Paris\tB-\x1b[31mLOC\n",
        "FILE:4: expected a tag such as O, B-PER or I-PER, found 'B-\\x1b[31mLOC'",
    ),
    "a right-to-left override in a tag": (
        GOOD + "Paris\tB-\u202eLOC\n".encode(),
        "FILE:4: expected a tag such as O, B-PER or I-PER, found 'B-\\u202eLOC'",
    ),
    "two carriage returns": (
        GOOD + b"Paris\tO\r\r\n",
        "FILE:4: expected a tag such as O, B-PER or I-PER, found 'O\\r'",
    ),
    "carriage returns alone": (
        b"EU\tB-ORG\rrejects\tO\r",
        "FILE:1: expected lines that end in line feeds, found carriage returns only",
    ),
    "Latin-1": (
        GOOD + "Z\u00fcrich\tB-LOC\n".encode("latin-1"),
        "FILE:4: expected UTF-8, found byte 0xfc at byte offset 21; save the file as UTF-8",
    ),
    "a stray byte": (
        b"\xef\xbb\xbf" + GOOD + b"\nParis\xff\tB-LOC\n",
        "FILE:5: expected UTF-8, found byte 0xff at byte offset 29; save the file as UTF-8",
    ),
    "a sign cut in half": (
        GOOD + "caf\u00e9".encode()[:-1] + b"\tO\n",
        "FILE:4: expected UTF-8, found byte 0xc3 at byte offset 23; save the file as UTF-8",
    ),
    "half of a surrogate pair": (
        GOOD + "\ud800".encode("utf-8", "surrogatepass") + b"\tO\n",
        "FILE:4: expected UTF-8, found byte 0xed at byte offset 20; save the file as UTF-8",
    ),
    "UTF-16 with its mark": (
        "EU\tB-ORG\n".encode("utf-16"),
        "FILE:1: expected UTF-8, found byte 0xff at byte offset 0; it begins like UTF-16, save it as UTF-8",
    ),
    "UTF-16 the other way round": (
        b"\xfe\xff" + "EU\tB-ORG\n".encode("utf-16-be"),
        "FILE:1: expected UTF-8, found byte 0xfe at byte offset 0; it begins like UTF-16, save it as UTF-8",
    ),
    "UTF-16 without a mark": (
        "EU\tB-ORG\n".encode("utf-16-le"),
        "FILE:1: expected text, found a NUL at byte offset 1" + BINARY,
    ),
    "a NUL in a word": (
        GOOD + b"Pa\0ris\tB-LOC\n",
        "FILE:4: expected text, found a NUL at byte offset 22" + BINARY,
    ),
    "an archive": (
        b"PK\x03\x04\x14\x00\x00\x00\x08\x00",
        "FILE:1: expected text, found a NUL at byte offset 5" + BINARY,
    ),
}


def test_there_are_at_least_25() -> None:
    assert len(MALFORMED) >= 25


@pytest.mark.parametrize("name", MALFORMED)
def test_the_whole_message(name: str, tmp_path: Path) -> None:
    content, message = MALFORMED[name]
    path = tmp_path / "bad.conll"
    path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        read_conll(path)
    assert str(raised.value) == message.replace("FILE", str(path))


@pytest.mark.parametrize("name", MALFORMED)
def test_a_bad_part_of_a_data_folder_is_named(name: str, tmp_path: Path) -> None:
    for part in ("train", "dev", "test"):
        (tmp_path / f"{part}.conll").write_bytes(MALFORMED[name][0] if part == "dev" else GOOD)
    with pytest.raises(DataError, match=r"dev\.conll"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("tags", "place", "fault"),
    [
        ("S-LOC S-LOC O B-PER O E-PER S-LOC", 5, "BIOES comes nearest, but 'O' may not come after 'B-PER'"),
        ("S-LOC B-PER E-PER I-PER S-LOC", 4, "BIOES comes nearest, but 'I-PER' may not come after 'E-PER'"),
        ("S-LOC S-LOC O B-PER", 4, "BIOES comes nearest, but the sentence ends after 'B-PER'"),
        ("U-LOC B-PER I-PER I-LOC L-LOC", 4, "BILOU comes nearest, but 'I-LOC' may not come after 'I-PER'"),
        ("B-LOC O I-LOC B-PER", 3, "IOB2 comes nearest, but 'I-LOC' may not come after 'O'"),
    ],
)
def test_tags_that_fit_no_scheme_are_named_by_their_line(tmp_path: Path, tags: str, place: int, fault: str) -> None:
    (tmp_path / "train.conll").write_bytes(b"Paris\tO\n")
    (tmp_path / "dev.conll").write_text("".join(f"w\t{tag}\n" for tag in tags.split()))
    (tmp_path / "test.conll").write_text("Paris\tO\n")
    with pytest.raises(DataError, match=rf"dev\.conll:{place}: expected tags of one scheme") as raised:
        read_folder(tmp_path)
    assert fault in str(raised.value)


def test_a_mark_at_the_start_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "windows.conll"
    path.write_bytes(b"\xef\xbb\xbfEU\tB-ORG\r\nrejects\tO\r\n\r\n")
    assert [(one.words, one.tags) for one in read_conll(path)] == [(("EU", "rejects"), ("B-ORG", "O"))]


def test_a_huge_line_is_refused_before_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST_LINE", 1000)
    path = tmp_path / "huge.conll"
    path.write_bytes(GOOD + b"x" * 998 + b"\tO\n")
    with pytest.raises(DataError, match=r"huge\.conll:4: expected lines of text, found one of more than 1,000 bytes"):
        read_conll(path)
    path.write_bytes(GOOD + b"x" * 997 + b"\tO\n" + GOOD)
    assert len(read_conll(path)[1].words[0]) == 997
