"""How a training step of a model scales: with the length of sentences, their number, and threads."""

from dataclasses import replace
from typing import Any

from harness.batches import dense
from harness.machine import has_bfloat16
from harness.peers import EQUAL_LENGTHS, TORCH_BF16, TORCH_COMPILE
from harness.rates import Rates, measure_rates
from harness.settings import Settings
from harness.tables import Column, Table

from suites.models import COLUMNS, ModelRuns

TOKENS = 1024  # in every batch, while the length changes
LENGTHS = (16, 32, 64, 128, 256, 512)
BATCHES = (2, 4, 8, 16, 32)  # sentences of 32 tokens; for 1, torch.compile would compile once more
BATCH_LENGTH = 32
MODEL = "minilm"
SMALL = 1024  # tokens that a round of small batches has at least
NOTES = [
    f"Training {MODEL} on dense batches. *length*: {TOKENS} tokens a batch; *batch*: sentences of {BATCH_LENGTH} "
    "tokens; *threads*: 8 sentences of 128 tokens, every program on that many processors.",
    "*of floor*: against the best float32 product measured with that many threads.",
]


def run(settings: Settings) -> Table:
    """Measure the three curves for all peers; bfloat16 by torch only where the processor has it."""
    columns = [Column("curve", "curve"), *COLUMNS]
    columns = [replace(column, title="threads") if column.key == "threads" else column for column in columns]
    table = Table("scaling", "Scaling of a training step", columns, notes=list(NOTES))
    peers = [peer for peer in EQUAL_LENGTHS if peer is not TORCH_BF16 or has_bfloat16()]
    settings = replace(settings, models=(MODEL,))
    size = settings.sizes()[0]
    rates = measure_rates(settings)
    table.notes.append(rates.sentence())
    lengths, batches = ((16, 64), (2, 8)) if settings.quick else (LENGTHS, BATCHES)
    with ModelRuns(settings, rates, size, peers, "training") as runs:
        for length in lengths:
            sentences = (512 if settings.quick else TOKENS) // length
            table.rows += runs.rows(dense(sentences, length), curve="length")
        for sentences in batches:
            repeats = max(1, SMALL // (sentences * BATCH_LENGTH))
            table.rows += runs.rows(dense(sentences, BATCH_LENGTH), repeats, curve="batch")
    uncompiled = [peer for peer in peers if peer is not TORCH_COMPILE]  # it would compile once more for one thread
    for threads in range(1, settings.threads + 1):
        table.rows += _with_threads(replace(settings, threads=threads), rates, uncompiled)
    return table


def _with_threads(settings: Settings, rates: Rates, peers: list[Any]) -> list[dict[str, Any]]:
    """Measure the dense batch with another number of threads, against that number's own limits."""
    if settings.quick:
        sentences = 2
    else:
        sentences, rates = 8, measure_rates(settings)
    with ModelRuns(settings, rates, settings.sizes()[0], peers, "training") as runs:
        return runs.rows(dense(sentences, 128), curve="threads")
