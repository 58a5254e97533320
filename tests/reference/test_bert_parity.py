"""The models against transformers: logits, hidden states, attentions, pooler output, the gradient of every parameter.

Both sides have the same weights, float32 numbers. torch in float64 is the truth; torch in float32 shows what float32
can do.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from hf_pairs import (  # noqa: E402
    HEADS,
    in_float32,
    our_model,
    reference_model,
    run_reference,
)
from parity import (  # noqa: E402
    GRADIENT_TOLERANCE,
    VALUE_TOLERANCE,
    PaddedInputs,
    assert_zero_where_masked,
    gradient_errors,
    largest,
    padded_inputs,
    random_config,
    run_ours,
    value_errors,
)

from minitl.errors import DownloadError  # noqa: E402
from minitl.models import BertForTokenClassification  # noqa: E402
from minitl.models.sources import DEFAULT_MODEL, resolve  # noqa: E402

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("default")]  # their warnings are not ours to fix

# Our float32 may be this much worse than torch's: each adds in an order of its own, and one or the other is luckier by
# a factor; the constants keep errors at the level of single roundings from being compared.
WORSE, VALUE_FLOOR, GRADIENT_FLOOR = 2.0, 1e-6, 1e-5


BOTH = {"float64": (True, False), "float32": (True, False)}


def check_against(
    reference: Any, inputs: PaddedInputs, ours: Callable[[str], Any], paths: dict[str, tuple[bool, ...]] = BOTH
) -> None:
    """Compare ``ours(dtype)`` with a float64 reference, with the composed attention (True) or the fused one (False)."""
    truth, true_gradients = run_reference(reference, inputs)
    float32 = in_float32(reference)
    plain, plain_gradients = run_reference(float32, inputs)
    torch_errors = value_errors(plain, truth, inputs)
    torch_gradient_error = max(gradient_errors(plain_gradients, true_gradients).values())
    show("torch float32", {**torch_errors, "gradients": torch_gradient_error})
    for dtype in paths:
        model = ours(dtype)
        for attentions in paths[dtype]:
            results, gradients = run_ours(model, inputs, attentions=attentions)
            assert_zero_where_masked(results, inputs)
            assert all(values.dtype == dtype for values in (*results.values(), *gradients.values()))
            errors = value_errors(results, truth, inputs)
            by_name = gradient_errors(gradients, true_gradients)
            worst = max(by_name, key=by_name.__getitem__)
            path = "composed" if attentions else "fused"
            show(f"minitl {dtype}, {path}", {**errors, f"gradients ({worst})": by_name[worst]})
            assert len(results) == len(truth) - (0 if attentions else reference.config.num_hidden_layers)
            assert max(errors.values()) <= VALUE_TOLERANCE[dtype], errors
            assert by_name[worst] <= GRADIENT_TOLERANCE[dtype], (worst, by_name[worst])
            if dtype == "float32":
                between = value_errors(results, plain, inputs)
                assert max(between.values()) <= VALUE_TOLERANCE[dtype], between
                for kind, error in errors.items():
                    assert error <= WORSE * torch_errors[kind] + VALUE_FLOOR, (kind, error, torch_errors[kind])
                assert by_name[worst] <= WORSE * torch_gradient_error + GRADIENT_FLOOR, (worst, torch_gradient_error)


def show(name: str, errors: dict[str, float]) -> None:
    """Print errors, for ``pytest -rP``."""
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
    check_against(reference, inputs, lambda dtype: our_model(reference, dtype))


def test_a_model_of_base_size() -> None:
    arguments = {"vocab_size": 2000, "num_labels": 9}  # 768 wide, 12 layers: BERT-base but for the vocabulary
    inputs = padded_inputs(np.random.default_rng(0), vocabulary=2000, classes=9, length=24)
    reference = reference_model("BertForTokenClassification", arguments, 0)
    ours = our_model(reference, "float64")
    # one path for each dtype, and one model converted: this is the slow test of the file
    paths = {"float64": (True,), "float32": (False,)}
    check_against(reference, inputs, lambda dtype: ours.to(dtype=dtype), paths)


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
    check_against(reference, inputs, ours.__getitem__)


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
    check_against(reference, inputs, lambda dtype: ours, {"float64": (True,)})


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
    check_against(loaded, inputs, lambda dtype: ours, {"float64": (True,)})
