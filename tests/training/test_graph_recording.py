"""Steps for CUDA graphs, on the simulator, which has none: the batch in its room, and what is kept about graphs.

A room has more tokens and sentences than the batch, and random calls come from memory; loss, norm and update are still
those of ``train_step``, in float64 to the last digits. What a graph would do, a fake one does: it runs the step again.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulator import needs_device

import minitl
from minitl import ops, optim
from minitl.errors import MinitlError
from minitl.models import BertConfig, BertForTokenClassification, PackedBatch
from minitl.random import default_generator
from minitl.training import GraphedResult, GraphedStep, StepResult, train_step
from minitl.training.room import IN_FLIGHT, Room, Size

CONFIG = BertConfig(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=40,
    num_labels=5,
    pad_token_id=3,
)
#: The sums of float64 have another order, and so have those of a batch with padding; three steps of 1e-3 magnify that
#: where a gradient is only rounding, which AdamW divides by its own size.
ROUNDING = 1e-10
quiet = pytest.mark.filterwarnings("ignore:the training step runs kernel by kernel")


def batch(lengths: list[int], seed: int = 0, scored: float = 0.7) -> PackedBatch:
    random, tokens = np.random.default_rng(seed), sum(lengths)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    labels = np.where(random.random(tokens) < scored, random.integers(0, 5, tokens), ops.IGNORE_INDEX)
    positions = np.arange(tokens) - np.repeat(offsets[:-1], lengths)
    segments = random.integers(0, 2, tokens)
    return PackedBatch(random.integers(0, 50, tokens), positions, segments, offsets, labels)


BATCHES = [batch([7, 20, 1], 0), batch([5, 5], 1), batch([30, 2], 2), batch([33, 30, 1], 3), batch([3, 1], 4)]


class Run:
    """A model, its optimizer and a schedule; the same at each call."""

    def __init__(self, device: str, dtype: str = "float64") -> None:
        minitl.manual_seed(0)
        self.model = BertForTokenClassification(CONFIG, dtype=dtype).to(device)
        self.optimizer = optim.AdamW(optim.decay_groups(self.model, weight_decay=0.01), lr=1e-3)
        self.schedule = optim.Schedule(self.optimizer, total=8, warmup=2)
        self.model.train()

    def graphed(self, **options: Any) -> GraphedStep:
        return GraphedStep(self.model, self.optimizer, schedule=self.schedule, **options)

    def state(self) -> dict[str, np.ndarray]:
        named = {name: parameter.numpy().copy() for name, parameter in self.model.named_parameters()}
        return named | {"call": np.array(default_generator().call), "lr": np.array(self.optimizer.groups[0].lr)}


def plain(device: str, batches: list[PackedBatch], dtype: str = "float64", max_norm: float = 1.0) -> Any:
    run = Run(device, dtype)
    results = [train_step(run.model, [one], run.optimizer, schedule=run.schedule, max_norm=max_norm) for one in batches]
    return [(one.loss, one.gradient_norm, one.label_count, one.token_count) for one in results], run.state()


def check(run: Run, results: list[Any], wanted: Any, tolerance: float = ROUNDING) -> None:
    for found, (loss, norm, labels, tokens) in zip(results, wanted[0], strict=True):
        assert (found.loss, found.gradient_norm) == pytest.approx((loss, norm), rel=tolerance)
        assert (found.label_count, found.token_count, found.skipped) == (labels, tokens, False)
    for name, values in run.state().items():
        np.testing.assert_allclose(values, wanted[1][name], rtol=0, atol=tolerance, err_msg=name)


# -- the same step -----------------------------------------------------------------------------------------------------


@needs_device
@quiet
@pytest.mark.parametrize(("bucket", "max_norm"), [(1, 0.1), (64, 100.0)])
def test_it_takes_the_steps_of_train_step(bucket: int, max_norm: float) -> None:
    """Batches of several sizes, with dropout, a schedule and clipping; with bucket 1 some fill their rooms."""
    run = Run("cudasim")
    step = run.graphed(bucket=bucket, max_norm=max_norm)
    results = [step(one) for one in BATCHES]
    step.finish()
    assert all(isinstance(result, GraphedResult) for result in results)
    check(run, results, plain("cudasim", BATCHES, max_norm=max_norm))


@needs_device
@quiet
def test_it_takes_the_steps_of_the_cpu_in_bfloat16() -> None:
    """Of that precision's steps, on activations of 16 bits: a few per cent of what three steps change."""
    results = []
    for graphed in (False, True):
        run = Run("cudasim", "float32")
        before = run.state()
        with minitl.precision("bfloat16", device="cudasim"):
            if graphed:
                step = run.graphed()
                losses = [step(one).loss for one in BATCHES[:3]]
            else:
                losses = [
                    train_step(run.model, [one], run.optimizer, schedule=run.schedule).loss for one in BATCHES[:3]
                ]
        after = run.state()
        results.append((losses, {name: after[name] - before[name] for name in after}))
    assert results[1][0] == pytest.approx(results[0][0], rel=2**-8)
    for name, change in results[0][1].items():
        if change.ndim and not name.endswith("key.bias"):  # which have no gradient but rounding
            difference = np.linalg.norm(results[1][1][name] - change)
            assert difference <= 0.1 * np.linalg.norm(change), name


