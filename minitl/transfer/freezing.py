"""Freezing: which parameters keep their pretrained values during fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from minitl.errors import MinitlError
from minitl.models.token_classifier import BertForTokenClassification


@dataclass(frozen=True)
class FreezeReport:
    """How many numbers are trained and how many keep their values."""

    trained: int
    frozen: int

    def __str__(self) -> str:
        total = self.trained + self.frozen
        return f"training {self.trained:,} of {total:,} parameters ({self.trained / total:.1%}), {self.frozen:,} frozen"


def freeze(model: BertForTokenClassification, what: str) -> FreezeReport:
    """Freeze a part of the model, from the bottom up, and train the rest.

    A frozen parameter gets no gradient and no optimizer state, and backward stops above the lowest trained layer:
    freezing saves time and memory as well as keeping values. Build the optimizer afterwards.

    Args:
        model: the model; its ``requires_grad`` flags are set anew.
        what: ``"nothing"``; ``"embeddings"``; a number N, for the embeddings and the first N layers; or
            ``"encoder"``, for everything but the classifier.

    Returns:
        How many parameters are trained and frozen.

    Raises:
        MinitlError: another word, or more layers than the model has.
    """
    layers = len(model.bert.encoder.layer)
    depths = {"nothing": -1, "embeddings": 0, "encoder": layers}
    if what not in depths and not what.isdecimal():
        raise MinitlError(f"freeze takes nothing, embeddings, encoder or a number of layers, not {what!r}")
    depth = depths[what] if what in depths else int(what)
    if depth > layers:
        raise MinitlError(f"cannot freeze {depth} layers, the model has {layers}")
    below = [model.bert.embeddings, *model.bert.encoder.layer][: depth + 1]
    frozen = {id(parameter) for module in below for parameter in module.parameters()}
    for parameter in model.parameters():
        parameter.requires_grad = id(parameter) not in frozen
    sizes = [(parameter.requires_grad, parameter.size) for parameter in model.parameters()]
    return FreezeReport(
        sum(size for trained, size in sizes if trained), sum(size for trained, size in sizes if not trained)
    )
