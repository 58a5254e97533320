"""Functions that a user writes: several outputs, missing gradients, and an answer to every mistake."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minitl import Function, Tensor, no_grad, testing


def leaf(values: Any) -> Tensor:
    return Tensor(np.array(values, dtype=np.float64), requires_grad=True)


class SumAndProduct(Function):
    """Two outputs."""

    def forward(self, x: Any, y: Any, *, scale: float = 1.0) -> Any:
        self.x, self.y, self.scale = x, y, scale
        return x + y, scale * x * y

    def backward(self, grad_sum: Any, grad_product: Any) -> Any:
        grad_x = grad_sum + self.scale * grad_product * self.y
        return grad_x, grad_sum + self.scale * grad_product * self.x


def test_several_outputs() -> None:
    testing.check_gradients(lambda x, y: SumAndProduct.apply(x, y, scale=3.0), [1.0, 2.0], [3.0, 4.0])


@pytest.mark.parametrize(("used", "wanted"), [(0, [1.0, 1.0]), (1, [3.0, 4.0])])
def test_an_unused_output_counts_as_zero(used: int, wanted: list[float]) -> None:
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    SumAndProduct.apply(x, y)[used].sum().backward()
    assert x.grad.numpy().tolist() == wanted


def test_one_output_used_twice_and_a_branch_that_leads_nowhere() -> None:
    x, y = leaf([2.0]), leaf([5.0])
    total, product = SumAndProduct.apply(x, y)
    nowhere = product * 7
    (total * total).sum().backward()
    assert x.grad.numpy().tolist() == [14.0]
    assert nowhere.requires_grad


def test_needs_gradient_and_none() -> None:
    seen = []

    class Scale(Function):
        def forward(self, x: Any, factor: Any) -> Any:
            self.x, self.factor = x, factor
            return x * factor

        def backward(self, grad_y: Any) -> Any:
            seen.append(self.needs_gradient)
            return grad_y * self.factor, None

    x, factor = leaf([1.0, 2.0]), Tensor(np.array([3.0, 4.0]))
    Scale.apply(x, factor).sum().backward()
    assert seen == [(True, False)]
    assert x.grad.numpy().tolist() == [3.0, 4.0]
    assert factor.grad is None


def test_none_stops_at_this_input_only() -> None:
    class Half(Function):
        def forward(self, x: Any, y: Any) -> Any:
            return x + y

        def backward(self, grad_y: Any) -> Any:
            return None, grad_y

    x, y = leaf([1.0]), leaf([1.0])
    (Half.apply(x * 2, y * 2) + x).sum().backward()
    assert x.grad.numpy().tolist() == [1.0]
    assert y.grad.numpy().tolist() == [2.0]


def test_a_gradient_for_an_input_that_needs_none_is_dropped() -> None:
    x, y = Tensor(np.ones(1)), leaf([2.0])
    SumAndProduct.apply(x, y)[1].backward()
    assert x.grad is None
    assert y.grad.numpy().tolist() == [1.0]


def test_scalars_from_a_reduction_become_arrays() -> None:
    class Total(Function):
        def forward(self, x: Any) -> Any:
            self.shape = x.shape
            return x.sum()  # a NumPy scalar

        def backward(self, grad_y: Any) -> Any:
            return np.full(self.shape, grad_y)

    class Slope(Total):
        def backward(self, grad_y: Any) -> Any:
            return grad_y.item() * 2.0  # a Python number, for an input without dimensions

    x = leaf([1.0, 2.0])
    y = Total.apply(x)
    assert type(y.array) is np.ndarray
    y.backward()
    assert x.grad.numpy().tolist() == [1.0, 1.0]
    z = leaf(3.0)
    Slope.apply(z).backward()
    assert type(z.grad.array) is np.ndarray
    assert z.grad.item() == 2.0


def test_backward_is_given_arrays_even_without_dimensions() -> None:
    """NumPy's sum of two arrays without dimensions is a scalar; no backward shall meet one."""
    seen = []

    class Look(Function):
        def forward(self, x: Any) -> Any:
            return x * 1

        def backward(self, grad_y: Any) -> Any:
            seen.append(type(grad_y))
            return grad_y

    y = Look.apply(leaf(3.0))
    (y + y * 2).backward()
    assert seen == [np.ndarray]


