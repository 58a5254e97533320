"""A worker that runs models with ONNX Runtime; see harness/serve.py.

The model comes from PyTorch through torch.onnx, in a worker of its own (``export``), so that the process that is
measured never loads torch.
"""

import os
from typing import Any

from harness import batches
from harness.floor import MODELS
from harness.model_worker import ModelWorker
from harness.serve import serve


class OnnxWorker(ModelWorker):
    """Padded batches; all optimizations of the graph that ONNX Runtime has."""

    def export(self, model: str, path: str) -> None:
        """Write a model with random weights to ``path``; batch and length are free."""
        import torch
        from transformers import BertConfig, BertForTokenClassification

        config = BertConfig(**MODELS[model].config(), return_dict=False)
        config._attn_implementation = "sdpa"
        network = BertForTokenClassification(config).eval()
        example = torch.ones(2, 24, dtype=torch.int64)
        free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
        torch.onnx.export(
            network,
            (),
            path,
            kwargs={"input_ids": example, "attention_mask": example},
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes={"input_ids": free, "attention_mask": free},
            dynamo=True,
            verbose=False,
        )

    def prepare_inference(self, model: str, path: str) -> None:
        """Load the model."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.choose(model)
        self.step = lambda batch: session.run(["logits"], batch)

    def make_batch(self, ids: Any, labels: Any, lengths: list[int]) -> dict[str, Any]:
        """Pad to the longest sentence of the batch."""
        mask = batches.padding_mask(lengths).astype("int64")
        return {"input_ids": batches.pad(ids, lengths, 0), "attention_mask": mask}


if __name__ == "__main__":
    serve(OnnxWorker())
