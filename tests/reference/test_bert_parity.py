"""The models against transformers: logits, hidden states, attentions, pooler output and the gradient of every parameter.

Both sides have the same weights, float32 numbers. torch in float64 is the truth; torch in float32 shows what float32 can do.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from hf_pairs import (  # noqa: E402
    HEADS, Arrays, comparable, in_float32, kept_part, our_model, reference_model, run_ours, run_reference,
)  # fmt: skip
from parity_inputs import PaddedInputs, gradient_errors, largest, padded_inputs, random_config  # noqa: E402

from minitl.errors import DownloadError  # noqa: E402
from minitl.models import BertForTokenClassification  # noqa: E402
from minitl.models.sources import DEFAULT_MODEL, resolve  # noqa: E402

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("default")]  # their warnings are not ours to fix

# Absolute, on values of order 1 to 10. float64: rounding gives 1e-14, a wrong formula (tanh for erf: 1e-4) much more than 1e-9.
# float32: 24 LayerNorm outputs of size up to 5, each step good to 6e-8 relative, give some 1e-6; torch's own distance to float64
# is as large.
VALUE_TOLERANCE = {"float64": 1e-9, "float32": 2e-5}
# Relative to the largest gradient of the tensor, see gradient_errors.
GRADIENT_TOLERANCE = {"float64": 1e-8, "float32": 1e-4}
# Our float32 may be this much worse than torch's: both add in some order of their own, so that one or the other is luckier by
# a factor; the constants keep errors at the level of single roundings from being compared.
WORSE, VALUE_FLOOR, GRADIENT_FLOOR = 2.0, 1e-6, 1e-5


def value_errors(results: Arrays, truth: Arrays, inputs: PaddedInputs) -> dict[str, float]:
    """The largest absolute error of each kind of result, on what is comparable."""
    errors: dict[str, float] = {}
    for name in results:
        kind = name.partition(".")[0]
        error = largest(kept_part(name, results[name], inputs) - kept_part(name, truth[name], inputs))
        errors[kind] = max(errors.get(kind, 0.0), error)
    return errors


def assert_zero_where_masked(results: Arrays, inputs: PaddedInputs) -> None:
    for name, values in results.items():
        if name == "pooler_output":  # has no columns
            continue
        assert not np.where(comparable(name, inputs), 0.0, values).any(), name
        if name.startswith("attentions"):
            assert not np.where(inputs.kept[:, None, None, :], 0.0, values).any(), f"{name}, columns of masked keys"


def check_against(reference: Any, inputs: PaddedInputs, ours: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Compare our models, by dtype, with a float64 reference; return the errors."""
    truth, true_gradients = run_reference(reference, inputs)
    float32 = in_float32(reference)
    plain, plain_gradients = run_reference(float32, inputs)
    torch_errors = value_errors(plain, truth, inputs)
    torch_gradient_error = max(gradient_errors(plain_gradients, true_gradients).values())
    found = {}
    for dtype, model in ours.items():
        for attentions in (True, False):  # the composed attention, then the fused one
            results, gradients = run_ours(model, inputs, attentions=attentions)
            assert_zero_where_masked(results, inputs)
            assert all(values.dtype == dtype for values in (*results.values(), *gradients.values()))
            errors = value_errors(results, truth, inputs)
            assert len(results) == len(truth) - (0 if attentions else reference.config.num_hidden_layers)
            worst = max(by_name := gradient_errors(gradients, true_gradients), key=by_name.__getitem__)
            assert max(errors.values()) <= VALUE_TOLERANCE[dtype], errors
            assert by_name[worst] <= GRADIENT_TOLERANCE[dtype], (worst, by_name[worst])
            if dtype == "float32":
                between = value_errors(results, plain, inputs)
                assert max(between.values()) <= VALUE_TOLERANCE[dtype], between
                for kind, error in errors.items():
                    assert error <= WORSE * torch_errors[kind] + VALUE_FLOOR, (kind, error, torch_errors[kind])
                assert by_name[worst] <= WORSE * torch_gradient_error + GRADIENT_FLOOR, (worst, torch_gradient_error)
            found[f"{dtype}, {'composed' if attentions else 'fused'}"] = {**errors, "gradients": by_name[worst]}
    found["torch float32"] = {**torch_errors, "gradients": torch_gradient_error}
    return found


