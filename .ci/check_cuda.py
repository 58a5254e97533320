"""Compile every CUDA kernel for every architecture, without a GPU; a spilled register is an error.

python .ci/check_cuda.py [ARCHITECTURE ...]
"""

import importlib
import pkgutil
import sys
import time

import minitl.kernels
from minitl.kernels.nvrtc import NvrtcError, compile_file
from minitl.kernels.program import Program

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)

failed = 0
begin = time.perf_counter()
programs: dict[str, Program] = {}
for entry in pkgutil.iter_modules(minitl.kernels.__path__):
    if entry.ispkg and importlib.util.find_spec(f"minitl.kernels.{entry.name}.cuda") is not None:
        programs[entry.name] = importlib.import_module(f"minitl.kernels.{entry.name}.cuda").PROGRAM
for architecture in map(int, sys.argv[1:]) if len(sys.argv) > 1 else ARCHITECTURES:
    cards = []
    for program in programs.values():
        try:
            cards += compile_file(program.file, program.instantiations, architecture)
        except NvrtcError as error:
            failed += 1
            print(error)
    most = max(cards, key=lambda card: card.registers)
    print(f"sm_{architecture}: {len(cards)} kernels, at most {most.registers} registers ({most.name})")
print(f"{len(programs)} files in {time.perf_counter() - begin:.0f} s")
assert len(programs) > 5, "the kernels were not found"
sys.exit(bool(failed))
