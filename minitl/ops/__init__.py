"""Differentiable operations: one file each for the fused ones, one file a family for the primitive ones.

A file holds the maths, the public function and the Function with the rule, once, whatever the device. Primitive ops
compute with the array module (``self.xp``); fused ops call kernels (``minitl.kernels``). All are in :data:`OPS`, so
tests can enumerate them.
"""

from minitl.ops import operators as _operators  # noqa: F401  attaches the operators to Tensor
from minitl.ops.arithmetic import absolute, add, divide, multiply, negative, power, subtract
from minitl.ops.attention import attention, attention_joined, sentences
from minitl.ops.comparison import argmax, equal, greater, greater_equal, less, less_equal, not_equal
from minitl.ops.cross_entropy import IGNORE_INDEX, cross_entropy
from minitl.ops.dropout import dropout
from minitl.ops.elementary import erf, exp, log, relu, sqrt, tanh
from minitl.ops.embedding import embedding, embedding_sum
from minitl.ops.focal_loss import focal_loss
from minitl.ops.gelu import gelu
from minitl.ops.indexing import getitem, scatter_rows, take_rows
from minitl.ops.layer_norm import layer_norm
from minitl.ops.linear import linear
from minitl.ops.linear_joined import linear_joined
from minitl.ops.linear_many import linear_many
from minitl.ops.matmul import matmul
from minitl.ops.reduce import max, mean, min, sum
from minitl.ops.registry import OPS
from minitl.ops.selection import maximum, minimum, where
from minitl.ops.shape import astype, broadcast_to, concatenate, reshape, stack, transpose
from minitl.ops.softmax import softmax

__all__ = [
    "IGNORE_INDEX", "OPS", "absolute", "add", "argmax", "astype", "attention", "attention_joined", "broadcast_to",
    "concatenate", "cross_entropy", "divide", "dropout", "embedding", "embedding_sum", "equal", "erf", "exp",
    "focal_loss", "gelu", "getitem", "greater", "greater_equal", "layer_norm", "less", "less_equal", "linear",
    "linear_joined", "linear_many", "log", "matmul", "max", "maximum", "mean", "min", "minimum", "multiply", "negative",
    "not_equal", "power", "relu", "reshape", "scatter_rows", "sentences", "softmax", "sqrt", "stack", "subtract", "sum",
    "take_rows", "tanh", "transpose", "where",
]  # fmt: skip
