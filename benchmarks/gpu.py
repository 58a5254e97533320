"""Everything that only a GPU can show, in under eight minutes: results/gpu.md and results/gpu.json.

pip install -e ".[test,cuda]" torch transformers
python benchmarks/gpu.py                  all of it
python benchmarks/gpu.py --without max-autotune

In this order: the tests on the GPU; each kernel alone (speed, 1,000 repeats with the same bits, dropout masks of 10^8
elements against the CPU's); training steps, beside PyTorch. Every program has a process and a time limit of its own;
one that fails or is too slow costs its line only.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
MINIMUM = 15  # seconds, in which the quickest program is measured
TESTS = [
    *("tests/kernels/test_kernel_contract.py", "tests/kernels/test_short_floats.py"),
    *("tests/cudasim/test_tensor_cores.py", "tests/cudasim/test_common.py"),
    *("tests/kernels/test_attention_tensor_cores.py", "tests/models/test_cudasim_training.py"),
    *("tests/training/test_graphed_step.py", "tests/optim/test_recordable_step.py", "tests/ops/test_op_devices.py"),
]
# program, batch, seconds of measuring, limit in seconds
STEPS = [
    ("minitl", "dense", 5, 60),
    ("minitl", "natural", 5, 60),
    ("eager", "dense", 4, 60),
    ("eager", "natural", 4, 60),
    ("compile", "dense", 4, 120),
    ("max-autotune", "dense", 4, 240),
    ("compile", "natural", 4, 150),
    ("minitl", "dense", 5, 60),  # once more, to see whether the machine is as it was
]
# bytes from memory and back, as docs/cuda_kernels.md counts them
KERNELS = {
    "layer_norm forward": ["layer_norm_forward<__nv_bfloat16,3>"],
    "layer_norm backward": ["layer_norm_backward<__nv_bfloat16,3>"],
    "gelu forward": ["gelu_forward<__nv_bfloat16,false>"],
    "gelu backward": ["gelu_backward<__nv_bfloat16,false>"],
    "attention forward": ["attention_forward<__nv_bfloat16,64,4>"],
    "attention backward": ["attention_backward<__nv_bfloat16,64,8>"],
    "dropout": ["drop<__nv_bfloat16>"],
    "adamw and clipping, float32": ["adamw_update<float,false>", "sum_of_squares<float>"],
}
SHADOW_BYTES = 2 * 107_726_601  # which AdamW writes besides


def child(arguments: list[str], limit: float) -> dict[str, Any]:
    """Run a program; return the JSON of its last line, or why there is none."""
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, timeout=limit, check=False, cwd=FOLDER
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"not ready after {limit:.0f} s"}
    print(f"  {time.perf_counter() - start:5.1f} s  {' '.join(arguments).splitlines()[0]}", file=sys.stderr, flush=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        print("\n".join(lines[-12:]), file=sys.stderr)
        return {"failed": lines[-1][:300]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def tests(limit: float) -> str:
    """Run the tests on the GPU; return pytest's last line."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--device",
        "cuda",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:benchmark",
        *TESTS,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False, cwd=FOLDER.parent)
    except subprocess.TimeoutExpired:
        return f"not ready after {limit:.0f} s"
    lines = done.stdout.splitlines()
    print("\n".join(line[:250] for line in lines if line.startswith(("FAILED", "ERROR", "E  "))), file=sys.stderr)
    return lines[-1].strip("= ") if lines else done.stderr[-300:]


def device() -> dict[str, str]:
    code = """
import json, cupy, numpy
runtime = cupy.cuda.runtime
about = runtime.getDeviceProperties(0)
print(json.dumps({
    "GPU": about["name"].decode(), "compute capability": f"{about['major']}.{about['minor']}",
    "CUDA of the driver": runtime.driverGetVersion(), "CUDA runtime": runtime.runtimeGetVersion(),
    "CuPy": cupy.__version__, "NumPy": numpy.__version__,
}))
"""
    found = child(["-c", code], 60)
    torch = child(["-c", "import torch, json; print(json.dumps({'version': torch.__version__}))"], 60)
    found |= {"torch": torch.get("version", "not here"), "processors": os.cpu_count()}
    return {name: str(value) for name, value in found.items()}


