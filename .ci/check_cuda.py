"""Compile every CUDA kernel for every architecture, without a GPU; a spilled register is an error.

python .ci/check_cuda.py             for all architectures
python .ci/check_cuda.py --update    and write docs/cuda_kernels.md
"""

import importlib
import pkgutil
import sys
import time
from pathlib import Path

import minitl.kernels
from minitl.kernels.nvrtc import MULTIPROCESSORS, Card, NvrtcError, compile_file, resident_warps
from minitl.kernels.program import Program

PAGE = Path(__file__).parent.parent / "docs" / "cuda_kernels.md"
HEAD = """# What the CUDA kernels need

Made by `python .ci/check_cuda.py --update`: threads of a block; bytes of its static shared memory; registers of a
thread, by architecture, as NVRTC compiles the kernels; and how many warps a multiprocessor of an H100 (sm_90) then
holds, of the 64 that it has room for. None spills a register into memory.

"""
SHOWN = 90


def programs() -> list[Program]:
    """Every kernel's program, by folder."""
    folders = [entry.name for entry in pkgutil.iter_modules(minitl.kernels.__path__) if entry.ispkg]
    launchers = [f"minitl.kernels.{folder}.cuda" for folder in folders]
    return [importlib.import_module(name).PROGRAM for name in launchers if importlib.util.find_spec(name) is not None]


def page(cards: dict[int, list[Card]]) -> str:
    """The page: a line for each instantiation."""
    titles = ["kernel", "threads", "shared bytes", *(f"sm_{architecture}" for architecture in cards), "warps"]
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)]]
    for number, card in enumerate(cards[SHOWN]):
        registers = [str(cards[architecture][number].registers) for architecture in cards]
        numbers = [str(card.threads), str(card.shared_bytes), *registers, str(resident_warps(card, SHOWN))]
        lines.append([f"`{card.name}`", *numbers])
    return HEAD + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> int:
    begin, failed = time.perf_counter(), 0
    files = programs()
    assert len(files) > 5, "the kernels were not found"
    cards: dict[int, list[Card]] = {}
    for architecture in MULTIPROCESSORS:
        found = cards[architecture] = []
        for program in files:
            try:
                found += compile_file(program.file, program.instantiations, architecture)
            except NvrtcError as error:
                failed += 1
                print(error)
        most = max(found, key=lambda card: card.registers)
        print(f"sm_{architecture}: {len(found)} kernels, at most {most.registers} registers ({most.name})")
    print(f"{len(files)} files in {time.perf_counter() - begin:.0f} s")
    if "--update" in sys.argv and not failed:
        PAGE.write_text(page(cards), encoding="utf-8")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main()))
