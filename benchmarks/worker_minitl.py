"""A worker that trains and runs models with minitl; see harness/serve.py."""

from contextlib import ExitStack
from typing import Any

import numpy as np
from harness.minitl_precision import enter_precision
from harness.model_worker import ModelWorker
from harness.serve import refuse, serve

try:
    import minitl
    from minitl import optim
    from minitl.models import BertConfig, BertForTokenClassification, PackedBatch
    from minitl.training import train_step
except ModuleNotFoundError as error:
    refuse(error)


class MinitlWorker(ModelWorker):
    """Packed batches, which need no padding; everything else as in examples/ner_finetune.py."""

    def __init__(self) -> None:
        self.policy = ExitStack()

    def prepare_training(self, model: str, precision: str) -> None:
        """Make a model and its optimizer."""
        network = self._model(model, precision)
        network.train()
        optimizer = optim.AdamW(optim.decay_groups(network, weight_decay=0.01), lr=5e-5)
        self.step = lambda batch: train_step(network, [batch], optimizer)

    def prepare_inference(self, model: str, precision: str) -> None:
        """Make a model that predicts."""
        network = self._model(model, precision)
        self.step = network.predict_logits

    def _model(self, model: str, precision: str) -> Any:
        self.policy.close()
        enter_precision(self.policy, precision)
        minitl.manual_seed(0)
        return BertForTokenClassification(BertConfig(**self.choose(model).config()))

    def make_batch(self, ids: Any, labels: Any, lengths: list[int]) -> PackedBatch:
        """Lay the sentences end to end."""
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        positions = np.arange(len(ids)) - np.repeat(offsets[:-1], lengths)
        return PackedBatch(ids, positions, np.zeros_like(ids), offsets, labels)


if __name__ == "__main__":
    serve(MinitlWorker())