def kernel_lines(ours: dict[str, Any], torch: dict[str, Any]) -> list[str]:
    from minitl.kernels.traffic import bytes_moved

    lines = ["| kernel | μs | TB/s | torch, μs | torch / minitl | of 1,000 repeats, with other bits |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    theirs = torch.get("microseconds", {})
    for name, time_ in ours.get("microseconds", {}).items():
        moved = sum(map(bytes_moved, KERNELS.get(name, []))) + (SHADOW_BYTES if "adamw" in name else 0)
        rate = f"{moved / time_ / 1e6:.2f}" if moved else ""
        peer = f"{theirs[name]} | {theirs[name] / time_:.2f}" if name in theirs else " | "
        lines.append(f"| {name} | {time_} | {rate} | {peer} | {ours['repeats'].get(name, '')} |")
    return lines


def page(facts: dict[str, Any]) -> str:
    lines = [
        "# On a GPU",
        "",
        "Made by `python benchmarks/gpu.py`; what is compared and how: [README](../README.md).",
        "",
    ]
    lines += [f"- {name}: {value}" for name, value in facts["device"].items()]
    lines += ["", f"Tests with `--device cuda`: {facts['tests']}.", "", "## Training steps of BERT-base", ""]
    lines += [
        "| batch | program | ms | fastest to slowest | of minitl's speed | GB in use |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for batch in ("dense", "natural"):
        rows = [row for row in facts["steps"] if row["batch"] == batch]
        ours = [row["ms"] for row in rows if row["program"] == "minitl" and "ms" in row]
        for row in rows:
            if "failed" in row:
                lines.append(f"| {batch} | {row['program']} | {row['failed']} | | | |")
                continue
            share = f"{min(ours) / row['ms']:.2f}" if ours else ""
            spread = f"{row['fastest']} to {row['slowest']}"
            lines.append(f"| {batch} | {row['program']} | {row['ms']} | {spread} | {share} | {row['memory_gb']} |")
    lines += ["", "## Kernels alone", "", *kernel_lines(facts["kernels"], facts["torch kernels"]), ""]
    masks = facts["kernels"].get("masks", {})
    if masks:
        text = "Dropout masks of {elements:,} elements, {dropped:,} dropped: {different} differ from the CPU's."
        lines.append(text.format(**masks))
    else:
        lines.append(f"The kernels failed: {facts['kernels'].get('failed')}")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without", nargs="*", default=[], metavar="WORD", help="tests, kernels, or names of programs")
    parser.add_argument("--limit", type=float, default=470, help="seconds, after which nothing more is begun")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    skipped, start = set(options.without), time.perf_counter()
    options.output.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"device": device(), "tests": "not run", "kernels": {}, "torch kernels": {}, "steps": []}

    def left(limit: float) -> float:
        return max(1.0, min(limit, options.limit - (time.perf_counter() - start)))

    def keep() -> None:  # what was measured is not lost when the rest is stopped
        (options.output / "gpu.json").write_text(json.dumps(facts, indent=1) + "\n")
        (options.output / "gpu.md").write_text(page(facts), encoding="utf-8")

    if "tests" not in skipped:
        facts["tests"] = tests(left(180))
    if "kernels" not in skipped:
        facts["kernels"] = child(["gpu_kernels.py", "ours"], left(120))
        keep()
        facts["torch kernels"] = child(["gpu_kernels.py", "torch"], left(90))
        keep()
    for program, batch, seconds, limit in STEPS:
        if program in skipped or left(limit) < MINIMUM:
            continue
        row = child(["gpu_step.py", program, batch, str(seconds)], left(limit))
        facts["steps"].append({"program": program, "batch": batch, **row})
        print(json.dumps(facts["steps"][-1]), file=sys.stderr, flush=True)
        keep()
    keep()
    print(page(facts))
    print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
