"""Requests that come together are tagged together and answered apart; what cannot be served is refused in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from types import SimpleNamespace

import pytest
from fake_tagger import FakeTagger, spans
from hypothesis import given
from hypothesis import strategies as st

import minitl
from minitl.kernels.select import select
from minitl.models.tagging import Span
from minitl.serving import batching
from minitl.serving.batching import Batcher, TaggingFailed, Unavailable

Make = Callable[..., Batcher]


@pytest.fixture
def make(tagger: FakeTagger) -> Iterator[Make]:
    """Make a batcher with other limits."""
    made: list[Batcher] = []

    def build(**options: float) -> Batcher:
        made.append(Batcher(tagger, **options))  # type: ignore[arg-type]
        return made[-1]

    yield build
    tagger.free.set()
    assert all(batcher.close(10) for batcher in made)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(40) as executor:
        yield executor


def held(
    tagger: FakeTagger, batcher: Batcher, pool: ThreadPoolExecutor, text: str = "Held"
) -> Future[list[list[Span]]]:
    """Keep the worker busy with one text."""
    tagger.free.clear()
    future = pool.submit(batcher.tag, [text], 20)
    assert tagger.busy.wait(10)
    return future


def waiting(batcher: Batcher, requests: int) -> None:
    """Wait until so many requests have been accepted and are not answered."""
    end = time.monotonic() + 10
    while batcher.counts()["waiting"] != requests:
        assert time.monotonic() < end, batcher.counts()
        time.sleep(0.001)


def test_one_request(make: Make, tagger: FakeTagger) -> None:
    batcher = make()
    assert batcher.tag(["Ada met Ben", "", "nobody"], 10) == [spans("Ada met Ben"), [], []]
    assert tagger.batches == [["Ada met Ben", "", "nobody"]]
    assert batcher.tag([], 10) == []
    counts = {"requests": 2, "refused": 0, "late": 0, "failed": 0, "texts": 3, "batches": 1, "waiting": 0}
    assert batcher.counts() == counts


def test_concurrent_requests_are_tagged_together_and_answered_apart(
    make: Make, tagger: FakeTagger, pool: ThreadPoolExecutor
) -> None:
    batcher = make(wait_seconds=0)
    first = held(tagger, batcher, pool)
    texts = [f"Name {'x' * number} Other" for number in range(30)]
    futures = [pool.submit(batcher.tag, [text, text + " End"], 20) for text in texts[:15]]
    waiting(batcher, 16)
    tagger.free.set()
    assert first.result() == [spans("Held")]
    for text, future in zip(texts, futures, strict=False):
        assert future.result() == [spans(text), spans(text + " End")]
    assert len(tagger.batches) == 2, "one while the others came, and one for all of those"


def test_the_first_text_waits_for_company(make: Make, tagger: FakeTagger, pool: ThreadPoolExecutor) -> None:
    batcher = make(wait_seconds=10, batch_texts=3)
    futures = [pool.submit(batcher.tag, ["Ada"], 20) for _ in range(3)]
    assert [future.result(timeout=5) for future in futures] == [[spans("Ada")]] * 3, "a full batch does not wait"
    assert tagger.batches == [["Ada"] * 3]


def test_but_not_for_long(make: Make, tagger: FakeTagger) -> None:
    batcher = make(wait_seconds=0.2)
    began = time.monotonic()
    batcher.tag(["Ada"], 20)
    assert 0.2 <= time.monotonic() - began < 5


@given(
    requests=st.lists(st.lists(st.text("AZaz ", max_size=12), max_size=5), max_size=6),
    most_texts=st.integers(1, 4),
    most_characters=st.integers(1, 20),
)
def test_batches_keep_their_limits_and_every_text_gets_its_own_answer(
    requests: list[list[str]], most_texts: int, most_characters: int
) -> None:
    tagger = FakeTagger()
    batcher = Batcher(tagger, batch_texts=most_texts, batch_characters=most_characters, wait_seconds=0.001)
    answers: dict[int, list[list[Span]]] = {}
    threads = [
        threading.Thread(target=lambda number=number, texts=texts: answers.update({number: batcher.tag(texts, 20)}))
        for number, texts in enumerate(requests)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert batcher.close(10)
    assert answers == {number: [spans(text) for text in texts] for number, texts in enumerate(requests)}
    for batch in tagger.batches:
        assert 1 <= len(batch) <= most_texts
        assert len(batch) == 1 or sum(map(len, batch)) <= most_characters
    assert sorted(chain(*tagger.batches)) == sorted(chain(*requests))


def test_a_text_that_fails_hurts_nobody_else(make: Make, tagger: FakeTagger, pool: ThreadPoolExecutor) -> None:
    batcher = make()
    held(tagger, batcher, pool)
    good = [pool.submit(batcher.tag, [f"Ada {number}", "Ben"], 20) for number in range(3)]
    bad = pool.submit(batcher.tag, ["Cy", "poison", "Dan"], 20)
    waiting(batcher, 5)
    tagger.free.set()
    with pytest.raises(TaggingFailed, match="RuntimeError: a text is poisonous") as caught:
        bad.result()
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert [future.result() for future in good] == [[spans(f"Ada {number}"), spans("Ben")] for number in range(3)]
    assert batcher.counts()["failed"] == 1
    assert batcher.tag(["Eve"], 20) == [spans("Eve")], "and the worker goes on"


def test_nothing_is_left_of_a_failed_request_with_more_texts_than_a_batch(make: Make, tagger: FakeTagger) -> None:
    batcher = make(batch_texts=2, most_characters=20, most_requests=1)
    with pytest.raises(TaggingFailed):
        batcher.tag(["a", "poison", *["b" * 30] * 10], 20)
    assert batcher.tag(["Ada"], 20) == [spans("Ada")]
    assert (batcher._texts, batcher._characters, len(batcher._waiting)) == (0, 0, 0)
    assert "b" * 30 not in chain(*tagger.batches), "the rest is not tagged in vain"


def test_a_tagger_that_loses_a_text_is_a_failure() -> None:
    batcher = Batcher(lambda texts: [])
    with pytest.raises(TaggingFailed, match="returned 0 lists for 1 texts"):
        batcher.tag(["Ada"], 20)
    assert batcher.close(10)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [({"most_requests": 2}, "2 requests wait"), ({"most_characters": 10}, "texts of 8 characters wait")],
)
def test_a_full_queue_refuses_at_once(
    make: Make, tagger: FakeTagger, pool: ThreadPoolExecutor, limits: dict[str, int], reason: str
) -> None:
    batcher = make(**limits)
    first = held(tagger, batcher, pool)
    second = pool.submit(batcher.tag, ["x" * 8], 20)
    waiting(batcher, 2)
    began = time.monotonic()
    with pytest.raises(Unavailable, match=reason):
        batcher.tag(["yyy"], 20)
    assert time.monotonic() - began < 1
    tagger.free.set()
    first.result()
    second.result()
    assert batcher.counts()["refused"] == 1
    assert batcher.tag(["z" * 50], 20) == [[]], "one request is taken whatever its size"


def test_who_waited_too_long_is_refused_and_not_tagged(
    make: Make, tagger: FakeTagger, pool: ThreadPoolExecutor
) -> None:
    batcher = make()
    first = held(tagger, batcher, pool)
    with pytest.raises(Unavailable, match=r"no answer within 0\.05 s"):
        batcher.tag(["late"], 0.05)
    tagger.free.set()
    first.result()
    batcher.tag(["Ada"], 20)
    assert tagger.batches == [["Held"], ["Ada"]]
    assert batcher.counts()["late"] == 1
    assert (batcher._texts, batcher._characters, len(batcher._open)) == (0, 0, 0)


def test_who_is_late_while_tagged_is_forgotten_too(make: Make, tagger: FakeTagger) -> None:
    batcher = make()
    tagger.free.clear()
    with pytest.raises(Unavailable):
        batcher.tag(["late"], 0.05)
    tagger.free.set()
    assert batcher.tag(["Ada"], 20) == [spans("Ada")]
    assert batcher.counts()["waiting"] == 0


def test_closing_finishes_what_waits_and_refuses_the_rest(
    make: Make, tagger: FakeTagger, pool: ThreadPoolExecutor
) -> None:
    batcher = make(wait_seconds=60)
    futures = [held(tagger, make(), pool)]
    futures.append(pool.submit(batcher.tag, ["Ada"], 20))
    waiting(batcher, 1)
    closing = pool.submit(batcher.close, 20)
    while batcher.is_working:
        time.sleep(0.001)
    with pytest.raises(Unavailable, match="being stopped"):
        batcher.tag(["Ben"], 20)
    tagger.free.set()
    assert closing.result() is True
    assert futures[1].result() == [spans("Ada")]


def test_closing_does_not_wait_for_ever(make: Make, tagger: FakeTagger, pool: ThreadPoolExecutor) -> None:
    batcher = make()
    held(tagger, batcher, pool)
    assert batcher.close(0.05) is False
    tagger.free.set()


def test_the_worker_has_the_context_of_its_maker() -> None:
    seen: list[str] = []

    def tag_texts(texts: Sequence[str]) -> list[list[Span]]:
        seen.append(select("matmul", "cpu").__name__)
        return [[] for _ in texts]

    with minitl.use_kernels("reference"):
        batcher = Batcher(tag_texts)
    batcher.tag(["Ada"], 20)
    assert batcher.close(10)
    assert seen == ["minitl.kernels.matmul.reference"]


def test_short_texts_go_between_the_steps_of_a_long_one(
    make: Make, tagger: FakeTagger, pool: ThreadPoolExecutor
) -> None:
    batcher = make(batch_characters=10, batch_texts=2)
    long = held(tagger, batcher, pool, "Long " * 9)
    other = pool.submit(batcher.tag, ["Next " * 9], 20)
    waiting(batcher, 2)
    short = [pool.submit(batcher.tag, [name], 20) for name in ("Ada", "Ben", "Cy")]
    both = pool.submit(batcher.tag, ["Dan", "Last " * 9], 20)
    waiting(batcher, 6)
    tagger.free.set()
    assert long.result() == [spans("Long " * 9)]
    assert [future.result() for future in short] == [[spans("Ada")], [spans("Ben")], [spans("Cy")]]
    assert other.result() == [spans("Next " * 9)]
    assert both.result() == [spans("Dan"), spans("Last " * 9)]
    assert tagger.batches[0] == ["Long " * 9]
    assert sorted(chain(*tagger.batches[1:3])) == ["Ada", "Ben", "Cy", "Dan"], "before any other long one"
    assert (batcher._texts, batcher._characters, len(batcher._waiting)) == (0, 0, 0)


def test_short_texts_do_not_hold_up_a_long_one(
    make: Make, tagger: FakeTagger, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They get as much time as it has had."""
    monkeypatch.setattr(batching, "time", SimpleNamespace(monotonic=lambda: tagger.clock))
    batcher = make(batch_characters=10, batch_texts=1)
    tagger.steps = 100
    long = held(tagger, batcher, pool, "Long " * 9)
    short = [pool.submit(batcher.tag, ["Ada"], 20) for _ in range(30)]
    waiting(batcher, 31)
    tagger.free.set()
    assert long.result() == [spans("Long " * 9)]
    assert [future.result() for future in short] == [[spans("Ada")]] * 30
    assert tagger.done == [1 + 6], "after 0, 1, 2, 3, 4 and 5 seconds for the short ones it was their turn"


def test_a_long_text_for_which_nobody_waits_is_given_up(make: Make, tagger: FakeTagger) -> None:
    batcher = make(batch_characters=10)
    tagger.steps = 10**9
    with pytest.raises(Unavailable, match="no answer"):
        batcher.tag(["Long " * 9], 0.05)
    assert batcher.tag(["Ada"], 20) == [spans("Ada")], "or the worker would be busy for ever"
    assert batcher.counts()["failed"] == 0


def test_a_text_that_fails_between_the_steps_of_a_long_one_hurts_nobody(
    make: Make, tagger: FakeTagger, pool: ThreadPoolExecutor
) -> None:
    batcher = make(batch_characters=10)
    long = held(tagger, batcher, pool, "Long " * 9)
    bad = pool.submit(batcher.tag, ["poison"], 20)
    waiting(batcher, 2)
    tagger.free.set()
    with pytest.raises(TaggingFailed, match="poisonous"):
        bad.result()
    assert long.result() == [spans("Long " * 9)]
