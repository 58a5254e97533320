"""What holds for every kernel: it refuses what a CUDA kernel would misread, lets NaN through, and changes no input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from test_kernel_signatures import SIGNATURES

from minitl.kernels.adamw import Segment
from minitl.kernels.select import select

LABELS = np.array([2, 0, -100, 1])
OFFSETS = np.array([0, 3, 4])


@dataclass
class Use:
    """A call of one kernel function: its float arguments by name, and everything else.

    Attributes:
        floats: float64 arrays.
        others: the other arguments.
        writes: names of the floats that are written in place.
        pack: how the floats become arguments, where they do not by their names.
        scalars: names of floats that are taken as they are: they have no elements to misread.
    """

    floats: dict[str, np.ndarray]
    others: dict[str, Any] = field(default_factory=dict)
    writes: tuple[str, ...] = ()
    pack: Callable[..., dict[str, Any]] = lambda **floats: floats
    scalars: tuple[str, ...] = ()


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape)


def uses() -> dict[str, Use]:
    dropout = {"dropout": 0.2, "seed": 1, "call": 2}
    adamw = {"segments": [Segment(0, 5, 0.1, 0.01, 3)], "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}
    attention = {"cu_seqlens": OFFSETS, "heads": 2, "scale": 0.5, **dropout}
    entropy = {"labels": LABELS, "ignore_index": -100, "label_smoothing": 0.1}
    rows = {name: normal(4, 6) for name in ("q", "k", "v")}
    positive = np.abs(normal(5)) + 0.1
    return {
        "adamw.global_norm": Use({"gradients": normal(5)}, pack=lambda gradients: {"gradients": [gradients]}),
        "adamw.update": Use(
            {"parameters": normal(5), "gradients": normal(5), "first_moment": normal(5), "second_moment": positive},
            adamw,
            writes=("parameters", "first_moment", "second_moment"),
        ),
        "attention.forward": Use(rows, attention),
        "attention.backward": Use({**rows, "grad_context": normal(4, 6), "log_sum_exp": normal(2, 4) + 3}, attention),
        "cross_entropy.forward": Use({"logits": normal(4, 3), "class_weights": np.array([1.0, 2.0, 3.0])}, entropy),
        "cross_entropy.backward": Use(
            {
                "grad_loss": np.array(1.5),
                "logits": normal(4, 3),
                "class_weights": np.array([1.0, 2.0, 3.0]),
                "log_sum_exp": normal(4) + 2,
                "total_weight": np.array(6.0),
            },
            entropy,
            scalars=("grad_loss", "total_weight"),
        ),
        "dropout.forward": Use({"x": normal(4, 3)}, {"probability": 0.0, "seed": 1, "call": 2}),
        "dropout.backward": Use({"grad_y": normal(4, 3)}, {"probability": 0.0, "seed": 1, "call": 2}),
        "embedding.forward": Use(
            {"one": normal(3, 4), "two": normal(2, 4)},
            {"indices": [np.array([0, 1, 2]), np.array([0, 1, 1])]},
            pack=lambda one, two: {"tables": [one, two]},
        ),
        "embedding.backward": Use(
            {"grad_y": normal(4, 2), "out": normal(3, 2)}, {"index": np.array([0, 1, 2, 1])}, writes=("out",)
        ),
        "gelu.forward": Use({"x": normal(4, 3), "bias": normal(3)}, {"approximate": "none"}),
        "gelu.backward": Use({"grad_y": normal(4, 3), "x": normal(4, 3), "bias": normal(3)}, {"approximate": "tanh"}),
        "layer_norm.forward": Use(
            {"x": normal(4, 3), "residual": normal(4, 3), "weight": normal(3), "bias": normal(3)}, {"eps": 1e-5}
        ),
        "layer_norm.backward": Use(
            {"grad_y": normal(4, 3), "total": normal(4, 3), "weight": normal(3), "mean": normal(4), "rstd": normal(4)}
        ),
        "matmul.matmul": Use(
            {"a": normal(3, 4), "b": normal(4, 2), "out": normal(3, 2)}, {"accumulate": True}, writes=("out",)
        ),
        "softmax.forward": Use({"x": normal(4, 3)}, {"mask": np.ones((4, 3), bool), "scale": 0.5}),
        "softmax.backward": Use({"grad_y": normal(4, 3), "probabilities": normal(4, 3)}, {"scale": 0.5}),
    }


WITHOUT_FLOATS = {"philox.words", "philox.philox4x32", "dropout.keep_mask"}


def call(name: str, use: Use, floats: dict[str, np.ndarray]) -> Iterator[np.ndarray]:
    """Run a kernel; yield every float array it returns or has written."""
    folder, _, function = name.partition(".")
    result = getattr(select(folder, "cpu"), function)(**use.pack(**floats), **use.others)
    for value in result if isinstance(result, tuple) else (result,):
        if value is not None:
            yield np.asarray(value)
    for written in use.writes:
        yield floats[written]


def each_argument(fewest: int = 1) -> list[Any]:
    """(kernel, argument) of every float array, for kernels that have at least so many."""
    return [
        pytest.param(name, argument, id=f"{name}-{argument}")
        for name, use in uses().items()
        for argument in use.floats
        if len(use.floats) >= fewest and argument not in use.scalars
    ]


def with_argument(name: str, argument: str, change: Callable[[np.ndarray], np.ndarray]) -> tuple[Use, dict[str, Any]]:
    use = uses()[name]
    floats = {key: value.copy() for key, value in use.floats.items()}
    floats[argument] = change(floats[argument])
    return use, floats


def test_every_kernel_is_here() -> None:
    assert set(uses()) | WITHOUT_FLOATS == set(SIGNATURES)


@pytest.mark.parametrize("name", uses())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_in_is_dtype_out_and_inputs_stay(name: str, dtype: Any) -> None:
    use = uses()[name]
    floats = {key: value.astype(dtype) for key, value in use.floats.items()}
    before = {key: value.copy() for key, value in floats.items()}
    results = list(call(name, use, floats))
    if name != "adamw.global_norm":  # a Python number
        assert {result.dtype for result in results} == {np.dtype(dtype)}
    for key in floats.keys() - set(use.writes):
        np.testing.assert_array_equal(floats[key], before[key])


@pytest.mark.parametrize(("name", "argument"), each_argument())
def test_other_memory_layouts_are_refused(name: str, argument: str) -> None:
    use, floats = with_argument(name, argument, lambda array: np.repeat(array, 2, axis=-1)[..., ::2])
    with pytest.raises(ValueError, match="must be C-contiguous; strides are"):
        list(call(name, use, floats))


@pytest.mark.parametrize(("name", "argument"), each_argument(fewest=2))
def test_mixed_dtypes_are_refused(name: str, argument: str) -> None:
    use, floats = with_argument(name, argument, lambda array: array.astype(np.float32))
    with pytest.raises(TypeError, match="one float dtype"):
        list(call(name, use, floats))


@pytest.mark.parametrize("name", uses())
@pytest.mark.parametrize("dtype", [np.float16, np.int64])
def test_other_dtypes_are_refused(name: str, dtype: Any) -> None:
    use = uses()[name]
    with pytest.raises(TypeError, match="must be float32 or float64, not"):
        list(call(name, use, {key: value.astype(dtype) for key, value in use.floats.items()}))


@pytest.mark.parametrize(("name", "argument"), each_argument())
def test_nan_in_is_nan_out(name: str, argument: str) -> None:
    """In every element of every argument; an ignored label's row of cross entropy excepted, which must not leak."""
    size = uses()[name].floats[argument].size
    for element in range(size):

        def poison(array: np.ndarray, element: int = element) -> np.ndarray:
            array.reshape(-1)[element] = np.nan
            return array

        use, floats = with_argument(name, argument, poison)
        others = dict(use.others, dropout=0.0) if "dropout" in use.others else use.others
        results = list(call(name, Use(use.floats, others, use.writes, use.pack), floats))
        ignored = name.startswith("cross_entropy") and argument in ("logits", "log_sum_exp")
        row = element if argument == "log_sum_exp" else element // 3
        leaks = any(np.isnan(result).any() for result in (results[:1] if ignored else results))
        assert leaks == (not ignored or LABELS[row] != -100), element
