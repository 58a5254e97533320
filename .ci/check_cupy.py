"""Look up in the installed CuPy every name that minitl asks of an array module; CuPy is imported, no GPU is needed.

python .ci/check_cupy.py

What is asked for is found in the text: ``xp.NAME.NAME``, ``self.xp.NAME``, ``array_module(x).NAME``. A name that only
NumPy has would fail on a GPU alone, and nobody's CI has one.
"""

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDERS = ("minitl", "kernels")
MODULES = {"xp", "cupy", "_xp"}  # what an array module is called here
FUNCTIONS = {"array_module", "module_of"}  # and what returns one
# Files whose array module is always NumPy's: the simulator and what runs on the CPU.
HOSTS = ("kernels/cudasim/", "cpu.py")


def names(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of everything that a text asks of an array module."""
    for node in ast.walk(ast.parse(text)):
        parts: list[str] = []
        inner: Any = node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if not parts:
            continue
        root = inner.id if isinstance(inner, ast.Name) else ""
        called = isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id in FUNCTIONS
        if root in MODULES or called:
            yield node.lineno, ".".join(reversed(parts))
        elif root and parts[-1] in MODULES and len(parts) > 1:  # self.xp.NAME
            yield node.lineno, ".".join(reversed(parts[:-1]))


def missing(name: str, module: Any) -> str:
    """Return the first part of a dotted name that a module lacks, "" if it has all; what a value has is not known."""
    found, path = module, []
    for part in name.split("."):
        path.append(part)
        if not hasattr(found, part):
            try:
                importlib.import_module(f"{module.__name__}.{'.'.join(path)}")
            except ImportError:
                return ".".join(path)
        found = getattr(found, part)
        if not (isinstance(found, type) or hasattr(found, "__path__") or type(found).__name__ == "module"):
            return ""
    return ""


def main() -> int:
    import cupy

    failed, looked_up = 0, set()
    root = Path(__file__).parent.parent
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            place = path.relative_to(root).as_posix()
            if any(host in place for host in HOSTS):
                continue
            for line, name in names(path.read_text(encoding="utf-8")):
                looked_up.add(name)
                lacks = missing(name, cupy)
                if lacks:
                    failed += 1
                    print(f"{place}:{line}: CuPy {cupy.__version__} has no {lacks}")
    assert len(looked_up) > 40, "the array modules were not found"
    print(f"{len(looked_up)} names of CuPy {cupy.__version__} looked up, {failed} uses of missing ones")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main()))
