"""BERT: a transformer encoder over word pieces (Devlin et al. 2019).

    B sentences    S padded length    T tokens of the whole packed batch    V vocabulary
    D model width  H heads            K = D / H head width                  F feed-forward width

    input_ids (T,) -> embeddings (T, D) -> [ attention (T, D) -> feed-forward (T, F) -> (T, D) ] x layers

Inside the model there is no padding: the tokens of all sentences lie end to end, and only attention needs to know
where one ends (``cu_seqlens``). Behind the last layer's attention no token looks at another any more: who needs the
results of only N of the T tokens says which (``rows``), and the rest of that layer is computed for those, (N, D).

Attribute names follow Hugging Face's modules, so that a parameter has the same name in memory, in a checkpoint and in
transformers: ``bert.encoder.layer.0.attention.self.query.weight``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from minitl import nn, ops
from minitl.kernels.launch import is_short
from minitl.models.composed_attention import composed_attention, unpack_weights
from minitl.models.config import HIDDEN_ACTS, BertConfig
from minitl.models.outputs import EncoderOutput
from minitl.models.padding import Ids, Padding, check_ranges, pack
from minitl.models.placed_batch import PlacedBatch
from minitl.models.pretrained import PretrainedMixin
from minitl.ops.attention import Offsets
from minitl.tensor import Tensor
from minitl.text.batch import PackedBatch


def linear_layer(config: BertConfig, inputs: int, outputs: int, dtype: npt.DTypeLike) -> nn.Linear:
    """Return a new linear layer as BERT's start."""
    return nn.Linear(inputs, outputs, std=config.initializer_range, dtype=dtype)


def _layer_norm(config: BertConfig, dtype: npt.DTypeLike) -> nn.LayerNorm:
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, dtype=dtype)


class BertEmbeddings(nn.Module):
    """Word + position + segment vectors, normalised and dropped out."""

    def __init__(self, config: BertConfig, dtype: npt.DTypeLike) -> None:
        width, std = config.hidden_size, config.initializer_range
        self.word_embeddings = nn.Embedding(
            config.vocab_size, width, padding_id=config.pad_token_id, std=std, dtype=dtype
        )
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width, std=std, dtype=dtype)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width, std=std, dtype=dtype)
        self.LayerNorm = _layer_norm(config, dtype)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, batch: PackedBatch | PlacedBatch) -> Tensor:
        tables = (self.word_embeddings, self.position_embeddings, self.token_type_embeddings)
        total = ops.embedding_sum(
            [table.weight for table in tables],
            [batch.input_ids, batch.positions, batch.segments],
            padding_ids=[table.padding_id for table in tables],
        )  # (T, D)
        return self.dropout(self.LayerNorm(total))


class BertSelfAttention(nn.Module):
    """Every token's weighted mean of its sentence's values, in H heads of width K = D / H."""

    def __init__(self, config: BertConfig, dtype: npt.DTypeLike) -> None:
        self.heads = config.num_attention_heads
        self.dropout_probability = config.attention_probs_dropout_prob
        self.query = linear_layer(config, config.hidden_size, config.hidden_size, dtype)
        self.key = linear_layer(config, config.hidden_size, config.hidden_size, dtype)
        self.value = linear_layer(config, config.hidden_size, config.hidden_size, dtype)

    def forward(self, x: Tensor, cu_seqlens: Offsets, weights_out: list[Tensor] | None) -> Tensor:
        maps = (self.query, self.key, self.value)
        biases = [one.bias for one in maps if one.bias is not None]
        weights = [one.weight for one in maps]
        dropout = self.dropout_probability if self.training else 0.0
        if is_short(x.dtype) and weights_out is None:  # on a GPU, where one product is faster than three
            joined = ops.linear_joined(x, weights, biases)  # (T, 3 D)
            return ops.attention_joined(joined, cu_seqlens, heads=self.heads, dropout=dropout)  # (T, D)
        q, k, v = ops.linear_many(x, weights, biases)  # each (T, D)
        if weights_out is None:
            return ops.attention(q, k, v, cu_seqlens, heads=self.heads, dropout=dropout)  # (T, D)
        assert isinstance(cu_seqlens, np.ndarray)  # hidden_states leaves them so where weights are wanted
        q, k, v = (ops.astype(one, "float32") if is_short(one.dtype) else one for one in (q, k, v))
        context, probabilities = composed_attention(q, k, v, cu_seqlens, heads=self.heads, dropout=dropout)
        weights_out.append(probabilities)
        return context