def test_on_the_cpu_it_is_train_step() -> None:
    with minitl.use_kernels("reference"):
        wanted = plain("cpu", BATCHES[:2])
        run = Run("cpu")
        step = run.graphed()
        with pytest.warns(UserWarning, match="kernel by kernel: CUDA graphs need a model on 'cuda'"):
            results = [step(BATCHES[0])]
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # it says so once
            results.append(step(BATCHES[1]))
        step.finish()
    assert all(isinstance(result, StepResult) for result in results)
    check(run, results, wanted, tolerance=0)


@needs_device
def test_the_warning_comes_once_and_when_a_size_comes_again() -> None:
    run = Run("cudasim")
    step = run.graphed()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(BATCHES[0])  # a first step runs kernel by kernel anyway
        assert step.eager_because == ""
    with pytest.warns(UserWarning, match="kernel by kernel: device 'cudasim' has no CUDA graphs"):
        step(BATCHES[0])
    assert step.eager_because == "device 'cudasim' has no CUDA graphs"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for one in (BATCHES[0], BATCHES[3], BATCHES[3]):
            step(one)


# -- batches that are left out, or refused -----------------------------------------------------------------------------


@needs_device
def test_a_batch_without_a_scored_label_is_skipped() -> None:
    run = Run("cudasim")
    before = run.state()
    result = run.graphed()(batch([4, 5], scored=0.0))
    assert isinstance(result, StepResult)
    assert (result.skipped, result.token_count, result.loss) == (True, 9, 0.0)
    for name, values in run.state().items():
        np.testing.assert_array_equal(values, before[name], name)


def spoilt(name: str, value: int) -> PackedBatch:
    one = batch([4, 5])
    getattr(one, name)[6] = value
    return one


@needs_device
@pytest.mark.parametrize(
    ("one", "words"),
    [
        (
            PackedBatch(*(getattr(BATCHES[0], n) for n in ("input_ids", "positions", "segments", "cu_seqlens"))),
            "labels",
        ),
        (spoilt("input_ids", 50), "50"),
        (spoilt("labels", 5), "5"),
        (spoilt("positions", 40), "40"),
        (spoilt("segments", 2), "2"),
    ],
    ids=["no labels", "id", "label", "position", "segment"],
)
def test_what_train_step_refuses_is_refused(one: PackedBatch, words: str) -> None:
    """A GPU would read outside of its arrays; nothing has changed then."""
    run = Run("cudasim")
    before = run.state()
    with pytest.raises(ValueError, match=words) as found:
        run.graphed()(one)
    with pytest.raises(ValueError, match=words) as wanted:
        train_step(run.model, [one], run.optimizer)
    assert words == "labels" or str(found.value) == str(wanted.value)  # before anything was put into a room
    for name, values in run.state().items():
        np.testing.assert_array_equal(values, before[name], name)


def test_a_bucket_has_a_token() -> None:
    run = Run("cpu")
    with pytest.raises(ValueError, match="bucket must be at least 1 token, got 0"):
        run.graphed(bucket=0)


