"""Raw text to words: the rules by example, the places by property."""

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.text.words import split_words


def words(text: str) -> list[str]:
    return [word.text for word in split_words(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Angela Merkel visited Paris.", "Angela Merkel visited Paris ."),
        ("The U.S. club won 3-2, at last!", "The U.S. club won 3-2 , at last !"),
        ("O'Brien's well-known (1,000.5%) plan", "O'Brien 's well-known ( 1,000.5 % ) plan"),
        ("Mr. J. Smith met Dr. K.", "Mr. J. Smith met Dr. K ."),
        ("the Rangers' win... and -- so", "the Rangers ' win ... and -- so"),
        ("AT&T at 10:30 on 1996-08-22", "AT&T at 10:30 on 1996-08-22"),
        ("It\u2019s \u201cfine\u201d, don\u2019t worry", "It \u2019s \u201c fine \u201d , don\u2019t worry"),
        ("a, b;c", "a , b ; c"),
        ("Cafe\u0301 हिन्दी", "Cafe\u0301 हिन्दी"),
        ("東京に", "東 京 に"),
        ("he said no.", "he said no ."),
        ("@anna likes #minitl", "@anna likes #minitl"),
    ],
)
def test_examples(text: str, expected: str) -> None:
    assert words(text) == expected.split(" ")


texts = st.one_of(st.text(), st.text(st.sampled_from("aSs1.,'-:& \t\n\u200b\u0301\u2019東@(\u00a0")))


@given(texts)
def test_places_are_exact_and_only_whitespace_is_left_out(text: str) -> None:
    position = 0
    for word in split_words(text):
        assert text[position : word.start].strip() == ""
        assert position <= word.start < word.end
        assert text[word.start : word.end] == word.text
        assert not any(character.isspace() for character in word.text)
        position = word.end
    assert text[position:].strip() == ""


@given(st.text(st.sampled_from("abcDEF019"), min_size=1), st.text(st.sampled_from("abcDEF019"), min_size=1))
def test_inner_hyphens_and_apostrophes_stay(left: str, right: str) -> None:
    for inner in ("-", "'x", "."):
        assert words(left + inner + right) == [left + inner + right]


@pytest.mark.parametrize("unit", ["a.", "'s", "1,", "a'", ".", "-a", "a.b", "a\u0301", "@", "aaa "])
def test_time_is_linear(unit: str) -> None:
    """Fifty thousand repetitions take a few tenths of a second; quadratic work would take minutes."""
    begin = time.perf_counter()
    split_words(unit * 50_000)
    assert time.perf_counter() - begin < 5


@pytest.mark.parametrize("unit", ["a-", "a.", "1,", "a\u0301", "a'"])
def test_memory_of_one_long_word_is_a_few_bytes_for_each_character(unit: str) -> None:
    text = unit * 200_000
    tracemalloc.start()
    words = split_words(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(words) <= 2
    # A pointer for each character while the classes are joined, and the classes; what could be given back takes 80.
    assert peak < 20 * len(text)
