"""Modules and thin layers: they hold parameters and call ops."""

from minitl.nn.layers import Dropout, Embedding, LayerNorm, Linear, unset_weights
from minitl.nn.module import Module, Parameter

__all__ = ["Dropout", "Embedding", "LayerNorm", "Linear", "Module", "Parameter", "unset_weights"]