def returning(backward: Any) -> type[Function]:
    return type(
        "Odd", (Function,), {"forward": lambda self, x, y: x * 1, "backward": lambda self, grad: backward(grad)}
    )


@pytest.mark.parametrize(
    ("backward", "error", "message"),
    [
        (lambda g: g, RuntimeError, r"Odd\.backward returned 1 gradients for 2 inputs"),
        (lambda g: (g, g, g), RuntimeError, r"Odd\.backward returned 3 gradients for 2 inputs"),
        (
            lambda g: (g[:1], g),
            RuntimeError,
            r"gradient of input 0 has shape \(1,\) and dtype float64, the input has \(2,\)",
        ),
        (lambda g: (g, g[None]), RuntimeError, r"gradient of input 1 has shape \(1, 2\)"),
        (lambda g: (g.astype(np.float32), g), RuntimeError, "dtype float32, the input has"),
        (lambda g: (g, 1.0), RuntimeError, r"gradient of input 1 has shape \(\)"),
        (lambda g: (Tensor(g), g), TypeError, "gradient 0 of backward is Tensor, not an array"),
        (lambda g: (g, [1.0, 2.0]), TypeError, "gradient 1 of backward is list, not an array"),
        (lambda g: (g, "zero"), TypeError, "gradient 1 of backward is str"),
    ],
)
def test_wrong_gradients(backward: Any, error: type[Exception], message: str) -> None:
    x, y = leaf([1.0, 2.0]), leaf([1.0, 2.0])
    with pytest.raises(error, match=message):
        returning(backward).apply(x, y).sum().backward()
    assert x.grad is None
    assert y.grad is None


@pytest.mark.parametrize("result", [None, "text", [1.0], Tensor(1.0), (np.zeros(1), None)])
def test_wrong_results(result: Any) -> None:
    odd = type("Odd", (Function,), {"forward": lambda self, x: result})
    with pytest.raises(TypeError, match=r"Odd: output \d of forward is \w+, not an array"):
        odd.apply(leaf([1.0]))


def test_wrong_arguments() -> None:
    for wrong in (np.zeros(2), 1.0, None, [1.0]):
        with pytest.raises(TypeError, match=rf"argument 1 is {type(wrong).__name__}, not a Tensor; wrap it"):
            SumAndProduct.apply(leaf([1.0, 2.0]), wrong)
    with pytest.raises(TypeError, match="needs at least one Tensor"):
        SumAndProduct.apply()
    with pytest.raises(TypeError, match="float32 and float64 mixed"):
        SumAndProduct.apply(leaf([1.0]), Tensor(np.zeros(1, np.float32)))


def test_missing_methods() -> None:
    class Empty(Function):
        pass

    class OnlyForward(Function):
        def forward(self, x: Any) -> Any:
            return x * 1

    with pytest.raises(NotImplementedError, match="Empty needs a forward"):
        Empty.apply(leaf([1.0]))
    y = OnlyForward.apply(leaf([1.0]))
    with pytest.raises(NotImplementedError, match=r"OnlyForward needs a .*backward"):
        y.backward()
    with no_grad():
        assert OnlyForward.apply(leaf([1.0])).item() == 1.0


def test_integer_outputs_have_no_history() -> None:
    class WithPositions(Function):
        def forward(self, x: Any) -> Any:
            return np.sort(x), np.argsort(x)

        def backward(self, grad_sorted: Any, grad_positions: Any) -> Any:
            assert grad_positions.dtype.kind == "i"
            return grad_sorted[::-1]

    x = leaf([2.0, 1.0])
    values, positions = WithPositions.apply(x)
    assert values.requires_grad
    assert not positions.requires_grad
    assert positions.is_leaf
    (values * Tensor(np.array([1.0, 10.0]))).sum().backward()
    assert x.grad.numpy().tolist() == [10.0, 1.0]


def test_a_wrong_rule_is_found() -> None:
    class Wrong(SumAndProduct):
        def backward(self, grad_sum: Any, grad_product: Any) -> Any:
            return grad_sum + grad_product * self.x, grad_sum + grad_product * self.x

    with pytest.raises(AssertionError, match="with respect to argument 0"):
        testing.check_gradients(Wrong.apply, [1.0], [3.0])
