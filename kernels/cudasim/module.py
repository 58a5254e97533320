"""A file of kernels, compiled for the simulator, and how it is launched."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from minitl.kernels.cudasim.arguments import Parameter, check_arguments, check_shape
from minitl.kernels.cudasim.compiler import build
from minitl.kernels.cudasim.errors import KernelError
from minitl.kernels.cudasim.libraries import Event, Program, Request, SharedLibrary
from minitl.kernels.cudasim.source import translation_unit

Order = Literal["ascending", "descending", "random", "warps"]  # as in ThreadOrder of include/scheduler.h
BlockOrder = Literal["ascending", "descending"]


@dataclass(frozen=True)
class Schedule:
    """In which order threads and blocks run. A correct kernel gives the same result in all of them.

    Attributes:
        order: which thread of the block goes on when one has to wait: the next, the one before, any; or, with "warps",
            one of the same warp as long as there is one, so that each warp is as early as it can be.
        block_order: which block comes first.
        seed: of the random order, 0 <= seed < 2^64.
    """

    order: Order = "ascending"
    block_order: BlockOrder = "ascending"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise ValueError(f"order must be one of {', '.join(get_args(Order))}, not {self.order!r}")
        if self.block_order not in get_args(BlockOrder):
            raise ValueError(f"block_order must be one of {', '.join(get_args(BlockOrder))}, not {self.block_order!r}")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must be 0 to 2^64 - 1, not {self.seed}")


DEFAULT = Schedule()
_present: ContextVar[Schedule] = ContextVar("minitl_cudasim_schedule", default=DEFAULT)


def changed_schedule(order: Order | None, block_order: BlockOrder | None, seed: int | None) -> Schedule:
    """The present schedule, with what is given put in its place."""
    present = _present.get()
    return Schedule(
        present.order if order is None else order,
        present.block_order if block_order is None else block_order,
        present.seed if seed is None else seed,
    )


@contextlib.contextmanager
def schedule(
    *, order: Order | None = None, block_order: BlockOrder | None = None, seed: int | None = None
) -> Iterator[Schedule]:
    """Run all launches inside ``with`` in another order, however deep below they are; for tests of whole models.

    >>> with schedule(order="random", seed=3) as present:
    ...     print(present)
    Schedule(order='random', block_order='ascending', seed=3)
    """
    token = _present.set(changed_schedule(order, block_order, seed))
    try:
        yield _present.get()
    finally:
        _present.reset(token)


class Kernel:
    """One instantiation of a kernel; call it to launch it.

    Attributes:
        name: as in ``Module``.
        parameters: what it takes.
    """

    def __init__(self, library: SharedLibrary | Program, name: str, index: int) -> None:
        self._library, self.name, self._index = library, name, index
        self.parameters: list[Parameter] = library.parameters[index]

    def __call__(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[Any],
        *,
        shared_memory: int = 0,
        order: Order | None = None,
        block_order: BlockOrder | None = None,
        seed: int | None = None,
    ) -> None:
        """Run the kernel on NumPy arrays, to its end.

        Args:
            grid: blocks, one to three numbers (x, y, z).
            block: threads of a block, likewise.
            arguments: arrays, None or NumPy scalars, in the order of the parameters.
            shared_memory: bytes of dynamic shared memory.
            order, block_order, seed: see ``Schedule``; what is None is as ``schedule`` says.

        Raises:
            TypeError, ValueError: wrong arguments or sizes, before anything is run.
            KernelError: the kernel did something wrong; arrays may have been written to, but not under sanitize=True.
        """
        message, _ = self.run(grid, block, arguments, shared_memory, changed_schedule(order, block_order, seed))
        if message:
            raise KernelError(f"{self.name}: {message}")

    def run(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[Any],
        shared_memory: int,
        how: Schedule,
        traced_block: Sequence[int] | None = None,
    ) -> tuple[str, list[Event]]:
        """Launch; return what went wrong, "" for nothing, and the diary of the traced block. For this package."""
        blocks, threads = check_shape(self.name, grid, block, shared_memory)
        check_arguments(self.name, self.parameters, arguments)
        number = -1
        if traced_block is not None:
            x, y, z = traced_block
            if not (0 <= x < blocks[0] and 0 <= y < blocks[1] and 0 <= z < blocks[2]):
                raise ValueError(f"{self.name}: there is no block {tuple(traced_block)} in a grid of {blocks}")
            number = x + blocks[0] * (y + blocks[1] * z)
        request = Request(  # the orders by their places in the literals above, which are those of the C++ enumeration
            blocks,
            threads,
            get_args(Order).index(how.order),
            get_args(BlockOrder).index(how.block_order),
            how.seed,
            shared_memory,
            number,
        )
        if isinstance(self._library, SharedLibrary):
            return self._library.launch(self._index, request, arguments)
        if traced_block is not None:
            raise ValueError(f"{self.name}: a module with sanitize=True cannot be traced; make one without")
        try:
            self._library.launch(self._index, request, arguments)
        except KernelError as error:
            raise KernelError(f"{self.name}: {error}", error.report) from None
        return "", []


class Module:
    """Kernels of one ``.cu`` file, compiled for the CPU. What was compiled before is found again on disk.

    Args:
        path: the file.
        instantiations: names of kernels as C++ writes them, templates with their arguments:
            ``["row_sum<float, 128>"]``. The same list names the kernels of a ``cupy.RawModule``.
        sanitize: run each launch in a process of its own, under the address and undefined-behaviour sanitizers.
        debug: compile for a debugger, without optimisation.

    Raises:
        BuildError: the text does not compile.
        CompilerNotFound: there is no C++ compiler; the message says how to get one.
        FileNotFoundError: the file, or one that it includes, is not there.
        ValueError: no instantiation is named.
    """

    def __init__(
        self, path: Path | str, instantiations: Sequence[str], *, sanitize: bool = False, debug: bool = False
    ) -> None:
        self.path = Path(path)
        self._names = list(instantiations)
        if not self._names:
            raise ValueError(f"{self.path.name}: name at least one instantiation")
        text = translation_unit(self.path, self._names)
        file = build(text, self.path.stem, executable=sanitize, debug=debug)
        self._library = Program(file) if sanitize else SharedLibrary(file, len(self._names))

    def kernel(self, name: str) -> Kernel:
        """Return the kernel of that name.

        Raises:
            KeyError: it is not among the instantiations.
        """
        if name not in self._names:
            raise KeyError(f"{self.path.name} was compiled for {', '.join(self._names)}, not for {name}")
        return Kernel(self._library, name, self._names.index(name))
