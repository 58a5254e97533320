"""Which parameters decay."""

from __future__ import annotations

from minitl.nn import LayerNorm, Module
from minitl.optim.optimizer import ParameterGroup


def decay_groups(model: Module, weight_decay: float) -> list[ParameterGroup]:
    """Return two groups: weights and embeddings, which decay, and biases and layer norms, which do not.

    Decay pulls a parameter towards 0. That keeps weight matrices small; a layer norm's scale rests at 1, and a bias
    is no source of overfitting (BERT's original training code exempts both).
    """
    norms = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, LayerNorm)
        for parameter in module.parameters()
    }
    decayed = ParameterGroup([], weight_decay=weight_decay)
    exempt = ParameterGroup([], weight_decay=0.0)
    for name, parameter in model.named_parameters():
        is_exempt = id(parameter) in norms or name.rpartition(".")[2] == "bias"
        group = exempt if is_exempt else decayed
        group.parameters.append(parameter)
        group.names.append(name)
    return [decayed, exempt]
