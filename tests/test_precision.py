"""The precision policy: where it holds, what it rounds, what it leaves in float32, and where it is refused."""

from __future__ import annotations

import contextvars
import importlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny import packed_batches, tiny_config, write_tiny_data, write_tiny_model

import minitl
from minitl import Tensor, ops, optim
from minitl.errors import MinitlError, PrecisionError
from minitl.kernels.matmul import cublas
from minitl.kernels.processor import Processor
from minitl.kernels.select import select
from minitl.models import BertForTokenClassification, PackedBatch
from minitl.precision import Precision, current_precision, products_in_bfloat16
from minitl.training import train_step

Arrays = dict[str, np.ndarray]
# A bfloat16 has 8 bits of precision, the leading 1 included: rounding to nearest is off by at most half of the last.
HALF_OF_THE_LAST = 2.0**-9


@pytest.fixture(autouse=True)
def reference_kernels() -> Iterator[None]:
    """They compute bfloat16 on every processor."""
    with minitl.use_kernels("reference"):
        yield


def rounded(x: np.ndarray) -> np.ndarray:
    """The nearest numbers of 8 bits, ties to even, by arithmetic on their significands, in float64."""
    significand, exponent = np.frexp(x.astype(np.float64))
    return np.ldexp(np.rint(significand * 2**8), exponent - 8)  # NumPy's rint takes ties to even


# -- where it holds ----------------------------------------------------------------------------------------------------


def test_the_policy_is_float32_and_holds_inside_the_block() -> None:
    assert current_precision() == Precision("float32")
    with minitl.precision("bfloat16") as policy:
        assert policy == current_precision() == Precision("bfloat16")
        with minitl.precision("float32"):
            assert current_precision().compute == "float32"
        assert current_precision().compute == "bfloat16"
    assert current_precision().compute == "float32"


def test_an_error_ends_it() -> None:
    with pytest.raises(KeyError), minitl.precision("bfloat16"):
        raise KeyError
    assert current_precision().compute == "float32"


@pytest.mark.parametrize("wrong", ["float17", "bf16", "", "float64"])
def test_other_words_are_refused(wrong: str) -> None:
    with (
        pytest.raises(ValueError, match="precision takes 'float32', 'bfloat16', 'float16', 'tf32', 'auto', not"),
        minitl.precision(wrong),
    ):
        raise AssertionError("never entered")


def test_other_threads_are_not_affected() -> None:
    """Unless they are started with a copy of the context, as tasks are."""
    seen: dict[str, str] = {}

    def note(name: str) -> None:
        seen[name] = current_precision().compute

    def in_thread(target: Callable[..., Any], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments)
        thread.start()
        thread.join()

    with minitl.precision("bfloat16"):
        in_thread(note, "thread")
        in_thread(contextvars.copy_context().run, note, "copy")
        note("here")
    assert seen == {"thread": "float32", "copy": "bfloat16", "here": "bfloat16"}


def test_two_threads_hold_different_policies_at_once() -> None:
    """Neither ends the other's, whatever the order in which their blocks begin and end."""
    turn, found = threading.Barrier(2, timeout=10), {}

    def work(compute: str) -> None:
        with minitl.use_kernels("reference"), minitl.precision(compute):
            turn.wait()
            found[compute] = products_in_bfloat16(np.dtype(np.float32))
            turn.wait()

    threads = [threading.Thread(target=work, args=(compute,)) for compute in ("float32", "bfloat16")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"float32": False, "bfloat16": True}


# -- where there is none -----------------------------------------------------------------------------------------------


