"""The contract can fail: a second implementation is planted beside a reference, found by being there, and found out.

It is the reference's text with one fault, in a file ``planted.py`` that its package sees while the test runs.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kernel_contract import assert_contract
from kernel_implementations import Implementation, everywhere, implementations
from test_kernel_signatures import SIGNATURES

from minitl.kernels.select import IMPLEMENTATIONS

Plant = Callable[[str, str, str], Implementation]
FEW = [(5, 2), (33, 32)]
MANY = [(2, 1025), (1025, 2)]


def test_a_file_is_found_by_being_there(plant: Plant) -> None:
    before = everywhere()
    found = plant("gelu", "", "")
    assert str(found) == "gelu.planted-cpu"
    assert found.module is not implementations("gelu")[0].module
    assert [one for one in everywhere() if one not in before] == [found]


def test_what_select_offers_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    found = plant("gelu", "", "")
    monkeypatch.setitem(IMPLEMENTATIONS, "cpu", "planted")
    assert implementations("gelu").count(found) == 1
    monkeypatch.setitem(IMPLEMENTATIONS, "elsewhere", "planted")
    assert Implementation(found.module, "elsewhere") in implementations("gelu")


@pytest.mark.parametrize("folder", ["gelu", "embedding", "matmul"])
def test_a_faithful_copy_passes(folder: str, plant: Plant) -> None:
    assert_contract(plant(folder, "", ""), FEW[:1], SIGNATURES)


#: What is wrong: folder, text of its reference, what stands there instead, words of the failure.
FAULTS: dict[str, tuple[str, str, str, str]] = {
    "default added": ("gelu", "*, approximate: str)", '*, approximate: str = "none")', "other signatures"),
    "option by position": ("gelu", "bias: Array | None, *, app", "bias: Array | None, app", "other signatures"),
    "function missing": ("gelu", "def backward(", "def _backward(", "other signatures"),
    "function too many": ("gelu", "def _tanh(", "def extra():\n    pass\n\n\ndef _tanh(", "other signatures"),
    "shapes unchecked": ("gelu", '    check_shapes(x=(x, "N F"), bias=(bias, "F"))\n', "", "None, not a ValueError"),
    "one shape unchecked": ("layer_norm", ', bias=(bias, "D")', "", "bias of one dimension more: None"),
    "memory unchecked": ("gelu", "    check_floats(x=x, bias=bias)\n", "", "not a .*Error"),
    "one array unchecked": ("gelu", "    check_floats(x=x, bias=bias)", "    check_floats(x=x)", "x float32: None"),
    "masks unchecked": ("softmax", "    check_masks(mask=mask)\n", "", "mask uint8: None"),
    "integers unchecked": ("embedding", "    check_integers(index=index)\n", "", "index float64"),
    "option unchecked": ("layer_norm", "    check_ranges(eps=(eps, 0, math.inf))\n", "", "eps = .*None, not a Val"),
    "other words": ("gelu", '"approximate", approximate, V', '"approximate (variant)", approximate, V', "reference's"),
    "another error": ("softmax", "raise ValueError(", "raise RuntimeError(", "RuntimeError.*, not a ValueError"),
    "written before checked": (
        *(
            "matmul",
            "    check_product(a",
            "    if out is not None and not accumulate:\n        out[...] = 0\n    check_product(a",
        ),
        "out was written",
    ),
    "NaN is lost": (
        *("gelu", "return 0.5 * u * (1 + _tanh(u))", "return array_module(u).fmax(0.5 * u * (1 + _tanh(u)), -1)"),
        "nan in x",
    ),
    "infinity is clipped": ("gelu", "    u = x if bias", "    x = x.clip(-90, 90)\n    u = x if bias", "inf in x"),
    "an ignored row leaks": ("cross_entropy", "xp.where(scored, row_loss, 0)", "row_loss * scored", "nan in logits"),
    "narrow integers": ("attention", "cu_seqlens[1:].tolist()", "cu_seqlens[1:]", "bounds for int8"),
    "1e-6 too much": ("gelu", "0.5 * u * (1 + _tanh(u))", "0.5000005 * u * (1 + _tanh(u))", "wrong by"),
    "widened": ("gelu", "return grad_x, grad_bias", 'return grad_x.astype("d"), grad_bias', "float64 from .*float32"),
    "a result too many": ("softmax", "return y, probabilities", "return y, probabilities, 1", "3 results"),
    "another shape": ("gelu", "grad_x.sum(axis=0)", "grad_x.sum(axis=0, keepdims=True)", "shape"),
    "zeros for None": ("gelu", "None if bias is None else grad_x", "grad_x", "result 1"),
    "argument written": ("softmax", "    scores = x * scale", "    x *= scale\n    scores = x * 1", "has written x"),
    "masked row": ("softmax", "xp.where(mask.any(axis=1, keepdims=True), maximum, 0)", "maximum", "RuntimeWarning"),
    "NaN in masked columns": ("softmax", "probabilities = xp.where(mask, probabilities, 0)", "pass", "nan in x"),
    "mask off by one": (
        "layer_norm",
        "call=call, rows=rows)\n    if res",
        "call=call + 1, rows=rows)\n    if res",
        "wrong by",
    ),
    "repeated rows": ("embedding", "xp.add.at(out, index, grad_y)", "out[index] += grad_y", "wrong by"),
    "heads share a mask": ("attention", "first += heads *", "first += 1 *", "wrong by"),
    "wrong side": ("matmul", "b.T if transpose_b", "b if transpose_b", "raised ValueError"),
    "columns past 1024": ("layer_norm", "    y = centred", "    centred[:, 1024:] = 0\n    y = centred", "wrong by"),
    "rows past 1024": ("layer_norm", "    return y, total", "    y[1024:] = 0\n    return y, total", "wrong by"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, plant: Plant) -> None:
    folder, old, new, words = FAULTS[fault]
    planted = plant(folder, old, new)
    with pytest.raises(AssertionError, match=f"(?s){words}"):
        assert_contract(planted, MANY if "1024" in fault else FEW, SIGNATURES)
