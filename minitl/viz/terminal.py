"""Entities in running text, in colour where the terminal shows it and in brackets where it does not."""

import os
import sys
import unicodedata
import zlib
from collections.abc import Iterable, Sequence
from typing import Protocol, TextIO

from minitl.text.schemes import Entity

_RESET = "\x1b[0m"
_BOLD = "\x1b[1m"
# Black or white letters on a background, by their SGR numbers: readable on light and on dark terminals.
_COLOURS = {
    "PER": "30;46",
    "PERSON": "30;46",
    "ORG": "30;43",
    "CORPORATION": "30;43",
    "LOC": "30;42",
    "LOCATION": "30;42",
    "MISC": "97;45",
    "GROUP": "97;44",
}
_PALETTE = ("30;46", "30;43", "30;42", "97;45", "97;44", "97;41")

# Joiners shape emoji and several scripts; everything else that is invisible or steers the terminal is escaped.
_KEPT = frozenset("\n\u200c\u200d")
_ESCAPED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


class LabelledSpan(Protocol):
    """A piece of text with a label, as ``model.tag`` returns them."""

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def label(self) -> str: ...


def wants_colour(stream: TextIO | None = None) -> bool:
    """Whether to print colours to ``stream`` (default: standard output).

    Asked in this order: ``NO_COLOR`` set and not empty: no. ``FORCE_COLOR`` or ``CLICOLOR_FORCE`` set and neither empty
    nor 0: yes. ``TERM=dumb``: no. Else yes if the stream is a terminal.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if any(os.environ.get(name, "") not in ("", "0") for name in ("FORCE_COLOR", "CLICOLOR_FORCE")):
        return True
    if os.environ.get("TERM") == "dumb":
        return False
    stream = stream or sys.stdout
    return bool(stream.isatty())


def colour_entities(
    words_or_text: str | Sequence[str],
    spans: Iterable[Entity | LabelledSpan],
    *,
    colour: bool | None = None,
    stream: TextIO | None = None,
) -> str:
    """Show entities within their text.

    Characters that control a terminal or show nothing are printed as escapes (``\\x1b``), line feeds excepted.

    Args:
        words_or_text: words, which are joined by blanks, or raw text.
        spans: the entities; ``start`` and ``end`` (exclusive) count words, or characters of raw text.
        colour: True for colours, False for brackets; None asks :func:`wants_colour`.
        stream: where the text will be printed.

    Returns:
        The text; each entity has its label behind it.

    Raises:
        ValueError: if spans overlap, are empty, or leave the text.

    >>> print(colour_entities(["Angela", "Merkel", "spoke"], [Entity("PER", 0, 2)], colour=False))
    [Angela Merkel PER] spoke
    """
    with_colour = wants_colour(stream) if colour is None else colour
    is_text = isinstance(words_or_text, str)
    shown: list[str] = []
    position = 0
    for span in sorted(spans, key=lambda item: item.start):
        label = span.type if isinstance(span, Entity) else span.label
        if not position <= span.start < span.end <= len(words_or_text):
            raise ValueError(
                f"span {span.start}:{span.end} ({label}) is empty, overlaps the one before, which ends at {position}, "
                f"or leaves a text of {len(words_or_text)}"
            )
        shown += _pieces(words_or_text, position, span.start)
        inner = ("" if is_text else " ").join(_pieces(words_or_text, span.start, span.end))
        shown.append(_marked(inner, printable(label), with_colour))
        position = span.end
    shown += _pieces(words_or_text, position, len(words_or_text))
    return ("" if is_text else " ").join(shown)


def _pieces(words_or_text: str | Sequence[str], start: int, end: int) -> list[str]:
    """The words from ``start`` to ``end``, or that part of the text, safe to print."""
    if isinstance(words_or_text, str):
        return [printable(words_or_text[start:end])]
    return [printable(word) for word in words_or_text[start:end]]


def _marked(text: str, label: str, with_colour: bool) -> str:
    suffix = f" {label}" if label else ""
    if not with_colour:
        return f"[{text}{suffix}]"
    number = zlib.crc32(label.encode("utf-8", "backslashreplace")) % len(_PALETTE)  # the same in every run
    colours = _COLOURS.get(label.upper(), _PALETTE[number])
    return f"\x1b[{colours}m {text}{_BOLD}{suffix} {_RESET}"


def printable(text: str) -> str:
    """Replace what would steer the terminal or hide by escapes, line feeds and joiners excepted.

    A lone surrogate could not even be printed.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    return "".join(
        character
        if character in _KEPT or unicodedata.category(character) not in _ESCAPED_CATEGORIES
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