class BertSublayerOutput(nn.Module):
    """The end of both sublayers: project back to width D, drop out, add the sublayer's input, normalise."""

    def __init__(self, config: BertConfig, inputs: int, dtype: npt.DTypeLike) -> None:
        self.dropout_probability = config.hidden_dropout_prob
        self.dense = linear_layer(config, inputs, config.hidden_size, dtype)
        self.LayerNorm = _layer_norm(config, dtype)

    def forward(self, x: Tensor, residual: Tensor, rows: np.ndarray | None) -> Tensor:
        return self.LayerNorm(self.dense(x), residual, dropout=self.dropout_probability, rows=rows)


class BertAttention(nn.Module):
    """The attention sublayer. (Hugging Face calls its first half ``self``; so does every checkpoint.)"""

    def __init__(self, config: BertConfig, dtype: npt.DTypeLike) -> None:
        self.self = BertSelfAttention(config, dtype)
        self.output = BertSublayerOutput(config, config.hidden_size, dtype)

    def forward(
        self, x: Tensor, cu_seqlens: Offsets, weights_out: list[Tensor] | None, rows: np.ndarray | None
    ) -> Tensor:
        context = self.self(x, cu_seqlens, weights_out)  # (T, D)
        if rows is not None:
            context, x = ops.take_rows(context, rows), ops.take_rows(x, rows)  # each (N, D)
        return self.output(context, residual=x, rows=rows)


class BertIntermediate(nn.Module):
    """The wide half of the feed-forward sublayer: (T, D) -> (T, F), with the activation."""

    def __init__(self, config: BertConfig, dtype: npt.DTypeLike) -> None:
        self.activation = HIDDEN_ACTS[config.hidden_act]
        self.dense = linear_layer(config, config.hidden_size, config.intermediate_size, dtype)

    def forward(self, x: Tensor) -> Tensor:
        if self.activation == "relu":
            return ops.relu(self.dense(x))
        # the bias goes to the fused bias + GELU kernel, which saves a pass over (T, F)
        return ops.gelu(ops.linear(x, self.dense.weight), self.dense.bias, approximate=self.activation)


class BertLayer(nn.Module):
    """Attention, then feed-forward; each adds to its input and normalises the sum ("post-LN")."""

    def __init__(self, config: BertConfig, dtype: npt.DTypeLike) -> None:
        self.attention = BertAttention(config, dtype)
        self.intermediate = BertIntermediate(config, dtype)
        self.output = BertSublayerOutput(config, config.intermediate_size, dtype)

    def forward(
        self, x: Tensor, cu_seqlens: Offsets, weights_out: list[Tensor] | None, rows: np.ndarray | None = None
    ) -> Tensor:
        """Return the layer's output for all tokens, (T, D), or for those of ``rows`` (N,), then (N, D)."""
        attended = self.attention(x, cu_seqlens, weights_out, rows)  # (T, D)
        widened = self.intermediate(attended)  # (T, F)
        return self.output(widened, residual=attended, rows=rows)  # (T, D)


class BertEncoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: BertConfig, dtype: npt.DTypeLike) -> None:
        self.layer = [BertLayer(config, dtype) for _ in range(config.num_hidden_layers)]

    def forward(
        self, x: Tensor, cu_seqlens: Offsets, weights_out: list[Tensor] | None, rows: np.ndarray | None = None
    ) -> list[Tensor]:
        """Return the input and the output of every layer, each (T, D); the last is (N, D) for ``rows`` (N,)."""
        hidden_states = [x]
        for layer in self.layer[:-1]:
            hidden_states.append(layer(hidden_states[-1], cu_seqlens, weights_out))
        hidden_states.append(self.layer[-1](hidden_states[-1], cu_seqlens, weights_out, rows))
        return hidden_states


class BertPooler(nn.Module):
    """A vector for the whole sentence: tanh of a projection of its first token."""

    def __init__(self, config: BertConfig, dtype: npt.DTypeLike) -> None:
        self.dense = linear_layer(config, config.hidden_size, config.hidden_size, dtype)

    def forward(self, x: Tensor, cu_seqlens: np.ndarray) -> Tensor:
        return ops.tanh(self.dense(x[cu_seqlens[:-1]]))  # (B, D)


