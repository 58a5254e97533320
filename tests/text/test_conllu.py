"""CoNLL-U: what is read, what is refused, and tags of words that are written as one."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.errors import DataError
from minitl.text import Sentence, read_conllu
from minitl.text.conllu import conllu_block, find_ner_key, sentence_of, stream_blocks

FRENCH = """# newdoc id = one
# text = Elle va du Havre.
1\tElle\til\tPRON\t_\t_\t2\tnsubj\t_\tname=O
2\tva\taller\tVERB\t_\t_\t0\troot\t_\tname=O
3-4\tdu\t_\t_\t_\t_\t_\t_\t_\t_
3\tde\tde\tADP\t_\t_\t5\tcase\t_\tname=O
4\tle\tle\tDET\t_\t_\t5\tdet\t_\tname=B-LOC
5\tHavre\tHavre\tPROPN\t_\t_\t2\tobl\t_\tname=I-LOC|SpaceAfter=No
6\t.\t.\tPUNCT\t_\t_\t2\tpunct\t_\tname=O

# newdoc
# a comment
1\tOui\toui\tINTJ\t_\t_\t0\troot\t_\t_
1.1\tva\taller\tVERB\t_\t_\t_\t_\t0:root\tname=B-PER
"""


def sentences_of(text: str, key: str | None = "name") -> list[Sentence]:
    return [sentence_of(block, "file", key) for block in stream_blocks(text.splitlines(), "file")]


def row(number: str, word: str, misc: str = "_") -> str:
    return "\t".join((number, word, *"_" * 7, misc)) + "\n"


def test_words_are_those_of_the_text() -> None:
    first, second = sentences_of(FRENCH)
    assert first.words == ("Elle", "va", "du", "Havre", ".")
    assert first.tags == ("O", "O", "B-LOC", "I-LOC", "O")
    assert first.text == "Elle va du Havre."
    assert [first.place(word) for word in range(5)] == [f"file:{line}" for line in (3, 4, 5, 8, 9)]
    assert (second.words, second.tags, second.place()) == (("Oui",), ("O",), "file:13")
    assert (first.document, second.document) == (0, 1)


def test_without_a_true_text_blanks_are_those_of_spaceafter() -> None:
    (sentence,) = sentences_of("# text = other\n" + row("1", "a", "SpaceAfter=No") + row("2", "b") + row("3", "c"))
    assert sentence.text == "ab c"


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        (["O", "O"], "O"),
        (["O", "B-X"], "B-X"),
        (["B-X", "I-X"], "B-X"),
        (["I-X", "I-X"], "I-X"),
        (["I-X", "O"], "I-X"),
        (["I-X", "E-X"], "E-X"),
        (["B-X", "E-X"], "S-X"),
        (["O", "S-X"], "S-X"),
        (["B-X", "L-X"], "U-X"),
        (["I-X", "L-X"], "L-X"),
    ],
)
def test_the_tag_of_a_word_from_those_of_its_parts(parts: list[str], whole: str) -> None:
    rows = row("1-2", "du") + "".join(row(str(number), "x", f"ner={tag}") for number, tag in enumerate(parts, 1))
    assert sentences_of(rows, "ner")[0].tags == (whole,)


@pytest.mark.parametrize("parts", [["B-X", "B-X"], ["I-X", "B-X"], ["E-X", "B-X"], ["B-X", "I-Y"]])
def test_a_word_in_two_entities(parts: list[str]) -> None:
    rows = row("1-2", "du") + "".join(row(str(number), "x", f"ner={tag}") for number, tag in enumerate(parts, 1))
    message = f"file:1: expected one entity in a word, found its parts to be {parts[0]}, {parts[1]}"
    with pytest.raises(DataError, match=message):
        sentences_of(rows, "ner")


def test_a_tag_at_the_whole_word_goes_before_those_of_its_parts() -> None:
    rows = row("1-2", "du", "ner=B-X") + row("1", "de") + row("2", "le")
    assert sentences_of(rows, "ner")[0].tags == ("B-X",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\tParis\n", "file:1: expected 10 columns, separated by tabs, found 2: '1\\tParis'"),
        ("1 Paris _ _ _ _ _ _ _ _\n", "file:1: expected 10 columns, separated by tabs, found 1"),
        (row("x", "a"), "file:1: expected the number of a word, such as 3, 3-4 or 3.1, found 'x'"),
        (row("1", " "), "file:1: expected a word, found an empty column"),
        (row("1", "a") + row("3", "b"), "file:2: expected word 2 of the sentence, found 3"),
        (row("2", "a"), "file:1: expected word 1 of the sentence, found 2"),
        (row("1-2", "du") + row("1", "a"), "file:1: expected the words 1 to 2, found 1"),
        (row("1-2", "du") + row("2", "a"), "file:2: expected word 1 of the sentence, found 2"),
        (row("1-999999999", "du") + row("1", "a"), "file:1: expected the words 1 to 999999999, found 1"),
        (row("1-0", "du"), "file:1: expected a range of words, found 1-0"),
        (row("1-2", "du") + row("1-2", "x"), "file:2: expected word 1, found a range within a range"),
        (row("2-3", "du"), "file:1: expected word 1 of the sentence, found 2-3"),
        ("# c\n" + row("1", "a", "name=PER"), "file:2: expected a tag such as O, B-PER or I-PER, found 'PER'"),
    ],
)
def test_errors_name_the_line_and_what_was_found(text: str, message: str) -> None:
    with pytest.raises(DataError, match="^" + re.escape(message)):
        sentences_of(text)


def test_the_key_of_the_tags_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.conllu"
    path.write_text(row("1", "a", "start_char=0|ner=B-X"))
    assert read_conllu(path)[0].tags == ("B-X",)
    assert read_conllu(path, with_tags=False)[0].tags is None
    with pytest.raises(
        DataError, match=re.escape(f"{path}: expected tags in MISC under the key 'BIO', found 'start_char'")
    ):
        read_conllu(path, ner_key="BIO")
    path.write_text(row("1", "a", "start_char=0"))
    with pytest.raises(
        DataError, match="under the key one of name, ner, NER, NE, BIO, found 'start_char'; name the key"
    ):
        read_conllu(path)
    with pytest.raises(DataError, match="found ner, NE; choose one"):
        find_ner_key(list(stream_blocks([row("1", "a", "NE=O|ner=O").rstrip("\n")], "file")), "file")
    path.write_text("# nothing\n\n")
    with pytest.raises(DataError, match="expected sentences in CoNLL-U, found none"):
        read_conllu(path)


words = st.text(st.characters(exclude_characters="\t\n\r\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda word: word.strip() == word
)


@given(st.lists(st.tuples(words, st.sampled_from(["O", "B-X", "I-Y-Z"]), st.sampled_from(["", " "])), min_size=1))
def test_written_sentences_are_read_back(rows: list[tuple[str, str, str]]) -> None:
    text = "".join(word + gap for word, _, gap in rows).rstrip(" ")
    sentence = Sentence(tuple(word for word, _, _ in rows), tuple(tag for _, tag, _ in rows), text=text)
    written = conllu_block(sentence, new_document=True)
    (back,) = [sentence_of(block, "file", "name") for block in stream_blocks(written.split("\n"), "file")]
    assert (back.words, back.tags, back.text) == (sentence.words, sentence.tags, text)


@pytest.mark.parametrize(("word", "tag"), [("a\tb", "O"), ("a\nb", "O"), ("a\0", "O"), (" ", "O"), ("a", "B-X|Y")])
def test_what_could_not_be_read_back_is_not_written(word: str, tag: str) -> None:
    with pytest.raises(ValueError, match=r"sentence:1: .* cannot stand in a CoNLL-U file"):
        conllu_block(Sentence((word,), (tag,)))
