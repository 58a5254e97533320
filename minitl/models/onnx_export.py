"""A BERT as an ONNX file, which ONNX Runtime and other programs run without Python and without minitl.

    input_ids, attention_mask, token_type_ids (B, S) -> logits (B, S, C), or last_hidden_state (B, S, D)

    B sentences    S padded length    N = B * S rows    V vocabulary    C classes
    D model width  H heads            K = D / H head width              F feed-forward width

The graph is written down here node by node, in the order of ``bert.py``, and reads the weights as they are in memory,
under the names of the checkpoint. One thing differs: where ``bert.py`` packs the tokens of all sentences end to end, a
graph has padding. Its rows are all B * S columns, masked ones among them, which attention leaves out and whose results
are set to 0 at the end. A kept token so gets minitl's values, up to the order of sums.

Whatever stands under the mask is without effect: ids there are replaced by 0 before a table is read, so that neither
an id out of range nor a column beyond the last position harms. What minitl refuses a graph cannot: a row with nothing
kept gives zeros, a negative id of a kept token counts from the end of the table, and any mask but 0 keeps.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from minitl import atomic_file
from minitl._version import __version__
from minitl.errors import CheckpointError
from minitl.models import names
from minitl.models.config import HIDDEN_ACTS, BertConfig
from minitl.models.onnx_graph import OnnxGraph, onnx_module

if TYPE_CHECKING:
    from minitl.models.bert import BertModel
    from minitl.models.token_classifier import BertForTokenClassification

OLDEST_OPSET = 17  # the first with LayerNormalization; ONNX Runtime 1.12 (2022) has it
NEWEST_OPSET = 22  # the last in which these operators were tried
LARGEST_FILE = 2**31 - 2**22  # bytes of weights: a protobuf message ends at 2 GiB, and nodes and names need some room
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
MASKED = float(np.finfo(np.float32).min)  # as in transformers: unlike -inf, no NaN where a whole row is masked
CUBIC, SQRT_2_OVER_PI = 0.044715, math.sqrt(2 / math.pi)  # see kernels/gelu/reference.py


def export_onnx(
    model: BertForTokenClassification | BertModel, path: str | os.PathLike[str], *, opset: int = OLDEST_OPSET
) -> None:
    """Write ``model`` to an ONNX file in one step; batch and length of its inputs are free.

    The inputs are ``input_ids``, ``attention_mask`` and ``token_type_ids``, each (B, S) int64 and none optional. The
    output is ``logits`` (B, S, C), or for a BertModel ``last_hidden_state`` (B, S, D) and, where it has a pooler,
    ``pooler_output`` (B, D); float32, and 0 at masked columns as in minitl. The file's metadata hold the configuration
    as ``config`` and the labels as ``id2label``, both in JSON; the tokenizer stays with the model folder. The model is
    written as it is in evaluation, without dropout, and is left as it is.

    Args:
        model: on any device, with float32 parameters.
        path: the file to write or replace; its folder must exist.
        opset: version of ONNX's operators, 17 to 22.

    Raises:
        MissingPackageError: the package onnx is not installed.
        CheckpointError: the file cannot be written; the weights do not fit into one file (2 GiB); or the model has
            other parameters than its configuration says, adapters for example.
        TypeError, ValueError: another kind of model, parameters or opset.
    """
    atomic_file.write_bytes(Path(path), onnx_bytes(model, opset=opset))


def onnx_bytes(model: BertForTokenClassification | BertModel, *, opset: int = OLDEST_OPSET) -> bytes:
    """Return what :func:`export_onnx` writes; the same for the same model, and accepted by onnx's own checker."""
    from minitl.models.bert import BertModel
    from minitl.models.token_classifier import BertForTokenClassification

    if not isinstance(model, BertForTokenClassification | BertModel):
        kinds = "a BertForTokenClassification or a BertModel"
        raise TypeError(f"export_onnx writes {kinds}, not {type(model).__name__}")
    if isinstance(opset, bool) or not isinstance(opset, int) or not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise ValueError(f"opset must be a whole number from {OLDEST_OPSET} to {NEWEST_OPSET}, found {opset!r}")
    is_tagger = isinstance(model, BertForTokenClassification)
    has_pooler = isinstance(model, BertModel) and model.pooler is not None
    weights = _checked_weights(model, has_pooler, is_tagger)
    onnx = onnx_module()
    graph = OnnxGraph(weights)
    batch = _door(graph, model.config)
    rows = _encoder(graph, batch, model.config, model.base_prefix)  # (N, D)
    width, sizes = model.config.hidden_size, ["batch", "sequence"]
    outputs: dict[str, list[str | int]] = {}
    if is_tagger:
        outputs["logits"] = [*sizes, model.config.num_labels]
        _unpacked(graph, batch, _linear(graph, rows, "classifier"), model.config.num_labels, "logits")
    else:
        outputs["last_hidden_state"] = [*sizes, width]
        state = _unpacked(graph, batch, rows, width, "last_hidden_state")
        if has_pooler:
            outputs["pooler_output"] = ["batch", width]
            _pooler(graph, batch, state)
    assert graph.read == weights.keys(), weights.keys() - graph.read
    proto = graph.model(
        type(model).__name__, dict.fromkeys(INPUTS, sizes), outputs,
        opset=opset, version=__version__, metadata=_metadata(model.config, is_tagger),
    )  # fmt: skip
    onnx.checker.check_model(proto, full_check=True)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _checked_weights(model: Any, has_pooler: bool, is_tagger: bool) -> dict[str, npt.NDArray[Any]]:
    """Return the model's parameters by name, after comparing them with what its configuration says."""
    weights: dict[str, npt.NDArray[Any]] = model.state_dict()
    expected = names.expected_shapes(model.config, model.base_prefix, pooler=has_pooler, classifier=is_tagger)
    found = {name: array.shape for name, array in weights.items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        raise CheckpointError(
            "this model cannot be exported: its parameters are not those of a BERT of its configuration; missing, "
            f"unexpected or of another shape: {', '.join(names.compress(wrong))}. Merge adapters into the weights first"
        )
    others = sorted({array.dtype.name for array in weights.values()} - {"float32"})
    if others:
        raise ValueError(f"export_onnx writes float32, these parameters are {others[0]}: model.to(dtype='float32')")
    size = sum(array.nbytes for array in weights.values())
    if size > LARGEST_FILE:
        raise CheckpointError(f"{size:,} bytes of weights do not fit into one ONNX file, which holds {LARGEST_FILE:,}")
    return weights


def _metadata(config: BertConfig, is_tagger: bool) -> dict[str, str]:
    values = config.to_dict()
    written = {"config": json.dumps(values, sort_keys=True, ensure_ascii=False, allow_nan=False)}
    if is_tagger:
        written["id2label"] = json.dumps(values["id2label"], ensure_ascii=False)
    return written


@dataclass(frozen=True)
class _Batch:
    """Names of what the whole graph needs to know of its inputs.

    Attributes:
        keep: (B, S) bool, True for a token that counts.
        ids, positions, segments: (B, S), 0 where nothing is kept.
        bias: (B, 1, 1, S), what is added to the scores of attention: 0 for a kept key, the smallest float32 else.
        shape: (2,), the numbers B and S.
        split: (4,), the numbers B, S, H and K.
    """

    keep: str
    ids: str
    positions: str
    segments: str
    bias: str
    shape: str
    split: str


def _door(graph: OnnxGraph, config: BertConfig) -> _Batch:
    """The inputs, as the rest of the graph wants them; compare ``pack`` in ``padding.py``."""
    ids, mask, segments = INPUTS
    zero, one = graph.constant("zero", 0, "int64"), graph.constant("one", 1, "int64")
    keep = graph.node("Cast", [mask], "keep", to=onnx_module().TensorProto.BOOL)
    shape = graph.node("Shape", [ids], "shape")
    length = graph.node("Gather", [shape, one], "length")
    columns = graph.node("Range", [zero, length, one], "columns")  # (S,): a token keeps its own column
    heads = config.num_attention_heads
    head_sizes = graph.constant("head_sizes", [heads, config.hidden_size // heads], "int64")
    keep_keys = graph.node("Unsqueeze", [keep, graph.constant("axes_of_keys", [1, 2], "int64")], "keep_keys")
    smallest = graph.constant("smallest", MASKED, "float32")
    return _Batch(
        keep=keep,
        ids=graph.node("Where", [keep, ids, zero], "kept_ids"),
        positions=graph.node("Where", [keep, columns, zero], "positions"),
        segments=graph.node("Where", [keep, segments, zero], "kept_segments"),
        bias=graph.node("Where", [keep_keys, _zero(graph), smallest], "bias_of_keys"),
        shape=shape,
        split=graph.node("Concat", [shape, head_sizes], "shape_of_heads", axis=0),
    )


def _encoder(graph: OnnxGraph, batch: _Batch, config: BertConfig, prefix: str) -> str:
    """Embeddings and all layers: (N, D)."""
    rows = graph.constant("shape_of_rows", [-1, config.hidden_size], "int64")
    total = ""
    for table, ids in (("word", batch.ids), ("position", batch.positions), ("token_type", batch.segments)):
        path = f"{prefix}embeddings.{table}_embeddings"
        vectors = graph.node("Gather", [graph.weight(f"{path}.weight"), ids], path)  # (B, S, D)
        total = graph.node("Add", [total, vectors], f"{path}.sum") if total else vectors
    total = graph.node("Reshape", [total, rows], f"{prefix}embeddings.rows")  # (N, D)
    x = _layer_norm(graph, total, f"{prefix}embeddings.LayerNorm", config)
    for number in range(config.num_hidden_layers):
        path = f"{prefix}encoder.layer.{number}"
        context = _attention(graph, batch, x, f"{path}.attention.self", config)
        attended = _sublayer_output(graph, context, x, f"{path}.attention.output", config)
        widened = _activation(graph, _linear(graph, attended, f"{path}.intermediate.dense"), path, config)  # (N, F)
        x = _sublayer_output(graph, widened, attended, f"{path}.output", config)
    return x


def _attention(graph: OnnxGraph, batch: _Batch, x: str, path: str, config: BertConfig) -> str:
    """Every token's weighted mean of its sentence's values: (N, D) -> (N, D)."""
    scale = graph.constant("scale", 1 / math.sqrt(config.hidden_size // config.num_attention_heads), "float32")
    q = graph.node("Mul", [_linear(graph, x, f"{path}.query"), scale], f"{path}.scaled")
    q = _heads(graph, batch, q, f"{path}.query", (0, 2, 1, 3))  # (B, H, S, K)
    k = _heads(graph, batch, _linear(graph, x, f"{path}.key"), f"{path}.key", (0, 2, 3, 1))  # (B, H, K, S)
    v = _heads(graph, batch, _linear(graph, x, f"{path}.value"), f"{path}.value", (0, 2, 1, 3))  # (B, H, S, K)
    scores = graph.node("MatMul", [q, k], f"{path}.scores")  # (B, H, S, S)
    masked = graph.node("Add", [scores, batch.bias], f"{path}.masked")
    weights = graph.node("Softmax", [masked], f"{path}.weights", axis=-1)
    context = graph.node("MatMul", [weights, v], f"{path}.context")  # (B, H, S, K)
    joined = graph.node("Transpose", [context], f"{path}.joined", perm=(0, 2, 1, 3))  # (B, S, H, K)
    return graph.node("Reshape", [joined, "shape_of_rows"], f"{path}.rows")


def _heads(graph: OnnxGraph, batch: _Batch, x: str, path: str, axes: tuple[int, ...]) -> str:
    """(N, D) -> (B, S, H, K), and its axes in another order."""
    split = graph.node("Reshape", [x, batch.split], f"{path}.split")
    return graph.node("Transpose", [split], f"{path}.heads", perm=axes)


def _activation(graph: OnnxGraph, x: str, path: str, config: BertConfig) -> str:
    path = f"{path}.intermediate"
    kind = HIDDEN_ACTS[config.hidden_act]
    if kind == "relu":
        return graph.node("Relu", [x], f"{path}.relu")
    one, half = graph.constant("one_float", 1, "float32"), graph.constant("half", 0.5, "float32")
    if kind == "none":  # x * Phi(x), Phi(x) = (1 + erf(x / sqrt(2))) / 2
        scaled = graph.node("Div", [x, graph.constant("sqrt_2", math.sqrt(2), "float32")], f"{path}.scaled")
        bent = graph.node("Erf", [scaled], f"{path}.erf")
    else:  # the tanh approximation: of sqrt(2 / pi) * (x + 0.044715 x^3)
        square = graph.node("Mul", [x, x], f"{path}.square")
        cubic = graph.node("Mul", [square, graph.constant("cubic", CUBIC, "float32")], f"{path}.cubic")
        factor = graph.node("Add", [cubic, one], f"{path}.factor")
        near = graph.node("Mul", [x, graph.constant("sqrt_2_over_pi", SQRT_2_OVER_PI, "float32")], f"{path}.near")
        bent = graph.node("Tanh", [graph.node("Mul", [near, factor], f"{path}.inner")], f"{path}.tanh")
    raised = graph.node("Add", [bent, one], f"{path}.raised")
    weighted = graph.node("Mul", [x, raised], f"{path}.weighted")
    return graph.node("Mul", [weighted, half], f"{path}.gelu")


def _sublayer_output(graph: OnnxGraph, x: str, residual: str, path: str, config: BertConfig) -> str:
    total = graph.node("Add", [_linear(graph, x, f"{path}.dense"), residual], f"{path}.sum")
    return _layer_norm(graph, total, f"{path}.LayerNorm", config)


def _linear(graph: OnnxGraph, x: str, path: str) -> str:
    """x @ weight.T + bias, for weights (outputs, inputs) as checkpoints have them."""
    return graph.node("Gemm", [x, graph.weight(f"{path}.weight"), graph.weight(f"{path}.bias")], path, transB=1)


def _layer_norm(graph: OnnxGraph, x: str, path: str, config: BertConfig) -> str:
    inputs = [x, graph.weight(f"{path}.weight"), graph.weight(f"{path}.bias")]
    return graph.node("LayerNormalization", inputs, path, axis=-1, epsilon=config.layer_norm_eps)


def _unpacked(graph: OnnxGraph, batch: _Batch, rows: str, width: int, name: str) -> str:
    """(N, width) -> (B, S, width), an output; 0 at masked columns."""
    last = graph.constant(f"width_of_{name}", [width], "int64")
    shape = graph.node("Concat", [batch.shape, last], f"shape_of_{name}", axis=0)
    padded = graph.node("Reshape", [rows, shape], f"padded_{name}")
    keep = graph.node("Unsqueeze", [batch.keep, graph.constant("last_axis", [2], "int64")], "keep_rows")
    return graph.node("Where", [keep, padded, _zero(graph)], name)


def _pooler(graph: OnnxGraph, batch: _Batch, state: str) -> str:
    """A vector for the whole sentence, (B, D), from its first kept token."""
    kept = graph.node("Cast", [batch.keep], "keep_float", to=onnx_module().TensorProto.FLOAT)
    first = graph.node("ArgMax", [kept], "first_kept", axis=1, keepdims=1)  # (B, 1), the first of the largest
    token = graph.node("GatherND", [state, first], "first_state", batch_dims=1)  # (B, D)
    return graph.node("Tanh", [_linear(graph, token, "pooler.dense")], "pooler_output")


def _zero(graph: OnnxGraph) -> str:
    return graph.constant("zero_float", 0, "float32")
