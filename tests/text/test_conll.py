"""CoNLL files: what is read, what is refused and how the message looks."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.errors import DataError
from minitl.text.conll import Sentence, escaped, parse_conll, read_conll, write_conll

EXOTIC = ["\u200b", "\u00a0", "\u2028", "\u0085", "\x0b", "\x0c", "a\u2029b", "\u3000", "\ufeff", "\x1c", "a\rb"]


def words_of(text: str | bytes, **columns: int | None) -> list[tuple[str, ...]]:
    content = text.encode() if isinstance(text, str) else text
    return [sentence.words for sentence in parse_conll(content, "file", **columns)]  # type: ignore[arg-type]


def test_four_columns_with_documents() -> None:
    text = "-DOCSTART- -X- -X- O\n\nEU NNP I-NP I-ORG\nrejects VBZ I-VP O\n\n-DOCSTART- -X- O O\nParis NNP I-NP I-LOC\n"
    first, second = parse_conll(text.encode(), "eng.train")
    assert first == Sentence(("EU", "rejects"), ("I-ORG", "O"), 0, "eng.train", 3)
    assert second == Sentence(("Paris",), ("I-LOC",), 1, "eng.train", 7)
    assert second.place() == "eng.train:7"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("gap", ["", " ", "\t", " \t "])
@pytest.mark.parametrize("last", ["", "\n", "\n\n\n"])
def test_line_ends_marks_gaps_and_missing_last_line_feed(end: str, mark: str, gap: str, last: str) -> None:
    text = mark + f"\na\tO\nb\tB-X\n{gap}\n{gap}\nc\tO{last}"
    sentences = parse_conll(text.replace("\n", end).encode(), "file")
    assert [(s.words, s.tags) for s in sentences] == [(("a", "b"), ("O", "B-X")), (("c",), ("O",))]
    assert [s.line for s in sentences] == [2, 6]


@pytest.mark.parametrize("word", EXOTIC)
@pytest.mark.parametrize("separator", ["\t", " ", "  "])
def test_only_blanks_and_tabs_separate(word: str, separator: str) -> None:
    assert words_of(f"x{separator}O\n{word}{separator}O\n") == [("x", word)]


def test_a_line_with_a_tab_is_split_at_tabs_only() -> None:
    assert words_of("New York\tB-LOC\n") == [("New York",)]
    assert words_of("a \t O\n") == [("a",)]


def test_document_starts_anywhere_and_is_never_a_word() -> None:
    text = "a O\n-DOCSTART-\nb O\n-DOCSTART- -X- -X- -X- -X-\n\n-DOCSTART-\tO\nc O"
    sentences = parse_conll(text.encode(), "file")
    assert [(s.words, s.document) for s in sentences] == [(("a",), 0), (("b",), 1), (("c",), 2)]


def test_columns_are_chosen() -> None:
    assert parse_conll(b"1 a B-X z\n", "f", word_column=1, tag_column=2)[0].tags == ("B-X",)
    assert parse_conll(b"one\ntwo\n", "f", tag_column=None)[0] == Sentence(("one", "two"), None, 0, "f", 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "file: expected sentences, one word a line, found none"),
        (b"\n \n\t\n-DOCSTART- O\n", "file: expected sentences"),
        (b"a b c O\nd e O\n", "file:2: expected 4 columns as in the lines before, found 3: 'd e O'"),
        (b"a\tO\n\tO\n", "file:2: expected 2 columns as in the lines before, found 1: '\\tO'"),
        (b"a\x1b[2J O O\nb\x1b[2J O\n", "found 2: 'b\\x1b[2J O'"),
        (b"a O\nb PER\n", "file:2: expected a tag such as O, B-PER or I-PER, found 'PER'"),
        (b"a O\nb B-\n", "found 'B-'"),
        (b"a B-\x1b[31m\n", "found 'B-\\x1b[31m'"),
        (b"a O\r\r\n", "found 'O\\r'"),
        (b"a O\n\nb\xe9 O\n", "file:3: expected UTF-8, found byte 0xe9 at byte offset 6"),
        ("a O\n".encode("utf-16"), "file:1: expected UTF-8, found byte 0xff at byte offset 0; it begins like UTF-16"),
        (b"a O\rb O\r", "carriage returns only"),
        (b"one\ntwo\n", "file:1: expected a word and a tag, found 1 column(s): 'one'"),
    ],
)
def test_errors_name_the_line_and_what_was_found(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        parse_conll(content, "file")


def test_missing_columns_and_words() -> None:
    with pytest.raises(DataError, match=r"f:1: expected a tag in column 3, found 2 column\(s\)"):
        parse_conll(b"a O\n", "f", tag_column=3)
    with pytest.raises(DataError, match=r"f:1: expected a word, found an empty column: 'x\\t\\tO'"):
        parse_conll(b"x\t\tO\n", "f", word_column=1)


def test_long_lines_are_shortened_in_messages() -> None:
    assert len(escaped("x" * 10_000)) < 100
    assert escaped("\u202e'") == repr("\u202e'")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            read_conll(path)


# Anything but what separates columns and lines; a word at the end of a line must not end in a carriage return.
cells = (
    st.text(st.characters(exclude_characters="\n\t\0", exclude_categories=["Cs"]), min_size=1)
    .map(lambda text: text.strip(" ").rstrip("\r").strip(" "))
    .filter(lambda text: text and not text.endswith("\r") and text != "-DOCSTART-")
)
cells = st.one_of(cells, st.sampled_from(EXOTIC))


@st.composite
def files(draw: st.DrawFn) -> list[Sentence]:
    sentences, document = [], 0
    for _ in range(draw(st.integers(1, 4))):
        words = draw(st.lists(cells, min_size=1, max_size=4))
        tags = [draw(st.sampled_from(["O", "B-X", "I-Y-Z"])) for _ in words]
        sentences.append(Sentence(tuple(words), tuple(tags), document))
        document += draw(st.integers(0, 1))
    return sentences


@given(files(), st.data())
def test_written_sentences_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, sentences: list[Sentence], data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "written.conll"
    extra = [[data.draw(cells) for _ in sentence.words] for sentence in sentences]
    write_conll(path, sentences, extra)
    back = read_conll(path, tag_column=1)
    assert [(s.words, s.tags, s.document) for s in back] == [(s.words, s.tags, s.document) for s in sentences]
    assert [list(s.words) for s in read_conll(path, word_column=2, tag_column=None)] == extra


@pytest.mark.parametrize("word", ["", "a\tb", "a\nb", "a\0b", " a", "a ", "a\r", "-DOCSTART-"])
def test_what_could_not_be_read_back_is_not_written(tmp_path: Path, word: str) -> None:
    with pytest.raises(ValueError, match="would not be read back"):
        write_conll(tmp_path / "x", [Sentence((word,), ("O",))])


def test_columns_must_match(tmp_path: Path) -> None:
    sentence = Sentence(("a", "b"), ("O", "O"))
    with pytest.raises(ValueError, match="another length"):
        write_conll(tmp_path / "x", [sentence], [["O"]])
    with pytest.raises(ValueError, match="has 2 sentences, expected 1"):
        write_conll(tmp_path / "x", [sentence], [["O", "O"], ["O"]])
    with pytest.raises(ValueError, match="has 1 tags"):
        Sentence(("a", "b"), ("O",))
