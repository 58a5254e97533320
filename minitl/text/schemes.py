"""Entity schemes: how tags such as ``B-PER`` spell out entities, and how one spelling becomes another.

A tag is ``O`` (outside), a bare prefix (``B``), or prefix, hyphen, type (``B-PER``); the type may itself hold hyphens.
The schemes differ in what the prefixes mean:

======  =======================================================================================================
IOB1    ``I`` for every word of an entity; ``B`` only where an entity touches the one before it of the same type
IOB2    ``B`` for the first word of an entity, ``I`` for the others
BIOES   ``B I ... E`` for several words, ``S`` for a single one
BILOU   the same with ``L`` for ``E`` and ``U`` for ``S``
======  =======================================================================================================

Tjong Kim Sang and Veenstra 1999 name the IOB variants; Ratinov and Roth 2009 compare them with BILOU.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from minitl.errors import DataError

Scheme = Literal["IOB1", "IOB2", "BIOES", "BILOU"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)

# BILOU is BIOES with two letters renamed, so that only BIOES needs rules.
_AS_BIOES = {"L": "E", "U": "S"}
_PREFIXES = {"IOB1": "BI", "IOB2": "BI", "BIOES": "BIES", "BILOU": "BILU"}


@dataclass(frozen=True, order=True)
class Entity:
    """An entity of a sentence: its type and the words ``start`` to ``end``, the last one not included."""

    type: str
    start: int
    end: int


@dataclass(frozen=True)
class IllegalTransition:
    """A place where tags break their scheme: ``tag`` at ``position`` may not follow ``previous``.

    Beyond either end of the sentence ``O`` is assumed, so ``position`` may be the length of the sentence.
    """

    position: int
    previous: str
    tag: str


@lru_cache(maxsize=1024)  # a data set has few tags and asks for each of them very often
def split_tag(tag: str) -> tuple[str, str]:
    """Split a tag at its first hyphen.

    Returns:
        Prefix and type; the type is empty for ``O`` and for a bare prefix.

    Raises:
        ValueError: if ``tag`` is neither ``O`` nor one of ``B I E S L U`` alone or with a type.

    >>> split_tag("B-SUB-ORG"), split_tag("I"), split_tag("O")
    (('B', 'SUB-ORG'), ('I', ''), ('O', ''))
    """
    prefix, hyphen, type_name = tag.partition("-")
    known = tag == "O" or (prefix in ("B", "I", "E", "S", "L", "U") and (type_name != "" or hyphen == ""))
    if not known:
        raise ValueError(f"expected a tag such as O, B-PER or I-PER, found {tag!r}")
    return prefix, type_name


def join_tag(prefix: str, type_name: str) -> str:
    """The opposite of :func:`split_tag`."""
    return f"{prefix}-{type_name}" if type_name else prefix


def check_scheme(scheme: str) -> None:
    """Raise a ``ValueError`` that lists the schemes if ``scheme`` is none of them."""
    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, found {scheme!r}")


def follows(scheme: str, previous: tuple[str, str], current: tuple[str, str]) -> bool:
    """Tell whether ``current`` (prefix, type) may come after ``previous`` in ``scheme``."""
    (before, type_before), (prefix, type_name) = previous, current
    if prefix != "O" and prefix not in _PREFIXES[scheme]:
        return False
    same_type = type_before == type_name
    if scheme == "IOB1":
        return prefix != "B" or (before != "O" and same_type)
    if scheme == "IOB2":
        return prefix != "I" or (before != "O" and same_type)
    before, prefix = _AS_BIOES.get(before, before), _AS_BIOES.get(prefix, prefix)
    if before in ("B", "I"):  # an entity is open: it must go on or end
        return prefix in ("I", "E") and same_type
    return prefix not in ("I", "E")


def illegal_transitions(tags: Sequence[str], scheme: Scheme) -> list[IllegalTransition]:
    """Every place of one sentence where ``tags`` break ``scheme``; an empty list means the tags are legal.

    Raises:
        ValueError: for an unknown scheme or something that is no tag at all.

    >>> illegal_transitions(["O", "I-PER"], "IOB2")
    [IllegalTransition(position=1, previous='O', tag='I-PER')]
    """
    check_scheme(scheme)
    found = []
    previous, previous_tag = ("O", ""), "O"
    for position, tag in enumerate([*tags, "O"]):
        current = split_tag(tag)
        if not follows(scheme, previous, current):
            found.append(IllegalTransition(position, previous_tag, tag))
        previous, previous_tag = current, tag
    return found


def lenient_spans(tags: Sequence[str]) -> list[Entity]:
    """The entities of one sentence by the chunk rules of ``conlleval``, which give every sequence of tags a meaning.

    A word goes on with the entity before it if its prefix is ``I`` or ``E``, the prefix before it was ``B`` or ``I``,
    and the types are equal; any other word that is not ``O`` starts a new entity. On a legal sequence of any scheme
    this is what the scheme says. The rules for ``E`` and ``S`` are those of seqeval, and ``L`` and ``U`` are read as
    ``E`` and ``S``.

    >>> lenient_spans(["I-PER", "I-PER", "I-LOC", "O", "B-LOC"])
    [Entity(type='PER', start=0, end=2), Entity(type='LOC', start=2, end=3), Entity(type='LOC', start=4, end=5)]
    """
    entities: list[Entity] = []
    open_type, open_start, before = "", 0, "O"
    for position, tag in enumerate([*tags, "O"]):
        prefix, type_name = split_tag(tag)
        prefix = _AS_BIOES.get(prefix, prefix)
        goes_on = prefix in ("I", "E") and before in ("B", "I") and type_name == open_type
        if not goes_on:
            if before != "O":
                entities.append(Entity(open_type, open_start, position))
            open_type, open_start = type_name, position
        before = prefix
    return entities


def tags_to_spans(tags: Sequence[str], scheme: Scheme) -> list[Entity]:
    """The entities of one sentence, in order.

    Raises:
        ValueError: if the tags break the scheme; :func:`lenient_spans` reads such tags.

    >>> tags_to_spans(["S-LOC", "O", "B-PER", "E-PER"], "BIOES")
    [Entity(type='LOC', start=0, end=1), Entity(type='PER', start=2, end=4)]
    """
    illegal = illegal_transitions(tags, scheme)
    if illegal:
        first = illegal[0]
        raise ValueError(
            f"tags break {scheme} at {len(illegal)} place(s), first at word {first.position}: "
            f"{first.tag!r} may not follow {first.previous!r}"
        )
    return lenient_spans(tags)


def spans_to_tags(entities: Iterable[Entity], length: int, scheme: Scheme = "IOB2") -> list[str]:
    """Write entities as the tags of a sentence of ``length`` words.

    Raises:
        ValueError: if an entity is empty, leaves the sentence, or overlaps another one.

    >>> spans_to_tags([Entity("PER", 0, 2), Entity("PER", 2, 3)], 4, "IOB1")
    ['I-PER', 'I-PER', 'B-PER', 'O']
    """
    check_scheme(scheme)
    tags = ["O"] * length
    previous = Entity("", 0, 0)
    for entity in sorted(entities, key=lambda item: item.start):
        if not previous.end <= entity.start < entity.end <= length:
            raise ValueError(f"{entity} is empty, overlaps {previous}, or leaves a sentence of {length} words")
        for position, prefix in enumerate(_prefixes(entity, previous, scheme), entity.start):
            tags[position] = join_tag(prefix, entity.type)
        previous = entity
    return tags


def _prefixes(entity: Entity, previous: Entity, scheme: Scheme) -> list[str]:
    """The prefixes of the words of one entity."""
    count = entity.end - entity.start
    if scheme == "IOB1":
        touches = previous.end > previous.start and previous.end == entity.start and previous.type == entity.type
        return ["B" if touches else "I"] + ["I"] * (count - 1)
    if scheme == "IOB2":
        return ["B"] + ["I"] * (count - 1)
    last, single = ("E", "S") if scheme == "BIOES" else ("L", "U")
    return [single] if count == 1 else ["B"] + ["I"] * (count - 2) + [last]


def convert(tags: Sequence[str], source: Scheme, target: Scheme) -> list[str]:
    """Rewrite the tags of one sentence in another scheme; the entities stay the same.

    Raises:
        ValueError: if ``tags`` break ``source``.

    >>> convert(["I-PER", "I-PER", "B-PER", "O"], "IOB1", "BIOES")
    ['B-PER', 'E-PER', 'S-PER', 'O']
    """
    return spans_to_tags(tags_to_spans(tags, source), len(tags), target)


@dataclass(frozen=True)
class SchemeFit:
    """How well the best scheme fits: the places that break it, and the sentence and transition of the first of them."""

    scheme: Scheme
    illegal_count: int
    sentence: int
    transition: IllegalTransition | None


def nearest_scheme(tag_sequences: Iterable[Sequence[str]]) -> SchemeFit:
    """The scheme that the tags break at the fewest places; of equals, the first of IOB2, IOB1, BIOES, BILOU.

    Raises:
        ValueError: if something is no tag at all.
    """
    sequences = [list(tags) for tags in tag_sequences]
    order: tuple[Scheme, ...] = ("IOB2", "IOB1", "BIOES", "BILOU")
    fits = []
    for scheme in order:
        fits.append(_fit(sequences, scheme))
        if fits[-1].illegal_count == 0:
            return fits[-1]
    return min(fits, key=lambda fit: fit.illegal_count)


def _fit(sequences: list[list[str]], scheme: Scheme) -> SchemeFit:
    found = [(number, place) for number, tags in enumerate(sequences) for place in illegal_transitions(tags, scheme)]
    if not found:
        return SchemeFit(scheme, 0, 0, None)
    return SchemeFit(scheme, len(found), *found[0])


def detect_scheme(tag_sequences: Iterable[Sequence[str]]) -> Scheme:
    """Find the scheme of a whole file from the tags of its sentences.

    The rule: the scheme must allow every transition of every sentence, and of those that do, the first of IOB2, IOB1,
    BIOES, BILOU is taken. Any entity at all settles it: its first word begins with ``B`` in IOB2, with ``I`` in
    IOB1, and with an ``E`` or ``S`` (``L`` or ``U``) to come in the others. Several schemes fit only where no entity
    occurs, and then IOB2 is as good as any. Tags that use ``I`` alone (the IO scheme) are IOB1.

    Raises:
        DataError: if no scheme fits; the message shows, for the scheme that comes nearest, the first illegal place.
        ValueError: if something is no tag at all.

    >>> detect_scheme([["I-PER", "O"]]), detect_scheme([["B-PER", "O"]]), detect_scheme([["U-PER", "O"]])
    ('IOB1', 'IOB2', 'BILOU')
    """
    fit = nearest_scheme(tag_sequences)
    if fit.transition is not None:
        raise DataError(
            f"the tags fit none of {', '.join(SCHEMES)}; {fit.scheme} comes nearest, broken at {fit.illegal_count} "
            f"place(s), first in sentence {fit.sentence}, word {fit.transition.position}: "
            f"{fit.transition.tag!r} may not follow {fit.transition.previous!r}"
        )
    return fit.scheme
