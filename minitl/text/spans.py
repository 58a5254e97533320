"""Entities as places in a text, and as words of it: from the one to the other.

Places count characters (Unicode code points), as indices of Python strings do; so ``text[start:end]`` is the entity.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

from minitl.text.conll import escaped
from minitl.text.schemes import Entity
from minitl.text.words import Word

Misaligned = Literal["error", "widen", "split"]
MISALIGNED: tuple[Misaligned, ...] = get_args(Misaligned)


@dataclass(frozen=True)
class CharacterSpan:
    """An entity in a text: the characters ``start`` to ``end``, the last one not included, and its type."""

    start: int
    end: int
    label: str


def locate_words(text: str, words: Sequence[str]) -> list[Word]:
    """Find words in the text that they were taken from: in order, with nothing but white space around them.

    Raises:
        ValueError: the words are not those of the text.

    >>> locate_words("Paris, again", ["Paris", ",", "again"])[2]
    Word(text='again', start=7, end=12)
    """
    found = []
    position = 0
    for word in words:
        while not text.startswith(word, position) and text[position : position + 1].isspace():
            position += 1
        if not word or not text.startswith(word, position):
            raise ValueError(
                f"expected the word {escaped(word)} at character {position}, found {_next(text, position)}"
            )
        found.append(Word(word, position, position + len(word)))
        position += len(word)
    if text[position:].strip():
        raise ValueError(f"expected the end of the words at character {position}, found {_next(text, position)}")
    return found


def words_of_spans(
    text: str, words: Sequence[Word], spans: Iterable[CharacterSpan], *, misaligned: Misaligned = "error"
) -> tuple[list[Word], list[Entity]]:
    """Find the words that entities are made of. White space at the ends of a span belongs to no word and is no matter.

    Args:
        text: the text.
        words: its words, in order; they hold every character that is not white space.
        spans: entities, in any order.
        misaligned: what becomes of an entity that begins or ends within a word: "error"; "widen", it gets the whole
            word; or "split", the word becomes two.

    Returns:
        The words, more of them if some were split; and the entities by the numbers of their words, in order.

    Raises:
        ValueError: a span is empty, not within the text, overlaps another one, or is misaligned.

    >>> words_of_spans("in Paris", [Word("in", 0, 2), Word("Paris", 3, 8)], [CharacterSpan(3, 8, "LOC")])[1]
    [Entity(type='LOC', start=1, end=2)]
    """
    exact = sorted((_trimmed(text, span) for span in spans), key=lambda span: span.start)
    words = (
        _split(words, {edge for span in exact for edge in (span.start, span.end)}) if misaligned == "split" else words
    )
    starts, ends = [word.start for word in words], [word.end for word in words]
    entities: list[Entity] = []
    before = CharacterSpan(0, 0, "")
    for span in exact:
        first, last = bisect_right(ends, span.start), bisect_left(starts, span.end)
        here = f"{escaped(text[span.start : span.end])} ({span.label}, characters {span.start} to {span.end})"
        if span.start < before.end:
            other = escaped(text[before.start : before.end])
            raise ValueError(f"expected entities that do not overlap, found {here} within or across {other}")
        if misaligned != "widen" and (starts[first] != span.start or ends[last - 1] != span.end):
            whole = escaped(text[starts[first] : ends[last - 1]])
            raise ValueError(
                f"expected entities made of whole words, found {here} in {whole}; correct it, or say what becomes "
                "of such entities (misaligned: widen takes the whole word, split makes two of it)"
            )
        if entities and first < entities[-1].end:  # two that share a word, both widened
            word = escaped(words[first].text)
            raise ValueError(f"expected one entity in each word, found several in {word}; misaligned: split can do it")
        entities.append(Entity(span.label, first, last))
        before = span
    return list(words), entities


def _trimmed(text: str, span: CharacterSpan) -> CharacterSpan:
    if not 0 <= span.start < span.end <= len(text):
        raise ValueError(
            f"expected an entity within the {len(text)} characters of the text, found {span.start} to {span.end}"
        )
    surface = text[span.start : span.end]
    stripped = surface.strip()
    if not stripped:
        raise ValueError(f"expected an entity, found white space: characters {span.start} to {span.end}")
    start = span.start + len(surface) - len(surface.lstrip())
    return replace(span, start=start, end=start + len(stripped))


def _split(words: Sequence[Word], edges: set[int]) -> list[Word]:
    """Cut words at places in the text."""
    ordered = sorted(edges)
    parts = []
    for word in words:
        inner = ordered[bisect_right(ordered, word.start) : bisect_left(ordered, word.end)]
        places = [word.start, *inner, word.end]
        for start, end in pairwise(places):
            parts.append(Word(word.text[start - word.start : end - word.start], start, end))
    return parts


def _next(text: str, position: int) -> str:
    return escaped(text[position : position + 40]) if position < len(text) else "the end of the text"
