"""One training step: forward, backward, clipping, AdamW; dense batches and batches of natural lengths."""

from harness.batches import dense, natural
from harness.peers import TORCH_AS_SHIPPED, TRAINING
from harness.rates import measure_rates
from harness.settings import Settings
from harness.tables import Table

from suites.models import COLUMNS, ModelRuns, skipped_at_natural_lengths

SENTENCES = {"minilm": 96, "bert-base": 32}  # in one round, at natural lengths
NOTES = [
    "tokens/s counts tokens that are not padding. *As shipped*: sentences in random order, padded to the longest of "
    "their batch; *grouped*: sentences of similar length together, padded too; minitl: grouped, and not padded.",
    "*of floor*: the least time for the useful products at the best float32 rate of this run, as a share of the time "
    "taken; *with AdamW* adds the least time for the update's memory traffic. bfloat16 may exceed it.",
    "*minitl ... is N x*: how many times as many tokens it trains in the same time, median of the rounds. *first "
    "pass*: once through the batches before anything is measured; for torch.compile, in a model's first row, it is the "
    "time of compiling.",
]


def run(settings: Settings) -> Table:
    """Measure all models, workloads and peers."""
    rates = measure_rates(settings)
    table = Table("training", "Training step", COLUMNS, notes=[*NOTES, rates.sentence()])
    for size in settings.sizes():
        with ModelRuns(settings, rates, size, TRAINING, "training") as runs:
            # Where nothing is padded, "as shipped" is "grouped" once more.
            table.rows += runs.rows(dense(4 if settings.quick else 16, 128), skip={TORCH_AS_SHIPPED.name: ""})
            for corpus in ("conll2003", "wnut17"):
                for sentences in (16, 32):
                    batches = 1 if settings.quick else SENTENCES[size.name] // sentences
                    workload = natural(corpus, sentences, batches)
                    table.rows += runs.rows(workload, skip=skipped_at_natural_lengths())
    return table