def show(found: dict[str, dict[str, float]]) -> None:
    """Print the errors, for ``pytest -rP``."""
    for name, errors in found.items():
        print(f"{name}:", *(f"{kind} {error:.1e}" for kind, error in errors.items()))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("seed", range(8))
def test_random_tiny_models(head: str, seed: int) -> None:
    arguments = random_config(seed)
    inputs = padded_inputs(
        np.random.default_rng(seed),
        vocabulary=arguments["vocab_size"],
        classes=arguments["num_labels"],
        segments=arguments["type_vocab_size"],
    )
    reference = reference_model(head, arguments, seed)
    show(check_against(reference, inputs, {dtype: our_model(reference, dtype) for dtype in ("float64", "float32")}))


def test_a_model_of_base_size() -> None:
    arguments = {"vocab_size": 2000, "num_labels": 9}  # 768 wide, 12 layers: BERT-base but for the vocabulary
    inputs = padded_inputs(np.random.default_rng(0), vocabulary=2000, classes=9, length=24)
    reference = reference_model("BertForTokenClassification", arguments, 0)
    show(check_against(reference, inputs, {dtype: our_model(reference, dtype) for dtype in ("float64", "float32")}))


def default_weights() -> Path:
    """The folder of the default model; MINITL_TEST_MODEL names one, else it comes from wherever users get it."""
    given = os.environ.get("MINITL_TEST_MODEL")
    if given:
        return Path(given)
    try:
        return resolve(DEFAULT_MODEL).folder
    except DownloadError as error:
        pytest.skip(f"no default weights: {error}")


@pytest.mark.parametrize("head", HEADS)
def test_the_default_weights(head: str) -> None:
    folder = default_weights()
    torch.manual_seed(0)  # of the new classifier
    options = {"num_labels": 9} if head == "BertForTokenClassification" else {}
    loader = getattr(transformers, head)
    reference = loader.from_pretrained(folder, attn_implementation="eager", dtype=torch.float64, **options).eval()
    ours = {dtype: HEADS[head].from_pretrained(folder, dtype=dtype, **options) for dtype in ("float64", "float32")}
    for model in ours.values():
        for name, parameter in model.named_parameters():
            if name.startswith("classifier"):
                parameter.copy_(reference.get_parameter(name).detach().to(torch.float32).numpy())
            assert largest(parameter.numpy() - reference.get_parameter(name).detach().numpy()) < 1e-7, name
    with torch.no_grad():
        for parameter in reference.parameters():  # the new classifier too holds float32 numbers, as our models' do
            parameter.copy_(parameter.float().double())
    inputs = padded_inputs(np.random.default_rng(0), vocabulary=reference.config.vocab_size, classes=9, length=24)
    show(check_against(reference, inputs, ours))


def test_a_folder_written_by_transformers_loads_with_the_same_logits(tmp_path: Path) -> None:
    arguments = random_config(1) | {"id2label": {0: "O", 1: "B-PER", 2: "I-PER"}}
    del arguments["num_labels"]
    inputs = padded_inputs(
        np.random.default_rng(1), vocabulary=arguments["vocab_size"], classes=3, segments=arguments["type_vocab_size"]
    )
    reference = reference_model("BertForTokenClassification", arguments, 1)
    reference.save_pretrained(tmp_path)
    ours = BertForTokenClassification.from_pretrained(tmp_path, dtype="float64")
    assert ours.config.id2label == arguments["id2label"]
    check_against(reference, inputs, {"float64": ours})


def test_a_folder_written_by_minitl_loads_in_transformers_with_the_same_logits(tmp_path: Path) -> None:
    arguments = random_config(2) | {"id2label": {0: "O", 1: "B-LOC", 2: "I-LOC"}}
    del arguments["num_labels"]
    inputs = padded_inputs(
        np.random.default_rng(2), vocabulary=arguments["vocab_size"], classes=3, segments=arguments["type_vocab_size"]
    )
    ours = our_model(reference_model("BertForTokenClassification", arguments, 2), "float64")
    ours.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForTokenClassification.from_pretrained(
        tmp_path, attn_implementation="eager", dtype=torch.float64
    ).eval()
    assert loaded.config.id2label == arguments["id2label"]
    check_against(loaded, inputs, {"float64": ours})
