"""The same BERT twice: in transformers and in minitl, with the same weights. Needs torch and transformers."""

from __future__ import annotations

import copy
from typing import Any

import torch
import transformers
from parity import Arrays, PaddedInputs, direction, forward_arguments

from minitl.models import BertConfig, BertForTokenClassification, BertModel

torch.set_num_threads(1)  # the machine is shared with other test processes

HEADS = {"BertModel": BertModel, "BertForTokenClassification": BertForTokenClassification}


def reference_model(head: str, arguments: dict[str, Any], seed: int) -> Any:
    """A float64 transformers model in eval mode whose parameters are float32 numbers, biases and norms random too."""
    torch.manual_seed(seed)
    config = transformers.BertConfig(**arguments, attn_implementation="eager")
    model = getattr(transformers, head)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # biases start at 0 and norms at 1, where mistakes would not show
                parameter += 0.1 * torch.randn_like(parameter)
    return model.double()


def our_model(reference: Any, dtype: str) -> Any:
    """The minitl model with the configuration and the weights of a transformers model."""
    config = BertConfig.from_dict(reference.config.to_dict())
    ours = HEADS[type(reference).__name__](config, dtype=dtype).eval()
    ours.load_state_dict({name: parameter.detach().numpy() for name, parameter in reference.named_parameters()})
    return ours


def in_float32(reference: Any) -> Any:
    """A float32 copy of a transformers model."""
    return copy.deepcopy(reference).float()


def run_reference(model: Any, inputs: PaddedInputs) -> tuple[Arrays, Arrays]:
    """Run a transformers model forward and backward; return named results and the gradient of every parameter."""
    model.zero_grad()
    given = {name: torch.from_numpy(array) for name, array in forward_arguments(model, inputs).items()}
    out = model(**given, output_hidden_states=True, output_attentions=True)
    if hasattr(out, "loss"):
        loss, results = out.loss, {"logits": out.logits, "loss": out.loss}
    else:
        chosen = torch.from_numpy(inputs.kept)
        states, pooled = out.last_hidden_state[chosen], out.pooler_output[torch.from_numpy(inputs.starts_kept)]
        loss = sum((x * torch.from_numpy(direction(x.shape)).to(x.dtype)).sum() for x in (states, pooled))
        results = {"last_hidden_state": out.last_hidden_state, "pooler_output": out.pooler_output}
    loss.backward()
    results |= {f"hidden_states.{number}": state for number, state in enumerate(out.hidden_states)}
    results |= {f"attentions.{number}": weights for number, weights in enumerate(out.attentions)}
    gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    return {name: value.detach().numpy() for name, value in results.items()}, gradients
