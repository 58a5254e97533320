"""What ``minitl predict`` reads: lines of files, folders or a pipe, one after the other, never all at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from minitl.errors import DataError
from minitl.text.conll import stream_conll
from minitl.text.conllu import sentence_of, stream_blocks
from minitl.text.formats import ENDINGS
from minitl.text.jsonl import object_of
from minitl.text.lines import lines_of


@dataclass(frozen=True)
class Record:
    """One text, or one sentence of words.

    Attributes:
        source: ``file:line``.
        text: as it was given, or None if it is words.
        words: as they were given, or None if it is text.
        extra: what else a JSON line held, kept for the output.
        document: number of the document within its file, for CoNLL files; over all files, once they are put together.
    """

    source: str
    text: str | None = None
    words: tuple[str, ...] | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    document: int = 0


def files_of(names: Sequence[str]) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield name and open stream of each input; ``-`` is standard input, a folder stands for its files in order.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """
    for name in names or ("-",):
        if name == "-":
            yield "standard input", sys.stdin.buffer
            continue
        path = Path(name)
        paths = sorted(item for item in path.iterdir() if item.is_file()) if path.is_dir() else [path]
        if not paths:
            raise DataError(f"{path}: expected a folder with files, found none")
        for one in paths:
            try:
                with one.open("rb") as stream:
                    yield str(one), stream
            except OSError as error:
                raise DataError(f"{one}: cannot be read ({error.strerror})") from None


def read_text(lines: Iterable[str], source: str) -> Iterator[Record]:
    """A text in each line; an empty line is a text without entities, so that lines and results correspond."""
    for number, line in enumerate(lines, 1):
        yield Record(f"{source}:{number}", text=line)


def read_words(lines: Iterable[str], source: str) -> Iterator[Record]:
    """A sentence in each line, its words separated by blanks or tabs."""
    for number, line in enumerate(lines, 1):
        yield Record(f"{source}:{number}", words=tuple(word for word in line.replace("\t", " ").split(" ") if word))


def read_conll(lines: Iterable[str], source: str) -> Iterator[Record]:
    """Sentences of a CoNLL file; of its columns the first counts."""
    for sentence in stream_conll(lines, source, tag_column=None):
        yield Record(sentence.place(), words=sentence.words, document=sentence.document)


def read_conllu(lines: Iterable[str], source: str) -> Iterator[Record]:
    """Sentences of a CoNLL-U file: the words of its text."""
    for block in stream_blocks(lines, source):
        sentence = sentence_of(block, source, None)
        yield Record(sentence.place(), words=sentence.words, document=sentence.document)


def read_jsonl(lines: Iterable[str], source: str) -> Iterator[Record]:
    """JSON objects with a ``text``, or with ``words``, a list of strings; what else they hold is kept.

    Raises:
        DataError: a line is something else.
    """
    for number, line in enumerate(lines, 1):
        where = f"{source}:{number}"
        values = object_of(line, where)
        text, words = values.pop("text", None), values.pop("words", None)
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            yield Record(where, words=tuple(words), extra=values if text is None else {"text": text, **values})
        elif isinstance(text, str) and words is None:
            yield Record(where, text=text, extra=values)
        else:
            raise DataError(f'{where}: expected "text", a string, or "words", a list of strings; found {line[:80]!r}')


READERS: dict[str, Callable[[Iterable[str], str], Iterator[Record]]] = {
    "text": read_text,
    "words": read_words,
    "conll": read_conll,
    "conllu": read_conllu,
    "jsonl": read_jsonl,
}


def records_of(names: Sequence[str], kind: str | None) -> Iterator[Record]:
    """Yield all records of all inputs; without a kind it is taken from a file's ending, and is text otherwise."""
    document = next_document = 0
    for source, stream in files_of(names):
        by_ending: str = ENDINGS.get(Path(source).suffix.lower()) or "text"
        for record in READERS[kind or by_ending](lines_of(stream, source), source):
            next_document = document + record.document + 1
            yield replace(record, document=document + record.document) if document else record
        document = next_document  # a file begins a document of its own
