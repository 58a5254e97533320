"""The training step as a CUDA graph: recorded once, then started by one call.

A step of BERT-base is some 500 kernels, most of which a GPU finishes before Python has launched the next. A CUDA graph
is a recording of such a sequence: the kernels with their arguments, numbers and addresses as they were. What changes
from step to step must therefore lie in memory that stays where it is:

    the batch                          in a Room, with space for more tokens and sentences than there are
    the number of the first dropout    behind it (``minitl.random.calls_in_memory``)
    learning rate, bias corrections    in the optimizer's table (``AdamW.prepare_step``)
    intermediate results               in a memory pool that nobody else allocates from

A batch that fills half of a room would waste half of the work, so rooms come in sizes, and each has a graph of its own.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from minitl import optim
from minitl.device import module_of
from minitl.kernels.launch import Array, host_array
from minitl.kernels.select import select
from minitl.models.loss_options import CROSS_ENTROPY, LossOptions
from minitl.models.padding import check_labels, check_ranges
from minitl.models.token_classifier import BertForTokenClassification
from minitl.ops import IGNORE_INDEX
from minitl.precision import current_precision
from minitl.random import BaseCall, calls_in_memory, default_generator
from minitl.text.batch import PackedBatch
from minitl.training.room import IN_FLIGHT, Room, Size
from minitl.training.step import DivergedError, StepResult, train_step


@dataclass(frozen=True)
class Recording:
    """A step's graph.

    Attributes:
        graph: CuPy's.
        calls: how many random calls it makes.
        written: numbers of the parameters that it updates.
    """

    graph: Any
    calls: int
    written: tuple[int, ...]


class GraphedResult:
    """What one step saw; loss and norm are waited for when they are looked at.

    Attributes:
        label_count, token_count, skipped: as in StepResult.
    """

    skipped = False

    def __init__(self, values: Array, event: Any, label_count: int, token_count: int) -> None:
        """Take (2,) on the host, valid once ``event`` (None: now) has happened."""
        self._values, self._event = values, event
        self._numbers: tuple[float, float] | None = None
        self.label_count, self.token_count = label_count, token_count

    def finish(self) -> tuple[float, float]:
        """Wait for the GPU to end the step; return loss and norm of the gradient."""
        if self._numbers is None:
            if self._event is not None:
                self._event.synchronize()
            loss, norm = self._values.tolist()
            self._numbers = loss, norm
        return self._numbers

    @property
    def loss(self) -> float:
        """Mean loss over the scored labels, before the update."""
        return self.finish()[0]

    @property
    def gradient_norm(self) -> float:
        """Global norm of the gradients before clipping."""
        return self.finish()[1]


class GraphedStep:
    """Steps like :func:`minitl.training.train_step` with one batch each, on a GPU, as CUDA graphs.

    The first step with a size of batch runs kernel by kernel, the second is recorded, then graphs run. On other
    devices, with the reference kernels, and where a recording fails, all steps run kernel by kernel; a warning says so
    once.

    Loss, gradients and dropout masks are those of ``train_step`` but for the order of sums.

    Args:
        model: on ``"cuda"``, in training mode.
        optimizer: over its parameters.
        schedule: of the optimizer's learning rate, or None.
        max_norm: largest global gradient norm.
        bucket: sizes of batches, in tokens, are multiples of it: more waste for a larger one, fewer graphs.
        loss_options: as of ``train_step``.
        raise_if_diverged: whether a loss or gradient that is not finite raises; if not, the results show it.

    Raises:
        ValueError: a bucket below 1.
    """

    def __init__(
        self,
        model: BertForTokenClassification,
        optimizer: optim.AdamW,
        *,
        schedule: optim.Schedule | None = None,
        max_norm: float = 1.0,
        bucket: int = 64,
        loss_options: LossOptions = CROSS_ENTROPY,
        raise_if_diverged: bool = True,
    ) -> None:
        if bucket < 1:
            raise ValueError(f"bucket must be at least 1 token, got {bucket}")
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.max_norm, self.bucket, self.raise_if_diverged = max_norm, bucket, raise_if_diverged
        self._given_loss_options = loss_options  # with weights on the host, to count labels by
        self.loss_options = loss_options.on(model.bert.device, model.classifier.weight.dtype.name)
        self.eager_because = ""
        self._xp: Any = module_of(model.bert.device)
        self._pool = None if self._xp is np else self._xp.cuda.MemoryPool()
        self._rooms: dict[Size, Room] = {}
        self._graphs: dict[tuple[Any, ...], Recording | None] = {}  # None: has run once, kernel by kernel
        self._pending: deque[GraphedResult] = deque()
        self._hosts = [host_array(self._xp, 2, np.float64) for _ in range(IN_FLIGHT + 1)]
        self._steps = 0

    def __call__(self, batch: PackedBatch) -> GraphedResult | StepResult:
        """Take one step.

        Args:
            batch: with labels.

        Returns:
            At once, while the GPU works; the result waits when its numbers are looked at.

        Raises:
            ValueError: no labels, or a label or id out of range.
            DivergedError: a step before, one or two steps ago, met a loss or a gradient that is not finite; it has left
                the parameters alone.
        """
        if batch.labels is None:
            raise ValueError("a training step needs labels in the batch")
        if not select("adamw", self.model.bert.device).__name__.endswith(".cuda"):
            on_cpu = self.model.bert.device == "cpu"
            self._explain(
                "CUDA graphs need a model on 'cuda'" if on_cpu else "the reference kernels are no CUDA kernels"
            )
            return train_step(
                self.model,
                [batch],
                self.optimizer,
                schedule=self.schedule,
                max_norm=self.max_norm,
                loss_options=self.loss_options,
            )
        label_count = int(np.count_nonzero(batch.labels != IGNORE_INDEX))
        if self._given_loss_options.weight(batch.labels) == 0:
            return StepResult(0.0, 0.0, label_count, batch.token_count, skipped=True)
        while len(self._pending) >= IN_FLIGHT:
            self._check(self._pending.popleft())
        check_ranges(batch, self.model.config)
        check_labels(batch, self.model.config.num_labels)
        room = self._room(Size.for_batch(batch, self.bucket))
        generator = default_generator()
        room.fill(batch, self.model.config, generator.call)
        self.optimizer.prepare_step()
        self._launch(room)
        if self.schedule is not None:
            self.schedule.step()
        result = self._result(room, label_count, batch.token_count)
        self._pending.append(result)
        return result

    def finish(self) -> None:
        """Wait for all steps, and raise if one was not finite."""
        while self._pending:
            self._check(self._pending.popleft())

    def _room(self, size: Size) -> Room:
        if size not in self._rooms:
            self._rooms[size] = Room(size, self._xp)
        return self._rooms[size]

    def _launch(self, room: Room) -> None:
        """Run the step for what is in the room: its graph, if there is one, or can be."""
        generator = default_generator()
        key = room.size, generator.seed, current_precision(), self.model.training
        first = generator.call
        if key in self._graphs and self._graphs[key] is None and not self.eager_because:
            self._graphs[key] = self._record(room, first)
        recording = self._graphs.setdefault(key, None)
        if recording is None:
            written = self._run(room, first)
        else:
            recording.graph.launch()
            generator.call = first + recording.calls
            written = recording.written
        self.optimizer.count_step(written)

    def _run(self, room: Room, first_call: int) -> tuple[int, ...]:
        """Launch the kernels of a step, and return the numbers of the parameters that have a gradient.

        Nothing in here looks at a number on the GPU.
        """
        with calls_in_memory(BaseCall(first_call, room.base_call)):
            loss = self.model.placed_loss(room.batch, self.loss_options)
            loss.backward()
        norm, written = self.optimizer.launch_step(self.max_norm)
        self.optimizer.zero_grad()
        room.results[:1], room.results[1:] = loss.array, norm
        return written

    def _record(self, room: Room, first_call: int) -> Recording | None:
        """Return a graph of the step for a room, or None after saying why. Nothing runs on the GPU."""
        if self._pool is None:
            self._explain(f"device {self.model.bert.device!r} has no CUDA graphs")
            return None
        cuda, generator = self._xp.cuda, default_generator()
        stream = cuda.Stream(non_blocking=True)
        try:
            with cuda.using_allocator(self._pool.malloc), stream:
                stream.begin_capture()
                try:
                    written = self._run(room, first_call)
                except BaseException:
                    with suppress(Exception):
                        stream.end_capture()
                    raise
                return Recording(stream.end_capture(), generator.call - first_call, written)
        except Exception as error:
            self.optimizer.zero_grad()
            self._explain(f"it could not be recorded ({type(error).__name__}: {error})")
            return None
        finally:
            generator.call = first_call

    def _explain(self, why: str) -> None:
        if not self.eager_because:
            self.eager_because = why
            warnings.warn(f"the training step runs kernel by kernel: {why}", stacklevel=4)

    def _result(self, room: Room, label_count: int, token_count: int) -> GraphedResult:
        """Copy the room's results to the host, where the next step does not overwrite them."""
        host = self._hosts[self._steps % len(self._hosts)]
        self._steps += 1
        if self._xp is np:
            return GraphedResult(room.results.copy(), None, label_count, token_count)
        room.results.get(out=host, blocking=False)
        event = self._xp.cuda.Event(disable_timing=True)
        event.record()
        return GraphedResult(host, event, label_count, token_count)

    def _check(self, result: GraphedResult) -> None:
        loss, norm = result.finish()
        if self.raise_if_diverged and not (math.isfinite(loss) and math.isfinite(norm)):
            raise DivergedError(
                f"training diverged: the loss is {loss}, the gradient's norm {norm}; that step was not taken; "
                "lower the learning rate, or look for NaN in the weights"
            )
