"""What ``minitl predict`` reads: lines of files, folders or a pipe, one after the other, never all at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from minitl.errors import DataError
from minitl.models import strict_json
from minitl.text.conll import stream_conll

LONGEST_LINE = 64 * 2**20  # bytes; a binary file may have no line feed at all


@dataclass(frozen=True)
class Record:
    """One text, or one sentence of words.

    Attributes:
        source: ``file:line``.
        text: as it was given, or None if it is words.
        words: as they were given, or None if it is text.
        extra: what else a JSON line held, kept for the output.
        document: number of the document within its file, for CoNLL files.
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


def lines_of(stream: IO[bytes], source: str) -> Iterator[str]:
    """Yield the lines of UTF-8 text without their ends; only a line feed ends one, and a mark at the start is dropped.

    Raises:
        DataError: something is not UTF-8, with line and byte offset; or a line is longer than 64 MB.
    """
    offset, number = 0, 0
    while raw := stream.readline(LONGEST_LINE + 1):
        number += 1
        if len(raw) > LONGEST_LINE:
            raise DataError(f"{source}:{number}: a line of more than {LONGEST_LINE:,} bytes; this is no text file")
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            wide = number == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff"))
            fix = "it begins like UTF-16, save it as UTF-8" if wide else "save the file as UTF-8"
            raise DataError(
                f"{source}:{number}: expected UTF-8, found byte 0x{raw[error.start]:02x} at byte offset "
                f"{offset + error.start}; {fix}"
            ) from None
        offset += len(raw)
        yield (line.removeprefix("\ufeff") if number == 1 else line).removesuffix("\n").removesuffix("\r")


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


def read_jsonl(lines: Iterable[str], source: str) -> Iterator[Record]:
    """JSON objects with a ``text``, or with ``words``, a list of strings; what else they hold is kept.

    Raises:
        DataError: a line is something else.
    """
    for number, line in enumerate(lines, 1):
        where = f"{source}:{number}"
        if not line.strip():
            raise DataError(f"{where}: expected a JSON object, found an empty line")
        try:
            values = strict_json.parse_object(line.encode(), where)
        except ValueError as error:
            raise DataError(str(error)) from None
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
    "jsonl": read_jsonl,
}


def records_of(names: Sequence[str], kind: str | None) -> Iterator[Record]:
    """Yield all records of all inputs; without a kind it is taken from a file's ending, and is text otherwise."""
    endings = {".jsonl": "jsonl", ".ndjson": "jsonl", ".conll": "conll", ".bio": "conll", ".iob": "conll"}
    for source, stream in files_of(names):
        reader = READERS[kind or endings.get(Path(source).suffix.lower(), "text")]
        yield from reader(lines_of(stream, source), source)
