"""Reading and writing CoNLL files: one word a line with its columns, an empty line after each sentence.

::

    -DOCSTART- -X- -X- O

    EU NNP I-NP I-ORG
    rejects VBZ I-VP O

Only blanks (U+0020) and tabs separate columns and only line feeds separate lines: a word may be a no-break space, a
zero-width space or hold a line separator (U+2028), and all of these do occur in text from the web. Source: the format
of the CoNLL-2003 shared task, Tjong Kim Sang and De Meulder 2003.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from os import PathLike
from pathlib import Path

from minitl import atomic_file
from minitl.errors import DataError
from minitl.text.lines import lines_of, read_lines
from minitl.text.schemes import split_tag

DOCUMENT_START = "-DOCSTART-"
_BLANKS = " \t"


@dataclass(frozen=True)
class Sentence:
    """One sentence: its words, their tags, and where it comes from.

    Attributes:
        words: the words, unchanged.
        tags: one tag for each word, or None where the file has no tag column.
        document: number of the document within its file, from 0.
        source: name of the file.
        line: line of the first word, from 1; word ``i`` stands on line ``line + i``, unless ``lines`` says otherwise.
        text: what the words were taken from, if it is known: they occur in it in order, and between them is white space
            or nothing.
        lines: line of each word, or empty.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...] | None = None
    document: int = 0
    source: str = ""
    line: int = 1
    text: str | None = None
    lines: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.tags is not None and len(self.tags) != len(self.words):
            raise ValueError(f"a sentence of {len(self.words)} words has {len(self.tags)} tags")

    def place(self, word: int = 0) -> str:
        """``file:line`` of a word, for messages."""
        return f"{self.source or 'sentence'}:{self.lines[word] if self.lines else self.line + word}"


def escaped(text: str, limit: int = 80) -> str:
    """``text`` in quotes, cut to ``limit`` characters, with everything that does not print shown as an escape."""
    return repr(text) if len(text) <= limit else repr(text[:limit])[:-1] + "...'"


def shown(value: object) -> str:
    """Any value as Python writes it, for messages: cut, and safe to print, as :func:`escaped` makes it."""
    return escaped(value) if isinstance(value, str) else escaped(repr(value))[1:-1]


def read_conll(path: str | PathLike[str], *, word_column: int = 0, tag_column: int | None = -1) -> list[Sentence]:
    """Read a CoNLL file.

    A line with a tab is split at tabs, any other at blanks. Lines of blanks and tabs end a sentence, as does a line
    whose first column is ``-DOCSTART-``, which also starts a new document. Windows line ends and a byte order mark
    are accepted.

    Args:
        path: the file, UTF-8.
        word_column: column of the words; negative numbers count from the right.
        tag_column: column of the tags, or None to read words only.

    Returns:
        The sentences in order, at least one.

    Raises:
        DataError: naming ``file:line``, if the file cannot be read, is not UTF-8, holds no sentence, changes its number
            of columns, lacks a column, or holds something that is not a tag.
    """
    return _at_least_one(read_lines(path), str(path), word_column, tag_column)


def parse_conll(content: bytes, source: str, *, word_column: int = 0, tag_column: int | None = -1) -> list[Sentence]:
    """Read the bytes of a CoNLL file; ``source`` is its name in messages. See :func:`read_conll`."""
    return _at_least_one(lines_of(BytesIO(content), source), source, word_column, tag_column)


def _at_least_one(lines: Iterable[str], source: str, word_column: int, tag_column: int | None) -> list[Sentence]:
    sentences = list(stream_conll(lines, source, word_column=word_column, tag_column=tag_column))
    if not sentences:
        raise DataError(f"{source}: expected sentences, one word a line, found none")
    return sentences


def stream_conll(
    lines: Iterable[str], source: str, *, word_column: int = 0, tag_column: int | None = -1
) -> Iterator[Sentence]:
    """Yield the sentences of a CoNLL file as its lines, without their ends, come in; see :func:`read_conll`.

    No more than one sentence is held at a time. There may be none.
    """
    words: list[str] = []
    tags: list[str] = []
    expected = 0  # columns, known from the first line with words on
    document, document_begun, first_line = 0, False, 1

    def sentence() -> Sentence:
        return Sentence(tuple(words), None if tag_column is None else tuple(tags), document, source, first_line)

    for number, line in enumerate(lines, 1):
        cells = columns_of(line)
        if not cells or cells[0] == DOCUMENT_START:
            if words:
                yield sentence()
                words, tags, document_begun = [], [], True
            if cells:
                document += document_begun
                document_begun = False
            continue
        expected = expected or _checked_columns(cells, word_column, tag_column, f"{source}:{number}")
        if len(cells) != expected:
            found = f"found {len(cells)}: {escaped(line)}"
            raise DataError(f"{source}:{number}: expected {expected} columns as in the lines before, {found}")
        if not words:
            first_line = number
        words.append(_checked_word(cells[word_column], line, f"{source}:{number}"))
        if tag_column is not None:
            try:
                tags.append(checked_tag(cells[tag_column]))
            except ValueError as error:
                raise DataError(f"{source}:{number}: {error}") from None
    if words:
        yield sentence()


