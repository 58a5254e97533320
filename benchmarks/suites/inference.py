"""Prediction: logits of sentences of natural lengths, and of one sentence alone."""

import tempfile
from pathlib import Path

from harness.batches import dense, natural
from harness.child import Worker, WorkerError
from harness.peers import INFERENCE, ONNX
from harness.rates import measure_rates
from harness.settings import Settings, announce
from harness.tables import Table

from suites.models import INFERENCE_COLUMNS, ModelRuns, skipped_at_natural_lengths

BATCHES = {"minilm": 6, "bert-base": 2}  # of 32 sentences, in one round
NOTES = [
    "tokens/s counts tokens that are not padding. All programs read sentences of similar length together; all but "
    "minitl pad them to the longest of their batch. *dense 1x20* is one sentence at a time.",
    "*of floor*: the least time for the useful products at the best float32 rate of this run, as a share of the time "
    "taken. bfloat16 may exceed it. *first pass*: once through the batches before anything is measured; for "
    "torch.compile, in a model's first row, it is the time of compiling.",
    "ONNX Runtime: float32, the model exported by torch.onnx, all optimizations of the graph.",
]


def run(settings: Settings) -> Table:
    """Measure all models, workloads and peers."""
    rates = measure_rates(settings)
    table = Table("inference", "Prediction", INFERENCE_COLUMNS, notes=[*NOTES, rates.sentence()])
    with tempfile.TemporaryDirectory() as folder:
        for size in settings.sizes():
            failures = _export(settings, size.name, Path(folder))
            with ModelRuns(settings, rates, size, INFERENCE, "inference", Path(folder), failures) as runs:
                for corpus in ("conll2003", "wnut17"):
                    workload = natural(corpus, 32, 1 if settings.quick else BATCHES[size.name])
                    table.rows += runs.rows(workload, skip=skipped_at_natural_lengths())
                table.rows += runs.rows(dense(1, 20), repeats=2 if settings.quick else 20)
    return table


def _export(settings: Settings, model: str, folder: Path) -> dict[str, str]:
    """Export a model for ONNX Runtime; return why it failed, if it did."""
    if not settings.wanted([ONNX]):
        return {}
    announce(f"exporting {model} to ONNX")
    worker = Worker(ONNX.script, settings.threads)
    try:
        worker.call("export", model=model, path=str(folder / f"{model}.onnx"))
    except WorkerError as error:
        return {ONNX.name: str(error)}
    finally:
        worker.close()
    return {}
