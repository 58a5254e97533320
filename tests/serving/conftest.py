"""A fake tagger and its batcher for the tests of this folder; no thread outlives a test."""

from collections.abc import Iterator

import pytest
from fake_tagger import FakeTagger, application

from minitl.serving.application import Application
from minitl.serving.batching import Batcher


@pytest.fixture
def tagger() -> FakeTagger:
    return FakeTagger()


@pytest.fixture
def batcher(tagger: FakeTagger) -> Iterator[Batcher]:
    made = Batcher(tagger)
    yield made
    tagger.free.set()
    assert made.close(10)


@pytest.fixture
def app(batcher: Batcher) -> Application:
    return application(batcher)