@needs_device
@quiet
@pytest.mark.parametrize("late", [False, True])
def test_a_loss_that_is_not_finite(late: bool) -> None:
    """Its step changes nothing, and the error comes two steps later, or at the end."""
    run = Run("cudasim")
    step = run.graphed()
    step(BATCHES[1])
    weight = run.model.classifier.weight
    kept = weight.numpy().copy()
    weight.array[0, 0] = np.nan
    before = run.state()
    step(BATCHES[1])
    for name, values in run.state().items():
        if name not in ("call", "lr"):
            np.testing.assert_array_equal(values, before[name], name)
    weight.copy_(kept)

    def go_on() -> None:
        if not late:
            step.finish()
        for _ in range(IN_FLIGHT):
            step(BATCHES[1])

    with pytest.raises(MinitlError, match=r"training diverged: the loss is nan, .* that step was not taken"):
        go_on()
    if not late:
        assert np.isfinite(step(BATCHES[1]).loss)
        step.finish()


# -- graphs, by a fake -------------------------------------------------------------------------------------------------


class FakeGraphs(GraphedStep):
    """Graphs of the simulator: while one is recorded, nothing changes; to launch it is to run the step again."""

    def __init__(self, run: Run, **options: Any) -> None:
        super().__init__(run.model, run.optimizer, schedule=run.schedule, **options)
        self._pool = SimpleNamespace(malloc="the pool's")
        self.launched: list[Size] = []
        self.recorded: list[Size] = []
        self.fails = ""  # where: at the "begin", in the "middle" or at the "end"

    def _record(self, room: Room, first_call: int) -> Any:
        optimizer = self.optimizer
        arrays = [optimizer.buffer.parameters, optimizer._first_moment, optimizer._second_moment, room.results]
        copies: list[np.ndarray] = []

        def begin() -> None:
            copies.extend(array.copy() for array in arrays)
            if self.fails == "begin":
                raise RuntimeError("no memory")

        def end() -> Any:
            for array, copy in zip(arrays, copies, strict=True):
                array[...] = copy
            if self.fails == "end":
                raise RuntimeError("no memory")
            self.recorded.append(room.size)
            return SimpleNamespace(launch=launch)

        def launch() -> None:
            self.launched.append(room.size)
            generator = default_generator()
            before = generator.call
            generator.call = first_call  # the numbers of the recording; those of this step are in memory
            self._run(room, first_call)
            generator.call = before

        @contextlib.contextmanager
        def using_allocator(malloc: Any) -> Iterator[None]:
            assert malloc == "the pool's"
            yield

        class Stream(contextlib.nullcontext[None]):
            def __init__(self, *, non_blocking: bool) -> None:
                assert non_blocking
                super().__init__()

            begin_capture, end_capture = staticmethod(begin), staticmethod(end)

        xp, self._xp = self._xp, SimpleNamespace(cuda=SimpleNamespace(Stream=Stream, using_allocator=using_allocator))
        try:
            return super()._record(room, first_call)
        finally:
            self._xp = xp


@needs_device
def test_graphs_take_the_same_steps() -> None:
    """From the second step of a size on; learning rate, bias correction and random calls are those of each step."""
    batches = [BATCHES[0], BATCHES[0], BATCHES[3], BATCHES[0], BATCHES[1], BATCHES[3], BATCHES[0]]
    run = Run("cudasim")
    step = FakeGraphs(run, bucket=32)
    results = [step(one) for one in batches]
    step.finish()
    small, large = (Size.for_batch(BATCHES[number], 32) for number in (0, 3))
    assert step.recorded == [small, large]
    assert step.launched == [small, small, small, large, small]  # a batch of 10 tokens has the room of 28
    check(run, results, plain("cudasim", batches))


@needs_device
def test_another_seed_or_mode_is_another_graph() -> None:
    run = Run("cudasim")
    step = FakeGraphs(run)
    for _ in range(2):
        step(BATCHES[0])
    minitl.manual_seed(1)  # a seed is a number in the recording
    step(BATCHES[0])
    assert len(step.launched) == 1
    step(BATCHES[0])
    assert len(step.launched) == 2
    run.model.eval()
    step(BATCHES[0])
    assert len(step.launched) == 2
    step.finish()


