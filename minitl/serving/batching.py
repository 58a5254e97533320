"""Many requests, one model: a bounded queue, and one thread that tags what waits in it together.

A model is fastest with several texts at once, and its arrays are not made for several threads. So requests wait here,
each in its own thread, and the worker takes the texts of the first ones, whoever sent them, as one batch:

    request thread:  tag(texts) -> queue ... waits ... spans        (or: the queue is full, or it takes too long)
    worker thread:   waits a few milliseconds for company -> one batch -> tag_texts -> hands the spans out

A text that makes a batch fail must not hurt its neighbours: the texts of such a batch are tried again one by one.

Nor must a long text hold up the others, or they it: one that is longer than a batch is tagged by itself, in many steps,
and between two of them the worker tags short ones, for as much time in all as the long one has had. A long text for
which nobody waits any more is given up.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minitl.models.tagging import Span

TagTexts = Callable[..., "list[list[Span]]"]


class Unavailable(Exception):
    """The request cannot be served now: the queue is full, it waited too long, or the server ends."""


class TaggingFailed(Exception):
    """The model failed on a text of this request; the cause is its exception."""


class _GivenUp(Exception):
    """Nobody waits for this text any more."""


@dataclass(eq=False)
class _Request:
    """The texts of one request, and how far they are."""

    texts: Sequence[str]
    arrived: float
    taken: int = 0  # the first so many texts are, or were, in a batch
    spans: dict[int, list[Span]] = field(default_factory=dict)
    error: Exception | None = None
    own_seconds: float = 0.0  # of work on a long text,
    lent_seconds: float = 0.0  # and on short ones meanwhile
    resumed: float = 0.0
    done: threading.Event = field(default_factory=threading.Event)


class Batcher:
    """The queue and the worker thread.

    Args:
        tag_texts: returns the entities of each of some texts; only the worker calls it. With a text longer than a batch
            it is given ``between_batches``, to be called between two steps of its work, as ``model.tag_texts`` does.
        batch_texts, batch_characters: the most of each in one batch. A longer text is a batch of its own.
        wait_seconds: how long the first text of a batch waits for others, at most.
        most_requests, most_characters: what may wait at a time; a single request is taken whatever its size.
    """

    def __init__(
        self,
        tag_texts: TagTexts,
        *,
        batch_texts: int = 32,
        batch_characters: int = 20_000,
        wait_seconds: float = 0.003,
        most_requests: int = 256,
        most_characters: int = 8_000_000,
    ) -> None:
        self._tag_texts = tag_texts
        self._batch_texts, self._batch_characters = batch_texts, batch_characters
        self._wait_seconds = wait_seconds
        self._most_requests, self._most_characters = most_requests, most_characters
        self._changed = threading.Condition()  # guards all that follows
        self._open: set[_Request] = set()  # accepted, and somebody waits for them
        self._waiting: deque[_Request] = deque()  # of these, those with texts that are in no batch yet
        self._texts = self._characters = 0  # in no batch yet
        self._counts = {"requests": 0, "refused": 0, "late": 0, "failed": 0, "texts": 0, "batches": 0}
        self._closing = False
        # With a copy of the context: use_kernels and the like hold in the worker as they do here.
        context = contextvars.copy_context()
        self._worker = threading.Thread(target=context.run, args=(self._work,), name="minitl-tagger", daemon=True)
        self._worker.start()

    def tag(self, texts: Sequence[str], seconds: float) -> list[list[Span]]:
        """Return the entities of each text; called from any thread, which waits.

        Args:
            texts: any number of texts of any length.
            seconds: how long to wait, at most.

        Raises:
            Unavailable: the queue is full, the time is over, or :meth:`close` was called.
            TaggingFailed: the model failed on one of the texts.
        """
        request = _Request(texts, time.monotonic())
        with self._changed:
            self._counts["requests"] += 1
            if not texts:
                return []
            self._accept(request)
        if not request.done.wait(seconds):
            with self._changed:
                if not request.done.is_set():
                    self._forget(request)
                    self._counts["late"] += 1
                    raise Unavailable(f"no answer within {seconds:g} s: the server is busy, or the text is too long")
        if request.error is not None:
            raise TaggingFailed(f"{type(request.error).__name__}: {request.error}") from request.error
        return [request.spans[number] for number in range(len(texts))]

    def counts(self) -> dict[str, int]:
        """Return how many requests, texts and batches there were since the start, and how many requests wait."""
        with self._changed:
            return {**self._counts, "waiting": len(self._open)}

    @property
    def is_working(self) -> bool:
        """Whether the worker lives and takes requests."""
        return self._worker.is_alive() and not self._closing

    def close(self, seconds: float) -> bool:
        """Refuse new requests, finish those that wait, and end the worker.

        Args:
            seconds: how long to wait for it, at most.

        Returns:
            Whether it ended.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._worker.join(seconds)
        return not self._worker.is_alive()

    def _accept(self, request: _Request) -> None:
        characters = sum(map(len, request.texts))
        refusal = None
        if self._closing:
            refusal = "the server is being stopped"
        elif self._open and len(self._open) >= self._most_requests:
            refusal = f"{len(self._open)} requests wait already"
        elif self._open and self._characters + characters > self._most_characters:
            refusal = f"texts of {self._characters:,} characters wait already"
        if refusal is not None:
            self._counts["refused"] += 1
            raise Unavailable(refusal)
        self._open.add(request)
        self._waiting.append(request)
        self._texts += len(request.texts)
        self._characters += characters
        self._changed.notify_all()

    def _forget(self, request: _Request) -> None:
        """Take a request out of everything; texts of it that are in a batch are tagged in vain."""
        self._open.discard(request)
        if request.taken < len(request.texts):
            self._waiting.remove(request)
            self._texts -= len(request.texts) - request.taken
            self._characters -= sum(map(len, request.texts[request.taken :]))

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            self._run(batch)

    def _next_batch(self) -> list[tuple[_Request, int]] | None:
        """Wait for texts and return them as (request, number of the text); None when there will be no more."""
        with self._changed:
            while True:
                if not self._waiting:
                    if self._closing:
                        return None
                    self._changed.wait()
                elif self._is_full() or (left := self._waiting[0].arrived + self._wait_seconds - time.monotonic()) <= 0:
                    return self._take()
                else:
                    self._changed.wait(left)

    def _is_full(self) -> bool:
        return self._texts >= self._batch_texts or self._characters >= self._batch_characters or self._closing

    def _take(self, *, only_short: bool = False) -> list[tuple[_Request, int]]:
        """Take the texts of a batch out of the queue; short ones may pass the long ones by."""
        batch: list[tuple[_Request, int]] = []
        characters = 0
        for request in list(self._waiting):
            while request.taken < len(request.texts) and len(batch) < self._batch_texts:
                length = len(request.texts[request.taken])
                if characters + length > self._batch_characters and (batch or only_short):
                    break
                batch.append((request, request.taken))
                request.taken += 1
                characters += length
                self._texts -= 1
                self._characters -= length
            if request.taken == len(request.texts):
                self._waiting.remove(request)
            elif not only_short:
                break
        return batch

    def _run(self, batch: list[tuple[_Request, int]]) -> None:
        texts = [request.texts[number] for request, number in batch]
        options = {}
        if sum(map(len, texts)) > self._batch_characters:  # then it is one text
            batch[0][0].resumed = time.monotonic()
            options["between_batches"] = partial(self._make_room, batch[0][0])
        try:
            found = self._tag_texts(texts, **options)
            if len(found) != len(texts):
                raise RuntimeError(f"the tagger returned {len(found)} lists for {len(texts)} texts")
        except Exception as error:  # whatever it is, the worker goes on
            if len(batch) == 1:
                self._fail(batch[0][0], error)
            else:
                for request, number in batch:
                    if request in self._open:
                        self._run([(request, number)])
            return
        with self._changed:
            self._counts["batches"] += 1
            self._counts["texts"] += len(texts)
            for (request, number), spans in zip(batch, found, strict=True):
                request.spans[number] = spans
                if len(request.spans) == len(request.texts):
                    self._open.discard(request)
                    request.done.set()

    def _make_room(self, request: _Request) -> None:
        """Tag a batch of short texts while a long one is under way, if it is their turn; or give the long one up."""
        paused = time.monotonic()
        request.own_seconds += paused - request.resumed
        batch = []
        with self._changed:
            if request not in self._open:
                raise _GivenUp
            if request.lent_seconds <= request.own_seconds:
                batch = self._take(only_short=True)
        if batch:
            self._run(batch)
        request.resumed = time.monotonic()
        request.lent_seconds += request.resumed - paused

    def _fail(self, request: _Request, error: Exception) -> None:
        with self._changed:
            if request in self._open:
                self._counts["failed"] += 1
                request.error = error
                self._forget(request)
                request.done.set()
