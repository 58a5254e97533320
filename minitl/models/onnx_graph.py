"""A graph in the making: nodes, named values and weights, as the ONNX format has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from minitl.errors import MissingPackageError

HOW_TO_GET_ONNX = 'pip install "minitl[onnx]"'


def onnx_module() -> ModuleType:
    """Import the package onnx and return it.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingPackageError(f"export to ONNX needs the package onnx: {HOW_TO_GET_ONNX} ({error})") from None
    module: ModuleType = onnx
    return module


class OnnxGraph:
    """Collects nodes in the order in which they compute, and the weights that they read.

    Values have names; a node's are the path of the module it belongs to, so that a viewer of the file shows where in
    the model one stands.

    Args:
        weights: by name, what the graph may read; :meth:`weight` says that a node reads one.
    """

    def __init__(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        self._onnx = onnx_module()
        self._weights = weights
        self._initializers: dict[str, Any] = {}
        self._nodes: list[Any] = []
        self.read: set[str] = set()

    def weight(self, name: str) -> str:
        """Say that a node reads the weight ``name``; return the name."""
        if name not in self.read:
            self._add_initializer(name, self._weights[name])
            self.read.add(name)
        return name

    def constant(self, name: str, value: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        """Enter a small constant under a name of its own; the same one may be entered again."""
        if name not in self._initializers:
            self._add_initializer(name, np.asarray(value, dtype))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node with one output, which names both; return its name."""
        self._nodes.append(self._onnx.helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def model(
        self,
        name: str,
        inputs: Mapping[str, Sequence[str]],
        outputs: Mapping[str, Sequence[str | int]],
        *,
        opset: int,
        version: str,
        metadata: Mapping[str, str],
    ) -> Any:
        """Return the finished ModelProto.

        Args:
            name: of the graph.
            inputs: name -> dimensions of each, int64; a dimension is the name of a size that is free.
            outputs: likewise, float32; a dimension may be a number.
            opset: version of ONNX's operators.
            version: of minitl.
            metadata: strings to strings, in the file's ``metadata_props``.
        """
        helper, kinds = self._onnx.helper, self._onnx.TensorProto
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info(key, kinds.INT64, list(shape)) for key, shape in inputs.items()],
            [helper.make_tensor_value_info(key, kinds.FLOAT, list(shape)) for key, shape in outputs.items()],
            list(self._initializers.values()),
        )
        opsets = [helper.make_opsetid("", opset)]
        # the oldest file format that has these operators, so that runtimes of that age read the file
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets),
            producer_name="minitl", producer_version=version,
        )  # fmt: skip
        helper.set_model_props(model, dict(metadata))
        return model

    def _add_initializer(self, name: str, array: npt.NDArray[Any]) -> None:
        self._initializers[name] = self._onnx.numpy_helper.from_array(array, name)
