"""Reading and writing CoNLL-U, the format of Universal Dependencies, with tags of entities in its last column.

::

    # text = Paris slept.
    1	Paris	Paris	PROPN	_	_	2	nsubj	_	name=B-LOC
    2	slept	sleep	VERB	_	_	0	root	_	name=O|SpaceAfter=No
    3	.	.	PUNCT	_	_	2	punct	_	name=O

The format has no column for entities; data sets and tools put the tag into MISC, under a key of their own:
``NER_KEYS`` has the usual ones. A word without the key is outside (``O``).

Words are those of the text: where a line such as ``1-2 du`` says that ``de`` and ``le`` are written as one, ``du`` is
the word, and an entity of ``le Havre`` begins with it. Empty nodes (``8.1``) are not in the text and have no tag.

Source: the description of CoNLL-U at universaldependencies.org.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from os import PathLike

from minitl.errors import DataError
from minitl.text.conll import Sentence, checked_tag, escaped
from minitl.text.lines import read_lines
from minitl.text.schemes import join_tag, split_tag
from minitl.text.spans import locate_words

NER_KEYS = ("name", "ner", "NER", "NE", "BIO")  # NorNE and spaCy; Stanza; and others
COLUMNS, FORM, MISC = 10, 1, 9
_ID = re.compile(r"([0-9]{1,9})(?:(-|\.)([0-9]{1,9}))?")


@dataclass(frozen=True)
class Row:
    """A word of the text, or a word within one.

    Attributes:
        line: its number in the file, from 1.
        form: the word.
        misc: key -> value of the last column.
        parts: the syntactic words that this one is written for, or none.
    """

    line: int
    form: str
    misc: Mapping[str, str]
    parts: tuple["Row", ...] = ()

    def tagged(self, key: str) -> tuple["Row", ...]:
        """The rows that hold the tag of this one: itself or its parts."""
        return self.parts if self.parts and key not in self.misc else (self,)


@dataclass(frozen=True)
class Block:
    """A sentence as it stands in the file: its rows, its text if a comment gives it, the number of its document."""

    rows: tuple[Row, ...]
    text: str | None
    document: int


def read_conllu(path: str | PathLike[str], *, ner_key: str | None = None, with_tags: bool = True) -> list[Sentence]:
    """Read a CoNLL-U file.

    Args:
        path: the file, UTF-8.
        ner_key: the key in MISC that holds the tags; by default the one of ``NER_KEYS`` that occurs.
        with_tags: whether to read tags.

    Returns:
        The sentences in order, at least one, with their texts. A new document begins at ``# newdoc``.

    Raises:
        DataError: naming ``file:line``, if the file is not CoNLL-U, or holds no tags under such a key.
    """
    blocks = list(stream_blocks(read_lines(path), str(path)))
    if not blocks:
        raise DataError(f"{path}: expected sentences in CoNLL-U, found none")
    key = find_ner_key(blocks, str(path), ner_key) if with_tags else None
    return [sentence_of(block, str(path), key) for block in blocks]


def stream_blocks(lines: Iterable[str], source: str) -> Iterator[Block]:
    """Yield the sentences of a CoNLL-U file as its lines, without their ends, come in.

    Raises:
        DataError: naming ``source:line``, if a line has not 10 columns, words are not numbered one after the other, or
            a range of words is not what follows it.
    """
    document, begun = 0, False  # whether the document has a sentence yet
    for lines_of_block in _grouped(lines):
        comments = [line[1:].strip() for _, line in lines_of_block if line.startswith("#")]
        if any(comment.split()[:1] == ["newdoc"] for comment in comments):
            document, begun = document + begun, False
        rows = _rows([(number, line) for number, line in lines_of_block if not line.startswith("#")], source)
        if rows:
            texts = [value.strip(" ") for name, _, value in map(_halves, comments) if name == "text"]
            yield Block(tuple(rows), texts[0] if texts else None, document)
            begun = True


def _grouped(lines: Iterable[str]) -> Iterator[list[tuple[int, str]]]:
    """Yield the lines, with their numbers, that no empty line separates."""
    group: list[tuple[int, str]] = []
    for number, line in enumerate(lines, 1):
        if line.strip(" \t"):
            group.append((number, line))
        elif group:
            yield group
            group = []
    if group:
        yield group


def _halves(comment: str) -> tuple[str, str, str]:
    name, equals, value = comment.partition("=")
    return name.strip(), equals, value


def _rows(lines: Sequence[tuple[int, str]], source: str) -> list[Row]:
    """The rows of one sentence; the words of a range are the parts of its row."""
    entries = [entry for number, line in lines if (entry := _entry(line, number, source)) is not None]
    rows: list[Row] = []
    position, count = 0, 0  # count: of syntactic words so far
    while position < len(entries):
        first, last, row = entries[position]
        _expect_word(count + 1, entries[position], source)
        size = 0 if last is None else last - first + 1  # of words in a range
        if last is not None:
            if size < 1:
                raise DataError(f"{source}:{row.line}: expected a range of words, found {first}-{last}")
            parts = entries[position + 1 : position + 1 + size]
            for number, part in enumerate(parts, first):
                _expect_word(number, part, source)
                if part[1] is not None:
                    raise DataError(f"{source}:{part[2].line}: expected word {number}, found a range within a range")
            if len(parts) < size:
                raise DataError(
                    f"{source}:{row.line}: expected the words {first} to {last}, found {len(parts)} of them"
                )
            row = replace(row, parts=tuple(part for _, _, part in parts))
        rows.append(row)
        position, count = position + 1 + size, count + max(size, 1)
    return rows


_Entry = tuple[int, int | None, Row]  # number of a word, the last one if it is a range, and its row


def _expect_word(number: int, entry: _Entry, source: str) -> None:
    first, last, row = entry
    if first != number:
        found = str(first) if last is None else f"{first}-{last}"
        raise DataError(f"{source}:{row.line}: expected word {number} of the sentence, found {found}")


def _entry(line: str, number: int, source: str) -> _Entry | None:
    """A line with a word or a range; None for an empty node."""
    where = f"{source}:{number}"
    cells = line.split("\t")
    if len(cells) != COLUMNS:
        raise DataError(f"{where}: expected {COLUMNS} columns, separated by tabs, found {len(cells)}: {escaped(line)}")
    found = _ID.fullmatch(cells[0])
    if found is None:
        raise DataError(f"{where}: expected the number of a word, such as 3, 3-4 or 3.1, found {escaped(cells[0])}")
    if not cells[FORM].strip():
        raise DataError(f"{where}: expected a word, found an empty column: {escaped(line)}")
    if found[2] == ".":
        return None
    return int(found[1]), int(found[3]) if found[3] else None, Row(number, cells[FORM], misc_of(cells[MISC]))


def misc_of(cell: str) -> dict[str, str]:
    """The keys and values of a MISC column: ``name=B-LOC|SpaceAfter=No``."""
    if cell == "_":
        return {}
    return {name: value for name, _, value in (item.partition("=") for item in cell.split("|"))}


def find_ner_key(blocks: Sequence[Block], source: str, asked: str | None = None) -> str:
    """The key in MISC that holds the tags: the one that was asked for, or the one of ``NER_KEYS`` that occurs.

    Raises:
        DataError: no word has it, or there are several.
    """
    rows = (part for block in blocks for row in block.rows for part in (row, *row.parts))
    found = Counter(key for row in rows for key in row.misc)
    keys = [key for key in (NER_KEYS if asked is None else (asked,)) if key in found]
    if len(keys) == 1:
        return keys[0]
    if keys:
        raise DataError(f"{source}: expected tags under one key in MISC, found {', '.join(keys)}; choose one")
    expected = f"one of {', '.join(NER_KEYS)}" if asked is None else escaped(asked)
    present = ", ".join(escaped(key) for key, _ in found.most_common(10)) or "no keys at all"
    raise DataError(f"{source}: expected tags in MISC under the key {expected}, found {present}; name the key")


def with_tagged_rows(block: Block, key: str) -> Block:
    """The same sentence in the rows that hold tags, which may be syntactic words instead of words of the text."""
    return Block(tuple(part for row in block.rows for part in row.tagged(key)), None, block.document)


def sentence_of(block: Block, source: str, key: str | None) -> Sentence:
    """Make a sentence of words and tags; tags are None without a key.

    Raises:
        DataError: naming ``source:line``, if a tag is none, or a word holds parts of several entities.
    """
    words = tuple(row.form for row in block.rows)
    tags = None if key is None else tuple(_tag(row, source, key) for row in block.rows)
    lines = tuple(row.line for row in block.rows)
    return Sentence(words, tags, block.document, source, lines[0], _text(block, words), lines)


def _tag(row: Row, source: str, key: str) -> str:
    where = f"{source}:{row.line}"
    try:
        return _joined([checked_tag(part.misc.get(key, "O")) for part in row.tagged(key)])
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None


def _joined(tags: Sequence[str]) -> str:
    """The tag of a word from those of its parts: it begins and ends an entity if one of them does.

    >>> _joined(["O", "B-LOC"]), _joined(["B-LOC", "E-LOC"])
    ('B-LOC', 'S-LOC')
    """
    if len(tags) == 1:
        return tags[0]
    inside = [split_tag(tag) for tag in tags if tag != "O"]
    if not inside:
        return "O"
    prefixes = [prefix for prefix, _ in inside]
    starts = sum(prefix in "BSU" for prefix in prefixes)
    if len({name for _, name in inside}) > 1 or starts > 1 or (starts and prefixes[0] not in "BSU"):
        raise ValueError(f"expected one entity in a word, found its parts to be {', '.join(tags)}")
    single, last = ("U", "L") if set(prefixes) & {"U", "L"} else ("S", "E")
    ends = bool(set(prefixes) & {"E", "S", "L", "U"})
    prefix = (single if starts else last) if ends else ("B" if starts else "I")
    return join_tag(prefix, inside[0][1])


def _text(block: Block, words: Sequence[str]) -> str:
    """The text of the comment, if the words are its; else words with the blanks that ``SpaceAfter=No`` leaves."""
    if block.text is not None:
        try:
            locate_words(block.text, words)
            return block.text
        except ValueError:
            pass  # a comment that is not true; UD's own validation would refuse it
    gaps = ["" if row.misc.get("SpaceAfter") == "No" else " " for row in block.rows[:-1]]
    return "".join(word + gap for word, gap in zip(words, [*gaps, ""], strict=True))


def retagged_conllu(lines: Sequence[str], rows: Sequence[tuple[Row, str]], key: str) -> list[str]:
    """The lines of a file with other tags under ``key``; all else stays as it is. A row without the key gets it."""
    changed = list(lines)
    for row, tag in rows:
        cells = changed[row.line - 1].split("\t")
        items = [] if cells[MISC] == "_" else cells[MISC].split("|")
        kept = [f"{key}={tag}" if item.partition("=")[0] == key else item for item in items]
        cells[MISC] = "|".join(kept if key in row.misc else [f"{key}={tag}", *kept])
        changed[row.line - 1] = "\t".join(cells)
    return changed


def conllu_block(sentence: Sentence, *, new_document: bool = False, ner_key: str = NER_KEYS[0]) -> str:
    """Write a sentence as a block of CoNLL-U, with an empty line after it.

    Raises:
        ValueError: a word or a tag cannot stand in this format.
    """
    words, tags = sentence.words, sentence.tags or ("O",) * len(sentence.words)
    places = locate_words(sentence.text, words) if sentence.text is not None else None
    gaps = [" "] * len(words)
    if places is not None:
        gaps = [" " if after.start > word.end else "" for word, after in pairwise(places)] + [" "]
    lines = ["# newdoc"] if new_document else []
    lines.append("# text = " + "".join(word + gap for word, gap in zip(words, gaps, strict=True)).rstrip(" "))
    for number, (word, tag, gap) in enumerate(zip(words, tags, gaps, strict=True), 1):
        if any(sign in word for sign in "\t\n\r\0") or not word.strip() or "|" in tag:
            here = sentence.place(number - 1)
            raise ValueError(f"{here}: {escaped(word)} with tag {escaped(tag)} cannot stand in a CoNLL-U file")
        misc = f"{ner_key}={tag}" + ("" if gap else "|SpaceAfter=No")
        lines.append("\t".join((str(number), word, *"_" * (MISC - FORM - 1), misc)))
    return "\n".join(lines) + "\n\n"
