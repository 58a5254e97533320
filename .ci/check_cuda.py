"""Compile every CUDA kernel for every architecture, without a GPU; a spilled register is an error.

python .ci/check_cuda.py             for all architectures
python .ci/check_cuda.py --update    and write docs/cuda_kernels.md
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from minitl.kernels.nvrtc import MULTIPROCESSORS, Card, NvrtcError, compile_file, resident_warps
from minitl.kernels.program import Program, all_programs
from minitl.kernels.traffic import SIZES, TRAFFIC, bytes_moved

PAGE = Path(__file__).parent.parent / "docs" / "cuda_kernels.md"
SHOWN = 90
BANDWIDTH = 3.35e12  # bytes a second, of an H100 with HBM3
HEAD = """# What the CUDA kernels need

Made by `python .ci/check_cuda.py --update`.

## Of a multiprocessor

Threads of a block; bytes of its shared memory, static, and the most that a launch asks for besides; registers of a
thread, by architecture, as NVRTC compiles the kernels; and how many warps a multiprocessor of an H100 (sm_90) then
holds, of the 64 that it has room for. None spills a register into memory. "-": not for this architecture.

"""
MEMORY = """
## Of the memory

What each kernel must read and write, every argument once: arrays of its type, with `*` of the type of its sums (float32
where its own has 16 bits), with `#` of 8 bytes. Then megabytes for 32 bits and for 16, and the microseconds in which an
H100 moves them (3.35 TB/s), less than which no kernel can take. The sizes are those of a step of BERT-base:

"""


def memory() -> str:
    """The second half of the page: what must be moved."""
    sizes = "\n".join(f"- {letter} = {size:,} {meaning}" for letter, (meaning, size) in SIZES.items())
    types = {"32 bits": ("float", "unsigned int"), "16 bits": ("__nv_bfloat16",)}
    titles = ["kernel", "reads", "writes", *(f"{unit}, {title}" for unit in ("MB", "μs") for title in types)]
    lines = [titles, ["---"] * 3 + ["---:"] * 4]
    names = [name for program in all_programs() for name in program.instantiations]
    for kernel, traffic in TRAFFIC.items():
        moved = []
        for kinds in types.values():
            starts = tuple(f"{kernel}<{kind}{end}" for kind in kinds for end in ",>")
            of_kind = [name for name in names if name.startswith(starts)]
            moved.append(bytes_moved(of_kind[0]) if of_kind else 0)
        numbers = [f"{count / 1e6:.2f}" if count else "-" for count in moved]
        numbers += [f"{count / BANDWIDTH * 1e6:.1f}" if count else "-" for count in moved]
        lines.append([f"`{kernel}`", traffic.reads or "nothing", traffic.writes, *numbers])
    return f"{MEMORY}{sizes}\n\n" + table(lines)


def table(lines: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def page(cards: dict[int, list[Card]], programs: list[Program]) -> str:
    """The page: a line for each instantiation, then a line for each kernel."""
    titles = ["kernel", "threads", "static", "dynamic", *(f"sm_{architecture}" for architecture in cards), "warps"]
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)]]
    by_name = {architecture: {card.name: card for card in found} for architecture, found in cards.items()}
    dynamic = {name: program.dynamic_shared_bytes(name) for program in programs for name in program.instantiations}
    for card in cards[SHOWN]:
        there = [by_name[architecture].get(card.name) for architecture in cards]
        registers = ["-" if other is None else str(other.registers) for other in there]
        shared = [str(card.shared_bytes), str(dynamic[card.name])]
        warps = resident_warps(card, SHOWN, dynamic[card.name])
        lines.append([f"`{card.name}`", str(card.threads), *shared, *registers, str(warps)])
    return HEAD + table(lines) + memory()


def main() -> int:
    begin, failed = time.perf_counter(), 0
    programs = all_programs()
    assert len(programs) > 5, "the kernels were not found"
    cards: dict[int, list[Card]] = {architecture: [] for architecture in MULTIPROCESSORS}
    work = [(program, architecture) for architecture in cards for program in programs]
    work = [(program, architecture) for program, architecture in work if program.architecture <= architecture]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NVRTC works while Python's lock is free
        tasks = [pool.submit(compile_file, program.file, program.instantiations, number) for program, number in work]
    for (_, architecture), task in zip(work, tasks, strict=True):
        try:
            cards[architecture] += task.result()
        except NvrtcError as error:
            failed += 1
            print(error)
    for architecture, found in cards.items():
        most = max(found, key=lambda card: card.registers)
        print(f"sm_{architecture}: {len(found)} kernels, at most {most.registers} registers ({most.name})")
    print(f"{len(programs)} files in {time.perf_counter() - begin:.0f} s")
    if "--update" in sys.argv and not failed:
        PAGE.write_text(page(cards, programs), encoding="utf-8")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main()))
