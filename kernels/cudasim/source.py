"""The text that is compiled: a kernel's file with everything it includes, and a table of its instantiations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

KERNELS = Path(__file__).resolve().parents[1]
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"[^\n]*$', re.MULTILINE)
ONCE = re.compile(r"^[ \t]*#[ \t]*pragma[ \t]+once[ \t]*$", re.MULTILINE)


def flatten(path: Path | str) -> str:
    """Return the text of a file with our own includes put in their place.

    What ``#include "..."`` names is looked for beside the file that says so, then in the folders above it, then beside
    minitl's own ``common.cuh``; each file is put in once, the first time. ``#include <...>`` stays. ``#line``
    lets compilers, debuggers and error messages speak of the files as they are.

    The text is complete. So a cache that goes by the text (CuPy's, ours) cannot miss an edit of an included file.

    Raises:
        FileNotFoundError: an included file is not there.
    """
    return _flattened(Path(path).resolve(), set())


def _flattened(path: Path, done: set[Path]) -> str:
    done.add(path)
    text = ONCE.sub("", path.read_text(encoding="utf-8"))

    def insert(match: re.Match[str]) -> str:
        found = _find(match[1], path)
        line = text.count("\n", 0, match.start()) + 1
        inserted = "" if found in done else _flattened(found, done)
        return f"{inserted}{_line(line + 1, path)}"

    body = INCLUDE.sub(insert, text)
    return f"{_line(1, path)}\n{body.rstrip()}\n"


def _find(name: str, includer: Path) -> Path:
    for folder in (*includer.parents, KERNELS):
        if (folder / name).is_file():
            return (folder / name).resolve()
    raise FileNotFoundError(
        f'{includer} includes "{name}", which is neither beside it nor in a folder above it, nor in {KERNELS}'
    )


def _line(number: int, path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'#line {number} "{escaped}"'


def translation_unit(path: Path | str, instantiations: Sequence[str]) -> str:
    """Return C++ text that includes the simulator, the kernels of a file and a table of those that are wanted.

    The kernels stand in a namespace without a name, so that what they define belongs to this library alone. (A loader
    would make one of two static variables of the same template in two libraries.)
    """
    entries = [
        f'#line 1 "instantiation {name}"\n    cudasim::kernel_entry<&{name}>(),'.replace("\\", "")
        for name in instantiations
    ]
    return "\n".join(
        [
            '#include "cudasim.h"',
            "namespace {",
            flatten(path).rstrip(),
            "}",
            "static const cudasim::Kernel cudasim_kernels[] = {",
            *entries,
            "};",
            "CUDASIM_EXPORTS",
            "CUDASIM_PROGRAM",
            "",
        ]
    )
