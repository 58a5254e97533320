"""Reading and writing JSON lines: one object a line, with a text and its entities, or with words and their tags.

::

    {"text": "Angela Merkel visited Paris.", "entities": [{"start": 0, "end": 13, "label": "PER"}]}
    {"words": ["Paris", "slept"], "tags": ["B-LOC", "O"]}

``minitl predict`` writes both. Other tools have other names for the same, and these are read, too: ``spans``,
``label`` or ``labels`` for ``entities`` (an entity may be ``[0, 13, "PER"]``), ``tokens`` for ``words``, ``ner_tags``
for ``tags`` (as strings). Where an object has both a text and words, the words must be those of the text.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any

from minitl import strict_json
from minitl.errors import DataError
from minitl.text.conll import Sentence, checked_tag, escaped, shown
from minitl.text.lines import read_lines
from minitl.text.schemes import lenient_spans, spans_to_tags
from minitl.text.spans import CharacterSpan, Misaligned, locate_words, words_of_spans
from minitl.text.words import split_words

ENTITY_KEYS = ("entities", "spans", "label", "labels")
WORD_KEYS = ("words", "tokens")
TAG_KEYS = ("tags", "ner_tags")
KNOWN_KEYS = ("text", "document", *ENTITY_KEYS, *WORD_KEYS, *TAG_KEYS)
# Legal in JSON as they are, but taken for the end of a line by some readers, or for commands by some terminals.
_ESCAPES = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029)}


def read_jsonl(path: str | PathLike[str], *, misaligned: Misaligned = "error") -> list[Sentence]:
    """Read a file of JSON lines with entities.

    Texts are split into words as ``model.tag`` does, each is one sentence. Texts without a word are left out.

    Args:
        path: the file, UTF-8.
        misaligned: what becomes of an entity that begins or ends within a word; see
            :func:`minitl.text.spans.words_of_spans`.

    Returns:
        The sentences in order, at least one. Entities come as IOB2, tags as they are.

    Raises:
        DataError: naming ``file:line``, if a line is no such object, or an entity is not in its text, overlaps another
            one or is misaligned.
    """
    sentences = list(stream_jsonl(read_lines(path), str(path), misaligned=misaligned))
    if not sentences:
        raise DataError(f"{path}: expected sentences, a JSON object in each line, found none")
    return sentences


def stream_jsonl(lines: Iterable[str], source: str, *, misaligned: Misaligned = "error") -> Iterator[Sentence]:
    """Yield the sentences of JSON lines as they come in; see :func:`read_jsonl`."""
    for number, line in enumerate(lines, 1):
        where = f"{source}:{number}"
        values = object_of(line, where)
        try:
            words, tags, text = _words_and_tags(values, misaligned)
        except ValueError as error:
            raise DataError(f"{where}: {error}") from None
        document = values.get("document", 0)
        if type(document) is not int or document < 0:
            raise DataError(f'{where}: expected "document", a whole number from 0, found {shown(document)}')
        if words:
            lines_of_words = (number,) * len(words)
            yield Sentence(tuple(words), tuple(tags), document, source, number, text, lines_of_words)


def object_of(line: str, where: str) -> dict[str, Any]:
    """Read the object of one line; a DataError that begins with ``where`` if there is none."""
    if not line.strip():
        raise DataError(f"{where}: expected a JSON object, found an empty line")
    try:
        return strict_json.parse_object(line.encode(), where)
    except ValueError as error:
        raise DataError(str(error)) from None


def _words_and_tags(
    values: Mapping[str, Any], misaligned: Misaligned
) -> tuple[Sequence[str], Sequence[str], str | None]:
    text_key, entity_key = _only(values, ("text",)), _only(values, ENTITY_KEYS)
    word_key, tag_key = _only(values, WORD_KEYS), _only(values, TAG_KEYS)
    text = values[text_key] if text_key else None
    if text is not None and not isinstance(text, str):
        raise ValueError(f'expected "text", a string, found {shown(text)}')
    words = _strings(values, word_key) if word_key else None
    if tag_key and entity_key:
        raise ValueError(f'expected one of "{tag_key}" and "{entity_key}", found both')
    if tag_key:
        tags = [checked_tag(tag) for tag in _strings(values, tag_key)]
        if words is None or len(words) != len(tags) or not all(words):
            raise ValueError(f'expected a word for each of {len(tags)} tags, in "words", found {shown(words)}')
        if text is not None:
            locate_words(text, words)
        return words, tags, text
    if not entity_key or text is None:
        raise ValueError(
            'expected "text" and "entities" (a list, [] if there are none), or "words" and "tags", '
            f"found {', '.join(map(escaped, values)) or 'nothing'}"
        )
    places = split_words(text) if words is None else locate_words(text, words)
    spans = [_span(item, text) for item in _list(values, entity_key)]
    parts, entities = words_of_spans(text, places, spans, misaligned=misaligned)
    return [word.text for word in parts], spans_to_tags(entities, len(parts)), text


def _span(item: Any, text: str) -> CharacterSpan:
    if isinstance(item, list) and len(item) == 3:
        item = dict(zip(("start", "end", "label"), item, strict=True))
    if not isinstance(item, dict) or not {"start", "end", "label"} <= item.keys():
        raise ValueError(f'expected an entity with "start", "end" and "label", or a list of them, found {shown(item)}')
    start, end, label, surface = item["start"], item["end"], item["label"], item.get("text")
    if type(start) is not int or type(end) is not int or not isinstance(label, str):
        raise ValueError(f"expected whole numbers and a string in an entity, found {shown(item)}")
    if label:
        checked_tag(f"B-{label}")
    if surface is not None and text[max(start, 0) : max(end, 0)] != surface:
        raise ValueError(
            f"expected the entity {shown(surface)} at characters {start} to {end}, "
            f"found {escaped(text[max(start, 0) : max(end, 0)])}{_other_units(text, start, end, surface)}"
        )
    return CharacterSpan(start, end, label)


def _other_units(text: str, start: int, end: int, surface: Any) -> str:
    """Say so if the place of an entity was not counted in characters."""
    for encoding, width, name in (("utf-8", 1, "bytes"), ("utf-16-le", 2, "UTF-16 units, as JavaScript counts,")):
        part = text.encode(encoding)[max(start, 0) * width : max(end, 0) * width]
        if part.decode(encoding, "replace") == surface:
            return f"; the numbers seem to count {name} not characters"
    return ""


def _only(values: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    """The one key of several with the same meaning that an object has."""
    found = [key for key in keys if key in values]
    if len(found) > 1:
        raise ValueError(f"expected one of {', '.join(map(escaped, found))}, found all of them")
    return found[0] if found else None


def _list(values: Mapping[str, Any], key: str) -> list[Any]:
    value = values[key]
    if not isinstance(value, list):
        raise ValueError(f'expected "{key}", a list, found {shown(value)}')
    return value


def _strings(values: Mapping[str, Any], key: str) -> list[str]:
    found = _list(values, key)
    for item in found:
        if not isinstance(item, str):
            raise ValueError(f'expected strings in "{key}", found {shown(item)}')
    return found


def jsonl_line(sentence: Sentence, *, with_document: bool = False) -> str:
    """One sentence as an object with its text, words and entities, without a line feed.

    The entities are those of the tags by the chunk rules of conlleval. Without a text, blanks between the words make
    one.

    >>> print(jsonl_line(Sentence(("Oh", "Li"), ("O", "B-PER"))))
    {"text": "Oh Li", "words": ["Oh", "Li"], "entities": [{"start": 3, "end": 5, "label": "PER", "text": "Li"}]}
    """
    text = " ".join(sentence.words) if sentence.text is None else sentence.text
    places = locate_words(text, sentence.words)
    entities = []
    for entity in lenient_spans(sentence.tags or ()):
        start, end = places[entity.start].start, places[entity.end - 1].end
        entities.append({"start": start, "end": end, "label": entity.type, "text": text[start:end]})
    values: dict[str, Any] = {"text": text, "words": list(sentence.words), "entities": entities}
    if with_document:
        values["document"] = sentence.document
    return dumped(values)


def retagged_jsonl(line: str, sentence: Sentence, where: str) -> str:
    """The object of a line with the entities of ``sentence``, which was read from it; what else it holds is kept.

    Tags stay tags, entities stay entities.
    """
    values = object_of(line, where)
    tag_key = _only(values, TAG_KEYS)
    if tag_key:
        return dumped({**values, tag_key: list(sentence.tags or ())})
    kept = {key: value for key, value in values.items() if key not in (*ENTITY_KEYS, *WORD_KEYS, "text")}
    return dumped({**json.loads(jsonl_line(sentence)), **kept})


def dumped(values: Mapping[str, Any]) -> str:
    """An object as one line of JSON, in UTF-8 but for signs that some readers take for the end of a line."""
    return json.dumps(values, ensure_ascii=False).translate(_ESCAPES)
