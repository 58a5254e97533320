"""From one format or scheme to another: what stays, what changes, what is said to be lost."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.errors import DataError
from minitl.text import SCHEMES, Reading, Scheme, convert_file, load_corpus
from minitl.text.conll import conll_text
from minitl.text.formats import FORMATS, Format
from minitl.text.one_scheme import in_scheme
from minitl.text.schemes import Entity, spans_to_tags

CONLL = (
    b"\xef\xbb\xbf-DOCSTART- -X- O O\r\n\r\nEU  NNP I-NP   I-ORG \r\nrejects VBZ I-VP O\r\n \r\nParis\tNNP\tI-NP\tI-LOC"
)


def test_a_conll_file_keeps_all_but_its_tags() -> None:
    done = convert_file(CONLL, "f", "conll", "conll", "BIOES")
    assert done.text == "-DOCSTART- -X- O O\n\nEU  NNP I-NP   S-ORG \nrejects VBZ I-VP O\n \nParis\tNNP\tI-NP\tS-LOC\n"
    assert done.notes == ("2 sentences, 3 words, entities: 2, IOB1 tags written as BIOES",)


def test_other_columns_of_a_conll_file() -> None:
    content = b"B-X a O 1\nI-X b O 2\n"
    done = convert_file(content, "f", "conll", "conll", "BILOU", Reading(word_column=1, tag_column=0))
    assert done.text == "B-X a O 1\nL-X b O 2\n"
    assert (
        convert_file(content, "f", "conll", "conll", "BIOES", Reading(word_column=1, tag_column=-4)).text
        == "B-X a O 1\nE-X b O 2\n"
    )
    done = convert_file(content, "f", "conll", "jsonl", None, Reading(word_column=1, tag_column=0))
    assert (
        done.text
        == '{"text": "a b", "words": ["a", "b"], "entities": [{"start": 0, "end": 3, "label": "X", "text": "a b"}]}\n'
    )
    assert done.notes[1:] == ("left out: 2 columns beside words and tags",)


UNIVERSAL = """# sent_id = 1
# text = du Havre
1-2\tdu\t_\t_\t_\t_\t_\t_\t_\tLang=fr
1\tde\tde\tADP\t_\t_\t3\tcase\t_\tname=O
2\tle\tle\tDET\t_\tGender=Masc\t3\tdet\t_\tname=B-LOC
3\tHavre\tHavre\tPROPN\t_\t_\t0\troot\t_\tLang=fr|name=I-LOC|SpaceAfter=No
4\t!\t!\tPUNCT\t_\t_\t3\tpunct\t_\t_
"""


def test_a_conllu_file_keeps_all_but_its_tags() -> None:
    done = convert_file(UNIVERSAL.encode(), "f", "conllu", "conllu", "BIOES")
    expected = UNIVERSAL.replace("name=I-LOC", "name=E-LOC").replace("punct\t_\t_", "punct\t_\tname=O")
    assert done.text == expected
    assert done.notes == ("1 sentence, 4 words, entities: 1, IOB2 tags written as BIOES",)


def test_what_conll_has_no_place_for() -> None:
    done = convert_file(UNIVERSAL.encode(), "f", "conllu", "conll")
    assert done.text == "du\tB-LOC\nHavre\tI-LOC\n!\tO\n\n"
    assert done.notes[1:] == (
        "left out: lemmas, parts of speech, features, heads, relations",
        "left out: MISC keys 'Lang'",
        "left out: the parts of words that are written as one: 1",
        "left out: white space other than one blank between words, in 1 text",
    )


def test_a_jsonl_file_keeps_its_other_keys() -> None:
    content = (
        '{"id": 1, "words": ["a", "b"], "ner_tags": ["B-X", "I-X"], "more": {"x": null}}\n'
        '{"text": "", "label": []}\n{"text": "a  b", "label": [[0, 1, "X"]], "id": 2}\n'
    )
    done = convert_file(content.encode(), "f", "jsonl", "jsonl", "BIOES")
    assert done.text == (
        '{"id": 1, "words": ["a", "b"], "ner_tags": ["B-X", "E-X"], "more": {"x": null}}\n{"text": "", "label": []}\n'
        '{"text": "a  b", "words": ["a", "b"], "entities": [{"start": 0, "end": 1, "label": "X", "text": "a"}], '
        '"id": 2}\n'
    )
    done = convert_file(content.encode(), "f", "jsonl", "conll")
    assert done.text == "a\tB-X\nb\tI-X\n\na\tB-X\nb\tO\n\n"
    assert done.notes[1:] == (
        "left out: keys 'id', 'more'",
        "left out: 1 text without a word",
        "left out: white space other than one blank between words, in 1 text",
    )


def test_illegal_tags_are_an_error_or_repaired() -> None:
    content = b"a S-X\n\nb O\nc I-X\nd I-Y\n"
    with pytest.raises(DataError, match=r"^f:4: expected tags in IOB2, but 'I-X' may not come after 'O'; correct"):
        convert_file(b"a B-X\n\nb O\nc I-X\nd I-Y\n", "f", "conll", "conll", None, Reading(scheme="IOB2"))
    done = convert_file(content, "f", "conll", "conll", "IOB2", Reading(repair=True))
    assert done.text == "a B-X\n\nb O\nc B-X\nd B-Y\n"
    assert done.notes[1:] == ("1 place where tags break IOB1, read by the rules of conlleval",)


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("conll", b"\n", "f: expected sentences, found none"),
        ("conllu", b"\n", "f: expected sentences, found none"),
        ("jsonl", b"", "f: expected sentences, found none"),
        ("conll", b"a\xff O\n", "f:1: expected UTF-8, found byte 0xff at byte offset 1"),
        ("jsonl", b'{"text": "ab", "entities": [[0, 1, "X"]]}', "f:1: expected entities made of whole words"),
        (
            "jsonl",
            b'{"words": ["O"], "tags": ["O"]}\n{"words": ["a", "b c\\td"], "tags": ["O", "O"]}',
            "f:2: 'b c\\td'",
        ),
    ],
)
def test_errors_name_the_place(kind: Format, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match="^" + re.escape(message)):
        convert_file(content, "f", kind, "conll")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_corpus_through_any_format_and_scheme_and_back(kind: Format, scheme: Scheme) -> None:
    plain = conll_text(in_scheme(load_corpus().dev, "IOB2", "IOB2"))
    there = convert_file(plain.encode(), "f", "conll", kind, scheme)
    assert not [note for note in there.notes if "left out" in note]
    back = convert_file(there.text.encode(), "f", kind, "conll", "IOB2")
    assert back.text == plain


@given(st.data())
def test_any_entities_through_all_formats_and_schemes(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 8))
    edges = sorted(data.draw(st.sets(st.integers(0, length), max_size=6)))
    names = st.sampled_from(["A", "B-B"])
    entities = [Entity(data.draw(names), a, b) for a, b in zip(edges[::2], edges[1::2], strict=False)]
    first: Scheme = data.draw(st.sampled_from(SCHEMES))
    content = "".join(f"w{number}\t{tag}\n" for number, tag in enumerate(spans_to_tags(entities, length, first))) + "\n"
    kind: Format = "conll"
    text, scheme = content, first
    for step in range(4):
        target: Format = "conll" if step == 3 else data.draw(st.sampled_from(FORMATS))
        wanted: Scheme = first if step == 3 else data.draw(st.sampled_from(SCHEMES))
        reading = Reading(scheme=scheme if kind != "jsonl" else "IOB2")
        text = convert_file(text.encode(), "f", kind, target, wanted, reading).text
        kind, scheme = target, wanted
    assert text == content
