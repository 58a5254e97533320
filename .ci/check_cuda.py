"""Compile every CUDA kernel for every architecture, without a GPU; a spilled register is an error.

python .ci/check_cuda.py             for all architectures
python .ci/check_cuda.py --update    and write docs/cuda_kernels.md
"""

import sys
import time
from pathlib import Path

from minitl.kernels.nvrtc import MULTIPROCESSORS, Card, NvrtcError, compile_file, resident_warps
from minitl.kernels.program import all_programs

PAGE = Path(__file__).parent.parent / "docs" / "cuda_kernels.md"
HEAD = """# What the CUDA kernels need

Made by `python .ci/check_cuda.py --update`: threads of a block; bytes of its static shared memory; registers of a
thread, by architecture, as NVRTC compiles the kernels; and how many warps a multiprocessor of an H100 (sm_90) then
holds, of the 64 that it has room for. None spills a register into memory. "-": not for this architecture.

"""
SHOWN = 90


def page(cards: dict[int, list[Card]]) -> str:
    """The page: a line for each instantiation."""
    titles = ["kernel", "threads", "shared bytes", *(f"sm_{architecture}" for architecture in cards), "warps"]
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)]]
    by_name = {architecture: {card.name: card for card in found} for architecture, found in cards.items()}
    for card in cards[SHOWN]:
        there = [by_name[architecture].get(card.name) for architecture in cards]
        registers = ["-" if other is None else str(other.registers) for other in there]
        numbers = [str(card.threads), str(card.shared_bytes), *registers, str(resident_warps(card, SHOWN))]
        lines.append([f"`{card.name}`", *numbers])
    return HEAD + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> int:
    begin, failed = time.perf_counter(), 0
    files = all_programs()
    assert len(files) > 5, "the kernels were not found"
    cards: dict[int, list[Card]] = {}
    for architecture in MULTIPROCESSORS:
        found = cards[architecture] = []
        for program in files:
            if program.architecture > architecture:
                continue
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