def columns_of(line: str) -> list[str]:
    """The columns of a line, none for an empty one. Never ``str.split()``, which eats exotic spaces."""
    line = line.strip(_BLANKS)
    if not line:
        return []
    if "\t" in line:
        return [cell.strip(_BLANKS) for cell in line.split("\t")]
    return [cell for cell in line.split(" ") if cell]


def _checked_columns(cells: list[str], word_column: int, tag_column: int | None, place: str) -> int:
    """The number of columns, once the wanted ones are known to be among them and to differ."""
    count = len(cells)
    for name, column in (("word", word_column), ("tag", tag_column)):
        if column is not None and not -count <= column < count:
            raise DataError(f"{place}: expected a {name} in column {column}, found {count} column(s)")
    if tag_column is not None and word_column % count == tag_column % count:
        raise DataError(
            f"{place}: expected a word and a tag, found {count} column(s): {escaped(' '.join(cells))}; "
            "a file without tags is read with tag_column=None"
        )
    return count


def _checked_word(word: str, line: str, place: str) -> str:
    if not word:
        raise DataError(f"{place}: expected a word, found an empty column: {escaped(line)}")
    return word


def checked_tag(tag: str) -> str:
    """Return ``tag`` if it is one, and can be printed; else raise a ValueError."""
    try:
        split_tag(tag)
        if not tag.isprintable():  # tags are printed in tables, where an escape sequence would do harm
            raise ValueError
    except ValueError:
        raise ValueError(f"expected a tag such as O, B-PER or I-PER, found {escaped(tag)}") from None
    return tag


def retagged_conll(lines: Sequence[str], sentences: Iterable[Sentence], tag_column: int = -1) -> list[str]:
    """The lines of a file with the tags of ``sentences``, which were read from it; all else stays as it is."""
    changed = list(lines)
    for sentence in sentences:
        for number, tag in enumerate(sentence.tags or (), sentence.line - 1):
            changed[number] = _retagged(changed[number], tag_column, tag)
    return changed


def _retagged(line: str, column: int, tag: str) -> str:
    inner = line.strip(_BLANKS)
    begin = line.index(inner)
    # Every second part is what separates columns, so that column i is part 2 i, from either end.
    parts = re.split(r"(\t)" if "\t" in inner else "( +)", inner)
    index = 2 * column if column >= 0 else len(parts) + 1 + 2 * column
    cell = parts[index].strip(_BLANKS)
    parts[index] = parts[index].replace(cell, tag)
    return line[:begin] + "".join(parts) + line[begin + len(inner) :]


def write_conll(
    path: str | PathLike[str], sentences: Sequence[Sentence], *extra_columns: Iterable[Sequence[str]]
) -> None:
    """Write sentences as a CoNLL file that :func:`read_conll` reads back, in one step; see :func:`conll_text`.

    Raises:
        ValueError: as there. CheckpointError: the file cannot be written.
    """
    atomic_file.write_bytes(Path(path), conll_text(sentences, *extra_columns).encode("utf-8"))


def conll_text(sentences: Sequence[Sentence], *extra_columns: Iterable[Sequence[str]]) -> str:
    """Sentences as the text of a CoNLL file: word, tag if there are tags, extra columns.

    Columns are separated by tabs. ``-DOCSTART-`` lines are written if there is more than one document.

    Args:
        sentences: what to write.
        extra_columns: each one holds, for each sentence, one string for each word (predicted tags, say).

    Raises:
        ValueError: if a column has another length than the words, or if a word or a cell could not be read back (it is
            empty, holds a tab, a line feed or a NUL, ends in a blank or carriage return, or is ``-DOCSTART-``).
    """
    columns = [list(column) for column in extra_columns]
    for column in columns:
        if len(column) != len(sentences):
            raise ValueError(f"an extra column has {len(column)} sentences, expected {len(sentences)}")
    with_documents = len({sentence.document for sentence in sentences}) > 1
    lines: list[str] = []
    previous_document: int | None = None
    for number, sentence in enumerate(sentences):
        if with_documents and sentence.document != previous_document:
            lines += [DOCUMENT_START, ""]
        previous_document = sentence.document
        values = [sentence.words, *([sentence.tags] if sentence.tags is not None else [])]
        values += [tuple(column[number]) for column in columns]
        if any(len(value) != len(sentence.words) for value in values):
            counts = [len(value) for value in values]
            raise ValueError(f"{sentence.place()}: a column has another length than the words: {counts}")
        for number_of_word, row in enumerate(zip(*values, strict=True)):
            try:
                lines.append("\t".join(writable(cell, index, row) for index, cell in enumerate(row)))
            except ValueError as error:
                raise ValueError(f"{sentence.place(number_of_word)}: {error}") from None
        lines.append("")
    text = "\n".join(lines) + ("\n" if lines else "")
    if text.startswith("\ufeff"):  # a reader drops one mark; the word's own must stay
        text = "\ufeff" + text
    return text


def writable(cell: str, index: int, row: Sequence[str]) -> str:
    """Return ``cell``, column ``index`` of a row, if a reader would get it back; else raise a ValueError."""
    splits = any(sign in cell for sign in "\n\t\0") or cell.endswith("\r") or (len(row) == 1 and " " in cell)
    if not cell or splits or cell != cell.strip(_BLANKS) or (index == 0 and cell == DOCUMENT_START):
        raise ValueError(f"{escaped(cell)} cannot be a column of a CoNLL file: it would not be read back as it is")
    return cell
