"""Smoke test of the installed wheel, run from a folder outside the repository."""

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

# Alone first: how long a plain import takes, the best of five processes (measured and printed, not judged).
start = "import time; t = time.perf_counter(); import minitl; print(time.perf_counter() - t)"
runs = [subprocess.run([sys.executable, "-c", start], capture_output=True, check=True) for _ in range(5)]
seconds = min(float(run.stdout) for run in runs)
print(f"import minitl: {seconds:.3f} s")

import numpy as np  # noqa: E402

import minitl  # noqa: E402
from minitl.models import BertConfig, BertForTokenClassification  # noqa: E402
from minitl.text import load_corpus  # noqa: E402

assert "site-packages" in minitl.__file__, minitl.__file__
assert importlib.util.find_spec("kernels") is None, "the wheel must not install a top-level package called kernels"

files = importlib.metadata.files("minitl") or []
names = {str(file) for file in files}
for needed in ("cudasim/include/cudasim.h", "common.cuh", "ptx.cuh", "gelu/gelu.cu"):
    assert f"minitl/kernels/{needed}" in names, f"the wheel has no {needed}"
size = sum(Path(str(file.locate())).stat().st_size for file in files if not str(file).endswith(".pyc"))
print(f"installed size without dependencies: {size / 1e6:.2f} MB in {len(files)} files")
assert size < 2e6, size

config = BertConfig(
    vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=3
)
model = BertForTokenClassification(config)
out = model(np.array([[1, 2, 3]]), labels=np.array([[0, 1, -100]]))
out.loss.backward()
assert all(parameter.grad is not None for parameter in model.parameters())
print(f"corpus: {len(load_corpus().train)} training sentences; loss of a random model {out.loss.item():.3f}")
