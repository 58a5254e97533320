"""What can go wrong in the simulator, one class for each kind.

Wrong arguments of a launch are a ``TypeError`` or ``ValueError``, as everywhere in the kernels.
"""

from __future__ import annotations


class SimulatorError(RuntimeError):
    """What all errors of the simulator have in common."""


class CompilerNotFound(SimulatorError):
    """There is no C++ compiler here; the message says how to get one."""


class BuildError(SimulatorError):
    """The compiler refuses the kernel's text; the message is the compiler's."""


class KernelError(SimulatorError):
    """A kernel did something that a GPU would answer with a hang, a fault or garbage.

    Attributes:
        report: all that a sanitizer printed, "" where the simulator itself found the mistake.
    """

    def __init__(self, message: str, report: str = "") -> None:
        super().__init__(message)
        self.report = report
