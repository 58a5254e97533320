"""BERT as a token classifier: the encoder with a linear map of every token to the logits of its classes.

hidden state (T, D) -> dropout -> logits (T, C)         C classes; the other letters are those of ``bert.py``
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from minitl import nn, ops
from minitl.kernels.launch import is_short
from minitl.models.bert import BertModel, linear_layer, open_door, unpack
from minitl.models.config import BertConfig
from minitl.models.loss_options import CROSS_ENTROPY, LossOptions
from minitl.models.outputs import TokenClassifierLoss, TokenClassifierOutput
from minitl.models.padding import Ids, check_labels
from minitl.models.placed_batch import PlacedBatch
from minitl.models.pretrained import PretrainedMixin
from minitl.models.tagging import TaggingMixin
from minitl.tensor import Tensor
from minitl.text.batch import PackedBatch


class BertForTokenClassification(PretrainedMixin, TaggingMixin, nn.Module):
    """The encoder and a linear classifier of every token.

    Args:
        config: with ``num_labels`` or ``id2label``.
        dtype: ``"float32"`` or ``"float64"``.
    """

    base_prefix = "bert."

    def __init__(self, config: BertConfig, dtype: npt.DTypeLike = "float32") -> None:
        self.config = config
        self.bert = BertModel(config, dtype, add_pooler=False)
        rate = config.classifier_dropout
        self.dropout = nn.Dropout(config.hidden_dropout_prob if rate is None else rate)
        self.reset_classifier(dtype)

    def reset_classifier(self, dtype: npt.DTypeLike) -> None:
        """Start with a new random classifier (C, D), for the labels of the configuration."""
        self.classifier = linear_layer(self.config, self.config.hidden_size, self.config.num_labels, dtype)

    def forward(
        self,
        input_ids: PackedBatch | Ids,
        attention_mask: Ids | None = None,
        token_type_ids: Ids | None = None,
        labels: Ids | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> TokenClassifierOutput:
        """Classify the tokens of padded sentences (B, S), or of a PackedBatch; see BertModel.forward.

        Args:
            labels: (B, S) integers in [0, C), -100 where nothing is scored; or None. A PackedBatch brings its own.

        Raises:
            ValueError: besides BertModel's reasons, a label out of range or on a masked column.
        """
        batch, padding = open_door(input_ids, attention_mask, token_type_ids, labels, output_attentions)
        check_labels(batch, self.config.num_labels)
        encoded = self.bert.encode(batch, output_hidden_states, output_attentions)
        logits = self._logits(encoded.last_hidden_state)  # (T, C)
        loss, label_count = None, 0
        if batch.labels is not None:
            loss = ops.cross_entropy(logits, batch.labels)
            label_count = int((batch.labels != ops.IGNORE_INDEX).sum())
        if padding is not None:
            logits, encoded = padding.unpack(logits), unpack(encoded, batch, padding)
        return TokenClassifierOutput(logits, loss, label_count, encoded.hidden_states, encoded.attentions)

    def loss(self, batch: PackedBatch, options: LossOptions = CROSS_ENTROPY) -> TokenClassifierLoss:
        """Return the loss of a packed batch without its logits, for training: tokens that are not scored are left out
        as soon as no other token needs them.

        That is behind the attention of the last layer: its output projection, feed-forward and LayerNorms, dropout and
        classifier see the scored tokens only, about three quarters of all where first pieces of words are scored. Loss
        and gradients are those of ``self(batch).loss`` but for the order of sums, and dropout draws the same masks.

        Args:
            batch: with labels.
            options: weights of classes, smoothing, or focal loss; by default plain cross-entropy.

        Raises:
            ValueError: no labels, a label out of range, or ids out of range.
        """
        if batch.labels is None:
            raise ValueError("loss needs labels in the batch; without them, call the model for its logits")
        check_labels(batch, self.config.num_labels)
        scored = np.flatnonzero(batch.labels != ops.IGNORE_INDEX)
        label_count = len(scored)
        rows = None if label_count == batch.token_count else scored
        state = self.bert.hidden_states(batch, rows=rows)[-1]  # (N, D)
        labels = batch.labels[scored]
        loss = options.loss(self._logits(state, rows), labels)
        return TokenClassifierLoss(loss, label_count, options.weight(labels))

    def placed_loss(self, batch: PlacedBatch, options: LossOptions = CROSS_ENTROPY) -> Tensor:
        """Return the loss of a batch on a GPU, from all its tokens: which are scored is not known to the host."""
        return options.loss(self._logits(self.bert.hidden_states(batch)[-1]), batch.labels)

    def _logits(self, state: Tensor, rows: np.ndarray | None = None) -> Tensor:
        """Return the logits of hidden states (N, D), float32 where those are bfloat16."""
        logits: Tensor = self.classifier(self.dropout(state, rows=rows))  # (N, C)
        return ops.astype(logits, "float32") if is_short(logits.dtype) else logits
