"""A worker that trains and runs models with PyTorch and transformers; see harness/serve.py."""

import os
from typing import Any

from harness import batches
from harness.model_worker import ModelWorker
from harness.serve import Unavailable, refuse, serve

try:
    import torch
    from transformers import BertConfig, BertForTokenClassification
except ModuleNotFoundError as error:
    refuse(error)


class TorchWorker(ModelWorker):
    """Padded batches; fused AdamW, attention by scaled_dot_product_attention, gradients clipped to 1."""

    def __init__(self) -> None:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        torch.manual_seed(0)

    def prepare_training(self, model: str, compiled: bool) -> None:
        """Make a model and its optimizer."""
        network = self._model(model).train()
        forward = _compiled(network) if compiled else network
        parameters = list(network.named_parameters())
        exempt = [p for name, p in parameters if name.endswith("bias") or "LayerNorm" in name]
        decayed = [p for name, p in parameters if not (name.endswith("bias") or "LayerNorm" in name)]
        groups = [{"params": decayed, "weight_decay": 0.01}, {"params": exempt, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=5e-5, fused=True)

        def step(batch: Any, autocast: bool = False) -> None:
            ids, mask, labels = batch
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                loss = forward(input_ids=ids, attention_mask=mask, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if not loss.isfinite():
                raise RuntimeError(f"the loss is {loss.item()}")

        self.step = step

    def prepare_inference(self, model: str, compiled: bool) -> None:
        """Make a model that predicts."""
        network = self._model(model).eval()
        forward = _compiled(network) if compiled else network

        def step(batch: Any, autocast: bool = False) -> None:
            ids, mask, _ = batch
            with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                forward(input_ids=ids, attention_mask=mask)

        self.step = step

    def _model(self, model: str) -> Any:
        config = BertConfig(**self.choose(model).config())
        config._attn_implementation = "sdpa"
        return BertForTokenClassification(config)

    def make_batch(self, ids: Any, labels: Any, lengths: list[int]) -> tuple[Any, Any, Any]:
        """Pad to the longest sentence of the batch, as transformers' collators do."""
        mask = batches.padding_mask(lengths).astype("int64")
        padded = (batches.pad(ids, lengths, 0), mask, batches.pad(labels, lengths, batches.IGNORED))
        return tuple(torch.from_numpy(array) for array in padded)


def _compiled(network: Any) -> Any:
    """torch.compile for changing lengths; needs a C++ compiler."""
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        raise Unavailable("not measured: torch.compile needs a C++ compiler") from None
    return torch.compile(network, dynamic=True)


if __name__ == "__main__":
    serve(TorchWorker())
