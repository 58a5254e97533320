"""Windows: every word scored exactly once, whatever the sentence and the limit."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.text.windows import Window, plan_windows

size_lists = st.lists(st.one_of(st.integers(0, 4), st.integers(0, 40)), max_size=60)
capacities = st.integers(1, 30)


@given(size_lists, capacities)
def test_every_word_is_scored_in_exactly_one_window(sizes: list[int], capacity: int) -> None:
    windows = plan_windows(sizes, capacity)
    scored = [word for window in windows for word in range(window.scored_start, window.scored_stop)]
    assert scored == list(range(len(sizes)))
    for window in windows:
        assert window.start <= window.scored_start <= window.scored_stop <= window.stop
        assert window.scored_start < window.scored_stop or not sizes
        read = [min(size, capacity) for size in sizes[window.start : window.stop]]
        assert sum(read) <= capacity


@given(size_lists, capacities)
def test_a_word_is_scored_where_its_poorer_side_is_richest(sizes: list[int], capacity: int) -> None:
    windows = plan_windows(sizes, capacity)
    pieces = [min(size, capacity) for size in sizes]

    def poorer_side(word: int, window: Window) -> int:
        return min(sum(pieces[window.start : word]), sum(pieces[word + 1 : window.stop]))

    for window in windows:
        for word in range(window.scored_start, window.scored_stop):
            readers = [other for other in windows if other.start <= word < other.stop]
            assert poorer_side(word, window) == max(poorer_side(word, other) for other in readers)


@given(size_lists, st.integers(0, 20))
def test_what_fits_is_one_window(sizes: list[int], spare: int) -> None:
    capacity = max(sum(sizes) + spare, 1)
    assert plan_windows(sizes, capacity) == [Window(0, len(sizes), 0, len(sizes))]


@given(st.integers(10, 400), st.integers(4, 40))
def test_words_of_one_piece_have_context_of_about_a_quarter_window(count: int, capacity: int) -> None:
    """Windows overlap by half, so that a word far from the ends of the sentence sees a quarter on either side."""
    for window in plan_windows([1] * count, capacity):
        for word in range(window.scored_start, window.scored_stop):
            left, right = word - window.start, window.stop - word - 1
            assert left >= min(word, capacity // 4 - 1)
            assert right >= min(count - word - 1, capacity // 4 - 1)


def test_hundred_thousand_words_in_linear_time() -> None:
    """Takes a fraction of a second; quadratic work would take minutes."""
    begin = time.perf_counter()
    for sizes in ([1] * 100_000, [3, 0, 1, 700] * 25_000):
        assert plan_windows(sizes, 510)[-1].scored_stop == 100_000
    assert time.perf_counter() - begin < 10


def test_no_room() -> None:
    with pytest.raises(ValueError, match="at least one piece"):
        plan_windows([1], 0)


def test_of_equals_the_first_window_scores() -> None:
    """The middle word of three stands at an edge of both windows."""
    assert plan_windows([1, 1, 1], 2) == [Window(0, 2, 0, 2), Window(1, 3, 2, 3)]