@needs_device
@pytest.mark.parametrize("where", ["begin", "middle", "end"])
def test_where_a_recording_fails_the_step_is_taken(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernel by kernel, with the random calls that it would have had, and without the recording's gradients."""
    run = Run("cudasim")
    step = FakeGraphs(run)
    results: list[Any] = [step(BATCHES[0])]
    step.fails = where
    if where == "middle":  # behind the backward pass
        launch, fails = run.optimizer.launch_step, [True, False]

        def launch_or_fail(max_norm: float) -> Any:
            if fails.pop(0):
                raise RuntimeError("no memory")
            return launch(max_norm)

        monkeypatch.setattr(run.optimizer, "launch_step", launch_or_fail)
    with pytest.warns(UserWarning, match=r"it could not be recorded \(RuntimeError: no memory\)"):
        results.append(step(BATCHES[0]))
    monkeypatch.undo()
    step.fails = ""
    results.append(step(BATCHES[0]))  # and it is not tried again
    step.finish()
    assert step.launched == []
    check(run, results, plain("cudasim", [BATCHES[0]] * 3))


# -- sizes and rooms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "bucket", "size"),
    [
        ([7, 20, 1], 64, Size(64, 8, 64)),  # the padding, 36 tokens, is the longest sentence
        ([7, 20, 1], 32, Size(32, 8, 32)),
        ([7, 20, 1], 28, Size(28, 8, 32)),  # no padding
        ([64], 64, Size(64, 8, 64)),
        ([65], 64, Size(128, 8, 128)),
        ([5, 5], 1, Size(10, 8, 16)),
        ([1] * 7, 1, Size(7, 8, 16)),
        ([1] * 8, 1, Size(8, 16, 16)),  # a sentence is left for padding
        ([17], 1, Size(17, 8, 32)),
    ],
    ids=str,
)
def test_sizes(lengths: list[int], bucket: int, size: Size) -> None:
    assert Size.for_batch(batch(lengths), bucket) == size


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=20), bucket=st.integers(1, 100))
def test_a_room_holds_its_batch(lengths: list[int], bucket: int) -> None:
    """The batch as it is, and behind it padding that is scored nowhere and attends to itself alone."""
    one = batch(lengths, scored=1.0)
    size = Size.for_batch(one, bucket)
    room = Room(size, np)
    for _ in range(2):  # the second time over what the first has left
        room.fill(one, CONFIG, 17)
    tokens, placed, layout = one.token_count, room.batch, room.batch.cu_seqlens
    assert size.tokens % bucket == 0 <= size.tokens - tokens < bucket
    padding = {"input_ids": 3, "positions": 0, "segments": 0, "labels": ops.IGNORE_INDEX}
    for name, value in padding.items():
        np.testing.assert_array_equal(getattr(placed, name)[:tokens], getattr(one, name), name)
        np.testing.assert_array_equal(getattr(placed, name)[tokens:], value, name)
    assert room.base_call.tolist() == [17]
    found = np.diff(layout.offsets)
    assert len(found) == size.sentences > len(lengths)
    assert found[: len(lengths)].tolist() == lengths
    assert found[len(lengths) :].sum() == size.tokens - tokens
    assert found.max() <= layout.longest == size.longest
    assert layout.offsets[-1] == size.tokens == layout.tokens
    np.testing.assert_array_equal(layout.sentences, np.repeat(np.arange(len(found)), found))
    np.testing.assert_array_equal(layout.squares, np.concatenate(([0], np.cumsum(found**2)))[:-1])


def test_a_smaller_batch_leaves_nothing_of_a_larger_one() -> None:
    large, small = batch([15, 15]), batch([9, 9, 8], 1)
    assert Size.for_batch(large, 32) == Size.for_batch(small, 32)
    rooms = [Room(Size.for_batch(small, 32), np) for _ in range(2)]
    rooms[0].fill(large, CONFIG, 5)
    for room in rooms:
        room.fill(small, CONFIG, 6)
    np.testing.assert_array_equal(rooms[0]._words, rooms[1]._words)


def test_without_a_padding_id_it_is_0() -> None:
    one = batch([5])
    room = Room(Size.for_batch(one, 8), np)
    room.fill(one, SimpleNamespace(pad_token_id=None), 0)  # type: ignore[arg-type]
    assert room.batch.input_ids[5:].tolist() == [0, 0, 0]


def test_results_wait_until_they_are_looked_at() -> None:
    waited: list[int] = []
    values = np.array([2.5, 0.5])
    result = GraphedResult(values, SimpleNamespace(synchronize=lambda: waited.append(1)), 3, 4)
    assert waited == []
    assert (result.loss, result.gradient_norm) == (2.5, 0.5)
    values[:] = 9  # the memory serves a later step
    assert (result.loss, result.gradient_norm, len(waited)) == (2.5, 0.5, 1)
