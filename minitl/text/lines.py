"""Lines of text files, one after the other: UTF-8 and line feeds, and a plain word about anything else."""

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import IO

from minitl.errors import DataError

LONGEST_LINE = 64 * 2**20  # bytes; a binary file may have no line feed at all
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_lines(path: str | PathLike[str]) -> Iterator[str]:
    """Yield the lines of a file; see :func:`lines_of`.

    Raises:
        DataError: as there, or the file cannot be read.
    """
    try:
        with Path(path).open("rb") as stream:
            yield from lines_of(stream, str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def lines_of(stream: IO[bytes], source: str) -> Iterator[str]:
    """Yield the lines of UTF-8 text without their ends.

    Only a line feed ends a line: ``str.splitlines`` would also split at U+2028, U+0085 and others, which do occur in
    words. A carriage return before it belongs to the end; a byte order mark at the start is dropped.

    Args:
        stream: the file, opened for bytes; no more than a line of it is held.
        source: its name in messages.

    Raises:
        DataError: naming ``source:line`` and the byte offset: something is not UTF-8, or is a NUL; lines end in
            carriage returns alone; or a line is longer than 64 MB.
    """
    offset, number = 0, 0
    while raw := stream.readline(LONGEST_LINE + 1):
        number += 1
        where = f"{source}:{number}"
        if len(raw) > LONGEST_LINE:
            raise DataError(f"{where}: expected lines of text, found one of more than {LONGEST_LINE:,} bytes")
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            wide = number == 1 and raw.startswith(_UTF16_MARKS)
            fix = "it begins like UTF-16, save it as UTF-8" if wide else "save the file as UTF-8"
            found = f"byte 0x{raw[error.start]:02x} at byte offset {offset + error.start}"
            raise DataError(f"{where}: expected UTF-8, found {found}; {fix}") from None
        if "\0" in line:
            raise DataError(
                f"{where}: expected text, found a NUL at byte offset {offset + raw.index(0)}; "
                "this is a binary file, or UTF-16 or UTF-32: save it as UTF-8"
            )
        offset += len(raw)
        line = line.removeprefix("\ufeff") if number == 1 else line
        if number == 1 and "\r" in line and "\n" not in line:  # the whole file is this line
            raise DataError(f"{where}: expected lines that end in line feeds, found carriage returns only")
        yield line.removesuffix("\n").removesuffix("\r")