@pytest.fixture
def compiled_kernels(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Pretend that compiled kernels run, on a processor with or without bfloat16."""

    def pretend(has_bfloat16: bool) -> None:
        kernel = SimpleNamespace(__name__="minitl.kernels.matmul.cpu")
        module = importlib.import_module("minitl.precision")  # the attribute of minitl is the function
        monkeypatch.setattr(module, "select", lambda name, device: kernel)
        monkeypatch.setattr(module, "processor", lambda: Processor(64, has_bfloat16))

    return pretend


def test_bfloat16_is_refused_where_the_processor_lacks_it(compiled_kernels: Callable[[bool], None]) -> None:
    compiled_kernels(False)
    with pytest.raises(PrecisionError) as caught, minitl.precision("bfloat16"):
        raise AssertionError("never entered")
    assert str(caught.value) == (
        "precision 'bfloat16' needs a processor that multiplies it (AVX512-BF16, in /proc/cpuinfo avx512_bf16), and "
        "this one does not; use 'float32', or 'auto', which takes bfloat16 only where it is. (For a model on a GPU say "
        "minitl.precision('bfloat16', device='cuda').) To see what rounding does to a model, at reference speed, go "
        "around it with minitl.use_kernels('reference')"
    )
    assert isinstance(caught.value, MinitlError)
    assert current_precision().compute == "float32"


@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_auto_is_bfloat16_where_the_processor_has_it(
    compiled_kernels: Callable[[bool], None], has_bfloat16: bool
) -> None:
    compiled_kernels(has_bfloat16)
    with minitl.precision("auto"):
        assert current_precision().compute == ("bfloat16" if has_bfloat16 else "float32")
    with minitl.precision("float32"):
        assert current_precision().compute == "float32"


def test_auto_is_float32_with_the_reference_kernels() -> None:
    """They would only imitate it, more slowly than they compute float32."""
    with minitl.precision("auto") as policy:
        assert policy.compute == "float32"


def test_float64_models_are_refused() -> None:
    x, weight = Tensor(np.ones((2, 3))), Tensor(np.ones((4, 3)))
    with minitl.precision("bfloat16"):
        for call in (lambda: ops.linear(x, weight), lambda: ops.linear_many(x, [weight], [Tensor(np.ones(4))])):
            with pytest.raises(
                TypeError, match=r"bfloat16 computes for float32 models, these operands are float64; .*to\("
            ):
                call()
    assert ops.linear(x, weight).dtype == np.float64


# -- what it rounds ----------------------------------------------------------------------------------------------------


def operands() -> Arrays:
    random = np.random.default_rng(0)
    shapes = {"x": (7, 33), "weight": (5, 33), "bias": (5,), "grad_y": (7, 5)}
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def linear_results(forward: str, backward: str) -> Arrays:
    """The value and the gradients of a linear layer, recorded under one policy and differentiated under another."""
    arrays = operands()
    leaves = {name: Tensor(arrays[name], requires_grad=True) for name in ("x", "weight", "bias")}
    with minitl.precision(forward):
        y = ops.linear(*leaves.values())
    with minitl.precision(backward):
        y.backward(Tensor(arrays["grad_y"]))
    return {"y": y.numpy(), **{name: leaf.grad.numpy() for name, leaf in leaves.items()}}  # type: ignore[union-attr]


def test_operands_are_rounded_and_sums_are_not() -> None:
    a = operands()
    x, weight, grad_y = rounded(a["x"]), rounded(a["weight"]), rounded(a["grad_y"])
    assert (x != a["x"]).any()
    wanted = {
        "y": x @ weight.T + a["bias"],
        "x": grad_y @ weight,
        "weight": grad_y.T @ x,
        "bias": a["grad_y"].astype(np.float64).sum(axis=0),  # no matrix product: nothing is rounded
    }
    for name, found in linear_results("bfloat16", "bfloat16").items():
        assert found.dtype == np.float32
        # products of two 8-bit numbers are exact in float32; at most 33 additions of terms of size 1 to 10
        np.testing.assert_allclose(found, wanted[name], rtol=0, atol=33 * 6e-8 * 10, err_msg=name)


def test_backward_has_the_policy_of_forward() -> None:
    """Bit for bit, wherever it is called."""
    for policy, other in (("bfloat16", "float32"), ("float32", "bfloat16")):
        same, different = linear_results(policy, policy), linear_results(policy, other)
        for name, array in same.items():
            np.testing.assert_array_equal(different[name], array, err_msg=name)
    changed = linear_results("float32", "float32")
    assert all((same[name] == array).all() for name, array in changed.items())
    rough = linear_results("bfloat16", "bfloat16")
    assert all((rough[name] != changed[name]).any() for name in ("y", "x", "weight"))


def test_many_maps_round_as_one_does() -> None:
    a = operands()
    results = []
    for many in (True, False):
        leaves = [Tensor(a[name], requires_grad=True) for name in ("x", "weight", "bias")]
        with minitl.precision("bfloat16"):
            y = ops.linear_many(leaves[0], leaves[1:2], leaves[2:])[0] if many else ops.linear(*leaves)
        y.backward(Tensor(a["grad_y"]))
        results.append([y.numpy(), *(leaf.grad.numpy() for leaf in leaves)])  # type: ignore[union-attr]
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


# -- models ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("precision")
    return write_tiny_model(root / "model"), write_tiny_data(root / "data")


def batch_of(folders: tuple[Path, Path]) -> PackedBatch:
    return packed_batches(*folders, batch_size=100)[0]


def tagger(folder: Path) -> BertForTokenClassification:
    minitl.manual_seed(2)
    labels = ["O", "B-LOC", "B-ORG", "B-PER"]
    return BertForTokenClassification.from_pretrained(folder, id2label=labels, new_head=True)


def loss_and_gradients(batch: PackedBatch, compute: str) -> tuple[float, Arrays]:
    minitl.manual_seed(2)
    model = BertForTokenClassification(tiny_config(num_labels=4, initializer_range=0.2))
    with minitl.precision(compute):
        loss = model.loss(batch).loss
    loss.backward()
    return loss.item(), {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}


def test_gradients_of_a_model_are_close_to_float32s(folders: tuple[Path, Path]) -> None:
    """Each operand is off by 2^-9 of itself at most, at random. A gradient has come through some 25 products, of which
    each adds two such errors: 2^-9 * sqrt(50) is 0.014. Of the largest element of a gradient, so much is allowed twice.
    """
    batch = batch_of(folders)
    (loss, gradients), (rough_loss, rough) = (loss_and_gradients(batch, compute) for compute in ("float32", "bfloat16"))
    allowed = 2 * HALF_OF_THE_LAST * np.sqrt(50)
    assert rough_loss == pytest.approx(loss, rel=allowed)
    assert rough_loss != loss
    largest = max(np.abs(gradient).max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        assert rough[name].dtype == np.float32
        # the keys' biases have no gradient but rounding (a softmax takes no notice of them): their scale is the model's
        scale = largest if name.endswith("key.bias") else np.abs(gradient).max()
        assert np.abs(rough[name] - gradient).max() <= allowed * scale, name


def test_a_model_trains_evaluates_and_predicts_under_the_policy(folders: tuple[Path, Path]) -> None:
    model = tagger(folders[0])
    optimizer = optim.AdamW(model.parameters(), lr=3e-3)
    batch = batch_of(folders)
    with minitl.precision("bfloat16"):
        losses = [train_step(model, [batch], optimizer).loss for _ in range(60)]
        logits = model.predict_logits(batch)
    assert losses[-1] < losses[0] / 2
    assert all(parameter.dtype == np.float32 for parameter in model.parameters())
    assert logits.dtype == np.float32
    exact = model.predict_logits(batch)
    assert 0 < np.abs(logits - exact).max() < 0.1  # of size 1 to 5, a few per cent off


def test_a_saved_folder_holds_float32(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """The parameters themselves, with every bit that training gave them."""
    model = tagger(folders[0])
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)
    with minitl.precision("bfloat16"):
        train_step(model, [batch_of(folders)], optimizer)
        model.save_pretrained(tmp_path / "saved")
    with (tmp_path / "saved" / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header.pop("__metadata__")
    assert {entry["dtype"] for entry in header.values()} == {"F32"}
    again = BertForTokenClassification.from_pretrained(tmp_path / "saved")
    for name, values in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], values, err_msg=name)
        bits = values.view(np.uint32) & 0xFFFF
        assert bits.any() or not values.any() or (values == 1).all() or values.size < 5, name


def test_tf32_is_the_precision_of_all_three_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backward's, too, wherever it is called: a GPU is told so by the context in which the kernel runs."""
    seen = []
    kernel = select("matmul", "cpu")
    plain = kernel.matmul

    def watched(*arguments: Any, **options: Any) -> Any:
        seen.append(cublas.tf32_is_on())
        return plain(*arguments, **options)

    monkeypatch.setattr(kernel, "matmul", watched)
    x = Tensor(np.ones((3, 4), np.float32), requires_grad=True)
    weight = Tensor(np.ones((2, 4), np.float32), requires_grad=True)
    monkeypatch.setattr(
        importlib.import_module("minitl.precision"), "_resolved_for_cuda", lambda compute, device: compute
    )
    monkeypatch.setattr(importlib.import_module("minitl.precision"), "check_device", lambda device: device)
    with minitl.precision("tf32", device="cuda"):
        y = ops.linear(x, weight)
    assert not cublas.tf32_is_on()
    ops.sum(y).backward()
    assert seen == [True] * 3
    ops.sum(ops.linear(x, weight)).backward()
    assert seen == [True] * 3 + [False] * 3
