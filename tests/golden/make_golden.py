"""Write the golden files of this folder: tiny models as transformers and torch compute them, in float64.

Run by hand, from the root of the repository, where the extra [reference] is installed:

    python tests/golden/make_golden.py

Each file holds one model: ``weight/NAME`` (float32 numbers), ``input/NAME`` (B, S), ``result/NAME`` (logits or last
hidden state and pooler output, loss, hidden states, attentions) and ``gradient/NAME``, and for the tagger
``training/losses``: its loss before each of 20 steps. The header tells the configuration, the training and the versions
that computed it all. ``tests/models/test_golden.py`` reads them, without torch.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER.parent), str(FOLDER.parent / "reference")]

from hf_pairs import reference_model, run_reference  # noqa: E402
from parity import PaddedInputs, kept_part, padded_inputs  # noqa: E402

SIZES = {"vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "max_position_embeddings": 16}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "tagger-gelu": (
        "BertForTokenClassification",
        {**SIZES, "num_hidden_layers": 2, "num_attention_heads": 3, "num_labels": 5, "initializer_range": 0.2},
    ),
    "encoder-gelu-new": (
        "BertModel",
        {
            **SIZES,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "hidden_act": "gelu_new",
            "type_vocab_size": 3,
            "layer_norm_eps": 1e-5,
            "pad_token_id": None,
            "initializer_range": 0.1,
        },
    ),
    "encoder-relu": (
        "BertModel",
        {
            **SIZES,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "hidden_act": "relu",
            "type_vocab_size": 1,
            "pad_token_id": 7,
        },
    ),
}
TRAINING = {"steps": 20, "warmup": 4, "lr": 5e-3, "weight_decay": 0.01, "max_norm": 1.0}


def train(model: Any, inputs: PaddedInputs) -> list[float]:
    """Losses of a short training without dropout: AdamW, biases and norms without decay, clipping, linear schedule."""
    exempt = {name for name, _ in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name}
    groups = [
        {
            "params": [parameter for name, parameter in model.named_parameters() if (name in exempt) == is_exempt],
            "weight_decay": 0.0 if is_exempt else TRAINING["weight_decay"],
        }
        for is_exempt in (False, True)
    ]
    optimizer = torch.optim.AdamW(groups, lr=TRAINING["lr"], foreach=False, fused=False)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, TRAINING["warmup"], TRAINING["steps"])
    given = {name: torch.from_numpy(array) for name, array in inputs.arguments().items()}
    losses = []
    for _ in range(int(TRAINING["steps"])):
        optimizer.zero_grad()
        loss = model(**given).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), TRAINING["max_norm"])
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def golden(head: str, arguments: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Everything that goes into one file."""
    model = reference_model(head, arguments, seed)
    inputs = padded_inputs(
        np.random.default_rng(seed),
        vocabulary=arguments["vocab_size"],
        classes=arguments.get("num_labels", 2),
        segments=arguments.get("type_vocab_size", 2),
        length=9,
    )
    tensors = {
        f"weight/{name}": parameter.detach().float().numpy().copy() for name, parameter in model.named_parameters()
    }
    tensors |= {f"input/{name}": array for name, array in inputs.arguments().items()}
    results, gradients = run_reference(model, inputs)
    tensors |= {f"result/{name}": kept_part(name, array, inputs) for name, array in results.items()}
    tensors |= {f"gradient/{name}": gradient.copy() for name, gradient in gradients.items()}
    if head == "BertForTokenClassification":
        tensors["training/losses"] = np.array(train(model, inputs))
    return tensors


def main() -> None:
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "numpy": np.__version__}
    for seed, (name, (head, arguments)) in enumerate(MODELS.items()):
        path = FOLDER / f"{name}.safetensors"
        described = {"head": head, "config": arguments, "training": TRAINING, "versions": versions}
        tensors = {key: np.ascontiguousarray(array) for key, array in golden(head, arguments, seed).items()}
        save_file(tensors, path, metadata={"golden": json.dumps(described)})  # one key: their order would vary
        path.chmod(0o644)  # it is written for the owner alone
        print(f"{path.name}: {path.stat().st_size:,} bytes, {len(tensors)} tensors")


if __name__ == "__main__":
    main()
