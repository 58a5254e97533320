"""Long sentences: overlapping windows that together score every word exactly once.

A model reads at most ``max_length`` pieces. A longer sentence is read several times, in windows that overlap by up to
half, so that a word at the edge of one window stands in the middle of another. Each word is scored in one window
alone, the one in which its poorer side (the fewer pieces of left and right) is richest; of equals, the first.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class Window:
    """Words ``start`` to ``stop`` are read, words ``scored_start`` to ``scored_stop`` scored; both ends exclusive."""

    start: int
    stop: int
    scored_start: int
    scored_stop: int


def plan_windows(sizes: Sequence[int], capacity: int) -> list[Window]:
    """Cover a sentence with windows; a sentence that fits has one.

    Args:
        sizes: number of pieces of each word, 0 for a word that vanishes; a word larger than ``capacity`` counts as
            ``capacity``, because only that many of its pieces can be read.
        capacity: how many pieces a window holds, without [CLS] and [SEP].

    Returns:
        Windows in order. Each one starts and ends between words, holds at most ``capacity`` pieces, and scores at least
        one word; every word is scored in exactly one of them. The work is linear in the number of words.

    Raises:
        ValueError: if ``capacity`` is less than 1.

    >>> plan_windows([1, 1, 1, 1, 1, 1], 4)
    [Window(start=0, stop=4, scored_start=0, scored_stop=3), Window(start=2, stop=6, scored_start=3, scored_stop=6)]
    """
    if capacity < 1:
        raise ValueError(f"a window must hold at least one piece besides [CLS] and [SEP], found capacity {capacity}")
    ends = list(accumulate((min(size, capacity) for size in sizes), initial=0))  # ends[i]: pieces before word i
    reads = _reading_ranges(ends, capacity)
    windows = []
    scored_start = 0
    for number, (start, stop) in enumerate(reads):
        following = reads[number + 1] if number + 1 < len(reads) else None
        scored_stop = _handover(ends, (start, stop), following, scored_start)
        if scored_stop > scored_start or not sizes:
            windows.append(Window(start, stop, scored_start, scored_stop))
        scored_start = scored_stop
    return windows


def _reading_ranges(ends: list[int], capacity: int) -> list[tuple[int, int]]:
    """Which words each window reads. ``ends[i]`` is the number of pieces before word ``i``."""
    count = len(ends) - 1
    ranges = []
    start = 0
    while True:
        stop = bisect_right(ends, ends[start] + capacity, lo=start) - 1
        if stop == count:
            # The last window reaches as far back as it can: its first words profit from the context.
            ranges.append((bisect_left(ends, ends[count] - capacity), count))
            return ranges
        ranges.append((start, stop))
        # The next one repeats at most half a window, and no more than leaves room for the word that did not fit.
        repeated = min(capacity // 2, capacity - (ends[stop + 1] - ends[stop]))
        start = max(start + 1, bisect_left(ends, ends[stop] - repeated))


def _handover(ends: list[int], read: tuple[int, int], following: tuple[int, int] | None, scored_start: int) -> int:
    """The first word, from ``scored_start`` on, that ``read`` leaves to the window that follows.

    Going right, the left side grows and the right side shrinks; once the following window is the better one it stays
    so, hence one point divides the words.
    """
    start, stop = read
    if following is None:
        return stop
    for word in range(max(scored_start, following[0]), stop):
        here = min(ends[word] - ends[start], ends[stop] - ends[word + 1])
        there = min(ends[word] - ends[following[0]], ends[following[1]] - ends[word + 1])
        if there > here:
            return word
    return stop
