"""The errors a user's data or files can cause: one class to catch, one clear message each.

Programming mistakes (a wrong shape, a wrong dtype) stay ``TypeError`` and ``ValueError``. What comes from outside the
program, a data file, a checkpoint, a download, raises one of these, so that a command line catches :class:`MinitlError`
and prints the message without a traceback.
"""


class MinitlError(ValueError):
    """Something outside the program is wrong; the message names it and says what to do."""


class DeviceError(MinitlError):
    """There is no such device here, or not in this version."""


class PrecisionError(MinitlError):
    """This processor does not compute in the precision that was asked for."""


class DataError(MinitlError):
    """A data file or folder cannot be used; the message names ``file:line``, what was expected and what was found."""


class CheckpointError(MinitlError):
    """A model folder, a weights file, a configuration or a tokenizer cannot be used."""


class DownloadError(MinitlError):
    """Weights could not be fetched; the message lists the sources that were tried."""


class InterruptedRunError(MinitlError):
    """A run was asked to end by a signal, and has saved what it had.

    Attributes:
        signal_number: for example 2 for Ctrl-C; a command line exits with 128 more.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class MissingPackageError(MinitlError, ImportError):
    """An optional package that was asked for is not installed; the message says how to get it."""


class ServerError(MinitlError):
    """The server cannot start; the message says which address or package it lacks."""
