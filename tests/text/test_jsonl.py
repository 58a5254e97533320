"""JSON lines: what is read, what is refused and how the message looks."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.errors import DataError
from minitl.text import Sentence, read_jsonl
from minitl.text.jsonl import jsonl_line, stream_jsonl
from minitl.text.schemes import Entity, lenient_spans, spans_to_tags

TEXT = "Angela Merkel visited Paris."
ENTITIES = [{"start": 0, "end": 13, "label": "PER"}, {"start": 22, "end": 27, "label": "LOC", "text": "Paris"}]
WORDS, TAGS = ("Angela", "Merkel", "visited", "Paris", "."), ("B-PER", "I-PER", "O", "B-LOC", "O")


def sentence_of(values: object, **options: Any) -> Sentence:
    line = values if isinstance(values, str) else json.dumps(values)
    (sentence,) = stream_jsonl([line], "file", **options)
    return sentence


@pytest.mark.parametrize(
    "values",
    [
        {"text": TEXT, "entities": ENTITIES, "id": 7},
        {"text": TEXT, "spans": list(reversed(ENTITIES))},
        {"text": TEXT, "label": [[0, 13, "PER"], [22, 27, "LOC"]]},
        {"text": TEXT, "labels": [[0, 13, "PER"], [22, 27, "LOC"]]},
        {"text": TEXT, "words": WORDS, "entities": ENTITIES},
        {"text": TEXT, "words": WORDS, "tags": TAGS},
    ],
)
def test_all_names_of_the_same(values: dict[str, Any]) -> None:
    assert sentence_of(values) == Sentence(WORDS, TAGS, 0, "file", 1, TEXT, (1,) * 5)


@pytest.mark.parametrize("values", [{"words": WORDS, "tags": TAGS}, {"tokens": WORDS, "ner_tags": TAGS}])
def test_words_and_tags_without_a_text(values: dict[str, Any]) -> None:
    assert sentence_of(values) == Sentence(WORDS, TAGS, 0, "file", 1, None, (1,) * 5)


def test_the_place_of_any_word_is_its_line(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "", "entities": []}\n{"text": "a b", "entities": [], "document": 3}\n')
    (sentence,) = read_jsonl(path)
    assert (sentence.place(0), sentence.place(1), sentence.document) == (f"{path}:2", f"{path}:2", 3)
    path.write_text('{"text": " ", "entities": []}\n')
    with pytest.raises(
        DataError, match=re.escape(f"{path}: expected sentences, a JSON object in each line, found none")
    ):
        read_jsonl(path)


def test_given_words_decide_where_a_text_is_split() -> None:
    values = {"text": "3-2", "words": ["3", "-", "2"], "entities": [{"start": 0, "end": 1, "label": "X"}]}
    assert sentence_of(values).words == ("3", "-", "2")
    del values["words"]
    with pytest.raises(DataError, match="file:1: expected entities made of whole words, found '3'"):
        sentence_of(values)
    assert sentence_of(values, misaligned="split").words == ("3", "-2")


REFUSED = [
    ("", "expected a JSON object, found an empty line"),
    ("[1]", "must hold a JSON object"),
    ('{"text": "a"', "is not JSON (line 1, column 13"),
    ('{"text": "a", "text": "b", "entities": []}', "duplicate key 'text'"),
    (
        {"text": "a"},
        'expected "text" and "entities" (a list, [] if there are none), or "words" and "tags", found \'text\'',
    ),
    ({}, "found nothing"),
    ({"entities": []}, "found 'entities'"),
    ({"text": 3, "entities": []}, 'expected "text", a string, found 3'),
    ({"text": "a", "entities": {}}, 'expected "entities", a list, found {}'),
    ({"text": "a", "entities": [], "spans": []}, "expected one of 'entities', 'spans', found all of them"),
    ({"text": "a", "entities": [], "tags": []}, 'expected one of "tags" and "entities", found both'),
    ({"text": "a", "entities": [[0, 1]]}, 'expected an entity with "start", "end" and "label", or a list of them'),
    ({"text": "a", "entities": [[True, 1, "X"]]}, "expected whole numbers and a string in an entity"),
    ({"text": "a", "entities": [[0, 1.0, "X"]]}, "expected whole numbers and a string in an entity"),
    ({"text": "a", "entities": [[0, 2, "X"]]}, "within the 1 characters of the text, found 0 to 2"),
    ({"text": "a", "entities": [[0, 1, "\x1b[2J"]]}, "expected a tag such as O, B-PER or I-PER, found 'B-\\x1b[2J'"),
    ({"text": "a", "entities": [], "document": -1}, 'expected "document", a whole number from 0, found -1'),
    ({"words": ["a"], "tags": ["O", "O"]}, "expected a word for each of 2 tags"),
    ({"words": ["a", ""], "tags": ["O", "O"]}, "expected a word for each of 2 tags"),
    ({"words": ["a"], "tags": [3]}, 'expected strings in "tags", found 3'),
    ({"words": ["a"], "tags": ["PER"]}, "expected a tag such as O, B-PER or I-PER, found 'PER'"),
    ({"text": "a b", "words": ["a"], "tags": ["O"]}, "expected the end of the words at character 1, found ' b'"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED)
def test_refused(values: object, message: str) -> None:
    with pytest.raises(DataError, match="^file:1: .*" + re.escape(message)):
        sentence_of(values)


def test_places_that_count_something_else_are_told() -> None:
    """An emoji is one character, two UTF-16 units and four bytes."""
    text = "\U0001f600 Oslo"
    for start, hint in ((3, "UTF-16 units, as JavaScript counts,"), (5, "bytes")):
        values = {"text": text, "entities": [{"start": start, "end": start + 4, "label": "LOC", "text": "Oslo"}]}
        with pytest.raises(
            DataError, match=f"expected the entity 'Oslo' .*the numbers seem to count {hint} not characters"
        ):
            sentence_of(values)


any_word = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda word: word.strip() == word)


@given(st.lists(any_word, min_size=1, max_size=6), st.data())
def test_written_sentences_are_read_back(words: list[str], data: st.DataObject) -> None:
    edges = sorted(data.draw(st.sets(st.integers(0, len(words)), max_size=4)))
    entities = [
        Entity(data.draw(st.sampled_from(["PER", "X-Y", ""])), a, b)
        for a, b in zip(edges[::2], edges[1::2], strict=False)
    ]
    blanks = data.draw(st.lists(st.sampled_from(["", " ", "\n\u2028"]), min_size=len(words), max_size=len(words)))
    text = data.draw(st.sampled_from([None, "".join(map("".join, zip(words, blanks, strict=True)))]))
    sentence = Sentence(tuple(words), tuple(spans_to_tags(entities, len(words))), 2, text=text)
    line = jsonl_line(sentence, with_document=True)
    assert not re.search("[\n\r\x7f-\x9f\u2028\u2029]", line)
    back = sentence_of(line)
    assert (back.words, back.tags, back.document) == (sentence.words, sentence.tags, 2)
    assert back.text == (" ".join(words) if text is None else text)
    for one in json.loads(line)["entities"]:
        assert back.text[one["start"] : one["end"]] == one["text"]
    assert lenient_spans(back.tags or ()) == entities