class BertModel(PretrainedMixin, nn.Module):
    """The encoder. New models start with random parameters; ``minitl.manual_seed`` makes them repeatable.

    Args:
        config: sizes and rates, with Hugging Face's names.
        dtype: ``"float32"`` or ``"float64"``.
        add_pooler: whether there is a pooler.
    """

    base_prefix = ""

    def __init__(self, config: BertConfig, dtype: npt.DTypeLike = "float32", add_pooler: bool = True) -> None:
        config.validate()  # again: fields may have been assigned since it was built
        self.config = config
        self.embeddings = BertEmbeddings(config, dtype)
        self.encoder = BertEncoder(config, dtype)
        self.pooler = BertPooler(config, dtype) if add_pooler else None

    def forward(
        self,
        input_ids: PackedBatch | Ids,
        attention_mask: Ids | None = None,
        token_type_ids: Ids | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> EncoderOutput:
        """Encode padded sentences (B, S), or a PackedBatch.

        Args:
            input_ids: (B, S) integers, or a PackedBatch, which brings everything else.
            attention_mask: (B, S) of 0 and 1; all 1 if None.
            token_type_ids: (B, S) integers; all 0 if None.
            output_hidden_states: return the embeddings and every layer's output.
            output_attentions: return the attention weights of every layer, through the composed attention.

        Raises:
            ValueError: ids out of range, shapes that do not fit, or attentions asked of a PackedBatch.
        """
        batch, padding = open_door(input_ids, attention_mask, token_type_ids, None, output_attentions)
        encoded = self.encode(batch, output_hidden_states, output_attentions)
        return encoded if padding is None else unpack(encoded, batch, padding)

    def encode(self, batch: PackedBatch, output_hidden_states: bool, output_attentions: bool) -> EncoderOutput:
        """Run the encoder on a packed batch; everything in the result is packed."""
        weights: list[Tensor] | None = [] if output_attentions else None
        states = self.hidden_states(batch, weights)
        return EncoderOutput(
            last_hidden_state=states[-1],
            pooler_output=self.pooler(states[-1], batch.cu_seqlens) if self.pooler is not None else None,
            hidden_states=tuple(states) if output_hidden_states else None,
            attentions=None if weights is None else tuple(weights),
        )

    def hidden_states(
        self, batch: PackedBatch | PlacedBatch, weights_out: list[Tensor] | None = None, rows: np.ndarray | None = None
    ) -> list[Tensor]:
        """Return the embeddings and every layer's output of a packed batch, each (T, D).

        Args:
            batch: the tokens; a PlacedBatch is on the device already, and trusted.
            weights_out: takes the attention weights of every layer, through the composed attention, if given.
            rows: (N,) integers, no two equal: the tokens for which the last layer's output, then (N, D), is wanted; all
                if None.

        Raises:
            ValueError: ids out of range.
        """
        offsets: Offsets = batch.cu_seqlens
        if isinstance(batch, PackedBatch):
            check_ranges(batch, self.config)
            if weights_out is None:
                offsets = ops.sentences(batch.cu_seqlens, batch.token_count, self.device)
        states: list[Tensor] = self.encoder(self.embeddings(batch), offsets, weights_out, rows)
        return states

    @property
    def device(self) -> str:
        """Where the parameters live."""
        return self.embeddings.word_embeddings.weight.device


def open_door(
    input_ids: PackedBatch | Ids,
    attention_mask: Ids | None,
    token_type_ids: Ids | None,
    labels: Ids | None,
    output_attentions: bool,
) -> tuple[PackedBatch, Padding | None]:
    """Accept padded arrays or a PackedBatch; return it packed, and how to go back (None for what came packed)."""
    if not isinstance(input_ids, PackedBatch):
        return pack(input_ids, attention_mask, token_type_ids, labels)
    if any(extra is not None for extra in (attention_mask, token_type_ids, labels)):
        raise ValueError("a PackedBatch brings its own mask, segments and labels; pass nothing beside it")
    if output_attentions:
        raise ValueError(
            "output_attentions needs padded input (B, S): the weights of a PackedBatch have no common shape"
        )
    return input_ids, None


def unpack(encoded: EncoderOutput, batch: PackedBatch, padding: Padding) -> EncoderOutput:
    """Put everything in ``encoded`` back into padded shapes; the pooler's output has no padding."""
    states, weights = encoded.hidden_states, encoded.attentions
    return EncoderOutput(
        last_hidden_state=padding.unpack(encoded.last_hidden_state),
        pooler_output=encoded.pooler_output,
        hidden_states=None if states is None else tuple(padding.unpack(state) for state in states),
        attentions=None if weights is None else tuple(unpack_weights(w, batch, padding) for w in weights),
    )
