"""What the models return."""

from __future__ import annotations

from dataclasses import dataclass

from minitl.tensor import Tensor


@dataclass(frozen=True)
class EncoderOutput:
    """Result of BertModel. For packed input read (T, ...) in place of (B, S, ...); masked columns are exactly 0.

    Attributes:
        last_hidden_state: (B, S, D).
        pooler_output: (B, D), or None for a model without pooler.
        hidden_states: embeddings and the output of every layer, each (B, S, D), if asked for.
        attentions: attention weights of every layer, each (B, H, S, S), if asked for.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass(frozen=True)
class TokenClassifierOutput:
    """Result of BertForTokenClassification. For packed input read (T, ...) in place of (B, S, ...).

    Attributes:
        logits: (B, S, C), exactly 0 at masked columns.
        loss: mean cross-entropy over the scored labels, a tensor without dimensions; None without labels. With no
            scored label it is exactly 0 with zero gradients (PyTorch gives NaN).
        label_count: how many labels were scored. To accumulate gradients over batches exactly as if they were one,
            use ``(out.loss * (out.label_count / total)).backward()``.
        hidden_states, attentions: as in EncoderOutput.
    """

    logits: Tensor
    loss: Tensor | None = None
    label_count: int = 0
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass(frozen=True)
class TokenClassifierLoss:
    """Result of ``BertForTokenClassification.loss``.

    Attributes:
        loss, label_count: as in TokenClassifierOutput.
        weight: what the mean was divided by, ``label_count`` unless classes have weights.
    """

    loss: Tensor
    label_count: int
    weight: float
