"""The one scheme that the tags of files are in, and sentences rewritten in another one."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from minitl.errors import DataError
from minitl.text.conll import Sentence
from minitl.text.schemes import (
    IllegalTransition,
    Scheme,
    convert,
    illegal_transitions,
    lenient_spans,
    nearest_scheme,
    spans_to_tags,
)

_FIX = "correct the tags, or let minitl convert --repair do it"


def common_scheme(sentences: Sequence[Sentence], asked: Scheme | None = None) -> Scheme:
    """The scheme of all sentences together: ``asked``, if it is that, or the first that fits.

    Raises:
        DataError: naming ``file:line`` of the first place that breaks the scheme that was asked for or comes nearest.
    """
    if asked is not None:
        for sentence in sentences:
            for transition in illegal_transitions(sentence.tags or (), asked)[:1]:
                place, found = _place_and_fault(sentence, transition)
                raise DataError(f"{place}: expected tags in {asked}, but {found}; {_FIX}")
        return asked
    fit = nearest_scheme(sentence.tags or () for sentence in sentences)
    if fit.transition is None:
        return fit.scheme
    place, found = _place_and_fault(sentences[fit.sentence], fit.transition)
    raise DataError(
        f"{place}: expected tags of one scheme (IOB1, IOB2, BIOES or BILOU) in all files; {fit.scheme} comes nearest, "
        f"but {found} (the first of {fit.illegal_count} such places); {_FIX}"
    )


def _place_and_fault(sentence: Sentence, transition: IllegalTransition) -> tuple[str, str]:
    at_end = transition.position == len(sentence.words)
    fault = "the sentence ends" if at_end else f"{transition.tag!r} may not come"
    return sentence.place(transition.position - at_end), f"{fault} after {transition.previous!r}"


def in_scheme(sentences: Iterable[Sentence], source: Scheme, target: Scheme) -> list[Sentence]:
    """Rewrite the tags of sentences, which are legal in ``source``; the entities stay the same."""
    return [replace(one, tags=tuple(convert(one.tags or (), source, target))) for one in sentences]


def repaired(sentences: Iterable[Sentence], target: Scheme) -> list[Sentence]:
    """Write the entities of tags, legal or not, by the chunk rules of conlleval, as legal tags."""
    return [
        replace(one, tags=tuple(spans_to_tags(lenient_spans(one.tags or ()), len(one.words), target)))
        for one in sentences
    ]
