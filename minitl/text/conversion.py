"""From one format of data files to another, and from one tag scheme to another; what gets lost is said.

A file that stays in its format keeps everything but its tags as it is: other columns, comments, other keys of objects.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from typing import IO, Protocol

from minitl.errors import DataError
from minitl.text import conllu, jsonl
from minitl.text.conll import Sentence, columns_of, conll_text, escaped, retagged_conll, stream_conll
from minitl.text.formats import Format
from minitl.text.lines import lines_of
from minitl.text.one_scheme import common_scheme, in_scheme, repaired
from minitl.text.schemes import Scheme, illegal_transitions, lenient_spans, nearest_scheme
from minitl.text.spans import Misaligned, locate_words

_UNIVERSAL = ("lemmas", "parts of speech", "other parts of speech", "features", "heads", "relations", "graphs")


@dataclass(frozen=True)
class Reading:
    """How a file is read.

    Attributes:
        scheme: of its tags; None finds it.
        repair: whether tags that break every scheme are read by the chunk rules of conlleval; else they are an error.
        misaligned: JSON lines: what becomes of an entity that begins or ends within a word; see
            :func:`minitl.text.spans.words_of_spans`.
        ner_key: CoNLL-U: the key in MISC that holds the tags; None finds it.
        word_column, tag_column: CoNLL: their numbers from 0, negative ones from the right.
    """

    scheme: Scheme | None = None
    repair: bool = False
    misaligned: Misaligned = "error"
    ner_key: str | None = None
    word_column: int = 0
    tag_column: int = -1


@dataclass(frozen=True)
class Converted:
    """The text of a converted file, and remarks on what was found, changed and left out."""

    text: str
    notes: tuple[str, ...]


def convert_file(
    content: bytes | IO[bytes],
    source: str,
    kind: Format,
    target: Format,
    scheme: Scheme | None = None,
    reading: Reading | None = None,
) -> Converted:
    """Convert a data file.

    Args:
        content: its bytes, or the file opened for bytes.
        source: its name in messages.
        kind: its format.
        target: the format to write.
        scheme: the tag scheme to write; None keeps that of the file.
        reading: how to read it.

    Returns:
        The text of the new file, with line feeds; and remarks.

    Raises:
        DataError: naming ``file:line``, if the file is not what ``kind`` says, its tags break their scheme, or a word
            cannot be written in ``target``.
    """
    reading = reading or Reading()
    lines = list(lines_of(BytesIO(content) if isinstance(content, bytes) else content, source))
    file = _OPENED[kind](lines, source, reading, target)
    if not file.sentences:
        raise DataError(f"{source}: expected sentences, found none")
    sentences, notes = _in_scheme(file.sentences, scheme, reading)
    if kind == target:
        text = "".join(f"{line}\n" for line in file.retagged(sentences))
        return Converted(text, tuple(notes))
    lost = [*file.lost(), *_lost_space(sentences, target)]
    return Converted(_written(sentences, target), (*notes, *(f"left out: {what}" for what in lost)))


class _File(Protocol):
    """A file that was read: its sentences, its lines with other tags, and what another format has no place for."""

    sentences: list[Sentence]

    def retagged(self, sentences: Sequence[Sentence]) -> list[str]: ...

    def lost(self) -> list[str]: ...


class _Conll:
    def __init__(self, lines: list[str], source: str, reading: Reading, target: Format) -> None:
        self.lines, self.tag_column = lines, reading.tag_column
        columns = {"word_column": reading.word_column, "tag_column": reading.tag_column}
        self.sentences = list(stream_conll(lines, source, **columns))

    def retagged(self, sentences: Sequence[Sentence]) -> list[str]:
        return retagged_conll(self.lines, sentences, self.tag_column)

    def lost(self) -> list[str]:
        more = len(columns_of(self.lines[self.sentences[0].line - 1])) - 2
        return [f"{_counted(more, 'column')} beside words and tags"] if more else []


class _Conllu:
    def __init__(self, lines: list[str], source: str, reading: Reading, target: Format) -> None:
        self.lines = lines
        self.blocks = list(conllu.stream_blocks(lines, source))
        self.key = conllu.find_ner_key(self.blocks, source, reading.ner_key) if self.blocks else ""
        # Tags that stay in the file stay at syntactic words, those of other formats are at words of the text.
        blocks = (
            [conllu.with_tagged_rows(block, self.key) for block in self.blocks] if target == "conllu" else self.blocks
        )
        self.rows = [row for block in blocks for row in block.rows]
        self.sentences = [conllu.sentence_of(block, source, self.key) for block in blocks]

    def retagged(self, sentences: Sequence[Sentence]) -> list[str]:
        tags = [tag for sentence in sentences for tag in sentence.tags or ()]
        return conllu.retagged_conllu(self.lines, list(zip(self.rows, tags, strict=True)), self.key)

    def lost(self) -> list[str]:
        rows = [line.split("\t") for line in self.lines if line.strip() and not line.startswith("#")]
        columns = [name for column, name in enumerate(_UNIVERSAL, 2) if any(row[column] != "_" for row in rows)]
        known = {self.key, "SpaceAfter"}
        keys = sorted({key for row in rows for key in conllu.misc_of(row[conllu.MISC])} - known)
        split = sum(bool(row.parts) for block in self.blocks for row in block.rows)
        return [
            *([", ".join(columns)] if columns else []),
            *([f"MISC keys {', '.join(map(escaped, keys))}"] if keys else []),
            *([f"the parts of words that are written as one: {split:,}"] if split else []),
        ]


class _Jsonl:
    def __init__(self, lines: list[str], source: str, reading: Reading, target: Format) -> None:
        self.lines, self.source = lines, source
        self.sentences = list(jsonl.stream_jsonl(lines, source, misaligned=reading.misaligned))

    def retagged(self, sentences: Sequence[Sentence]) -> list[str]:
        changed = list(self.lines)
        for one in sentences:
            changed[one.line - 1] = jsonl.retagged_jsonl(self.lines[one.line - 1], one, one.place())
        return changed

    def lost(self) -> list[str]:
        keys = {key for number, line in enumerate(self.lines, 1) for key in jsonl.object_of(line, f"line {number}")}
        others = sorted(keys - set(jsonl.KNOWN_KEYS))
        empty = len(self.lines) - len(self.sentences)
        return [
            *([f"keys {', '.join(map(escaped, others))}"] if others else []),
            *([f"{_counted(empty, 'text')} without a word"] if empty else []),
        ]


_OPENED: dict[Format, Callable[[list[str], str, Reading, Format], _File]] = {
    "conll": _Conll,
    "conllu": _Conllu,
    "jsonl": _Jsonl,
}


def _in_scheme(
    sentences: Sequence[Sentence], target: Scheme | None, reading: Reading
) -> tuple[list[Sentence], list[str]]:
    """The sentences with legal tags of the wanted scheme, and what was found."""
    if reading.repair:
        scheme = reading.scheme or nearest_scheme(sentence.tags or () for sentence in sentences).scheme
        broken = sum(len(illegal_transitions(sentence.tags or (), scheme)) for sentence in sentences)
        written = repaired(sentences, target or scheme)
        places = _counted(broken, "place")
        notes = [f"{places} where tags break {scheme}, read by the rules of conlleval"] if broken else []
    else:
        scheme = common_scheme(sentences, reading.scheme)
        written, notes = in_scheme(sentences, scheme, target or scheme), []
    words = sum(len(sentence.words) for sentence in sentences)
    entities = sum(len(lenient_spans(sentence.tags or ())) for sentence in written)
    counts = ", ".join((_counted(len(written), "sentence"), _counted(words, "word"), f"entities: {entities:,}"))
    change = f"{scheme} tags" if target in (None, scheme) else f"{scheme} tags written as {target}"
    return written, [f"{counts}, {change}", *notes]


def _lost_space(sentences: Sequence[Sentence], target: Format) -> list[str]:
    """What the white space of texts loses: CoNLL keeps none of it, CoNLL-U whether there is any."""
    if target == "jsonl":
        return []
    count = 0
    for sentence in sentences:
        if sentence.text is not None:
            places = locate_words(sentence.text, sentence.words)
            gaps = {sentence.text[word.end : after.start] for word, after in pairwise(places)}
            count += bool(gaps - ({" "} if target == "conll" else {" ", ""}))
    return [f"white space other than one blank between words, in {_counted(count, 'text')}"] if count else []


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _written(sentences: Sequence[Sentence], target: Format) -> str:
    with_documents = len({sentence.document for sentence in sentences}) > 1
    if target == "jsonl":
        return "".join(jsonl.jsonl_line(one, with_document=with_documents) + "\n" for one in sentences)
    try:
        if target == "conll":
            return conll_text(sentences)
        before = None
        blocks = []
        for one in sentences:
            blocks.append(conllu.conllu_block(one, new_document=with_documents and one.document != before))
            before = one.document
        return "".join(blocks)
    except ValueError as error:
        raise DataError(str(error)) from None
