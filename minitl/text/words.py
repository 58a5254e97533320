"""Raw text to words as they stand in CoNLL files, each with its place in the text.

Punctuation comes off, what belongs to a word stays: ``U.S.``, ``3-2``, ``well-known``, ``O'Brien``, ``1,000.5``; the
possessive ``'s`` is a word of its own. One pass with a regular expression over a string of character classes (one
letter for each character of the text, so places agree) keeps the work linear and knows every alphabet.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

# What keeps its point. Words that are also common without it ("no", "art") are left out.
# fmt: off
_ABBREVIATIONS = frozenset((
    "Adm", "Bros", "Capt", "Co", "Col", "Corp", "Dr", "Gen", "Gov", "Hon", "Inc", "Jr", "Lt", "Ltd", "Maj", "Messrs",
    "Mr", "Mrs", "Ms", "Mt", "Pres", "Prof", "Rep", "Rev", "Sen", "Sgt", "Sr", "St", "cf", "etc", "vs",
))
# fmt: on

# Classes: L letter, S the letter s, D digit, m mark or joiner, C ideograph, space for whitespace, p other punctuation
# and symbols; the signs . , : / - ' & @ # stand for themselves, and so does the dash between the numbers of a score.
_OWN_CLASS = frozenset(".,:/-'&@#\u2013")
_SAME_AS = {"\u2019": "'", "\u02bc": "'", "\u2010": "-", "\u2011": "-", "_": "L", "s": "S", "S": "S"}

# What has been matched is never given back (*+), since nothing could match better: without that, a word of ten
# megabytes with a sign in every second place would take eighty bytes for each.
_TOKEN = re.compile(
    r"""
    (?: [LS]m*+\. ){2,}+ (?![LSDm])                            # U.S.  e.g.
    | [@\#]? [LSD][LSDm]*+                                     # a word, @name, #topic, with its inner signs:
      (?: (?: [-.&@]                                           # well-known  example.org  AT&T
          | ' (?! S (?![LSDm]) )                               # O'Brien, but not the possessive
          | (?<=D) [,:/\u2013] (?=D) )                         # 1,000  10:30
        [LSD][LSDm]*+ )*+
    | (?<=[LSDm.]) 'S (?![LSDm])                               # the possessive
    | Cm*+                                                     # one ideograph
    | \.{2,}+ | -{2,}+                                         # ... and --
    | [^\ m]m*+ | m++                                          # a single sign
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class Word:
    """A word and the characters ``start`` to ``end`` (exclusive) it is made of."""

    text: str
    start: int
    end: int


@lru_cache(maxsize=4096)
def _class_of(character: str) -> str:
    """One letter for the kind of a character."""
    if character.isspace():
        return " "
    if character in _SAME_AS or character in _OWN_CLASS:
        return _SAME_AS.get(character, character)
    category = unicodedata.category(character)
    skin_tone = "\U0001f3fb" <= character <= "\U0001f3ff"
    if category[0] == "M" or category == "Cf" or skin_tone:
        return "m"
    if category == "Nd":
        return "D"
    if category == "Lo" and unicodedata.name(character, "").startswith("CJK"):
        return "C"
    return "L" if category[0] in "LN" else "p"


def split_words(text: str) -> list[Word]:
    """Split raw text into words.

    Args:
        text: any text.

    Returns:
        The words in order. ``text[word.start:word.end] == word.text``, words do not overlap and hold no whitespace,
        and what lies between them is whitespace.

    >>> [word.text for word in split_words("Mr. O'Brien's U.S. club won 3-2, at last.")]
    ['Mr.', "O'Brien", "'s", 'U.S.', 'club', 'won', '3-2', ',', 'at', 'last', '.']
    """
    classes = "".join(map(_class_of, text))
    words: list[Word] = []
    position = 0
    while position < len(classes):
        if classes[position] == " ":
            position += 1
            continue
        match = _TOKEN.match(classes, position)
        assert match is not None  # its last line takes any character
        end = match.end()
        if classes[end : end + 1] == "." and _keeps_point(text, position, end):
            end += 1
        words.append(Word(text[position:end], position, end))
        position = end
    return words


def _keeps_point(text: str, start: int, end: int) -> bool:
    """Whether the point at ``end`` belongs to the word before it: ``Mr.``, and ``J.`` before another capital."""
    word = text[start:end]
    if word in _ABBREVIATIONS:
        return text[end + 1 : end + 2] != "."
    return len(word) == 1 and word.isupper() and text[end + 1 : end + 2].isspace() and text[end + 2 : end + 3].isupper()
