"""The kernels' interface: one table, which every implementation (reference, and later cpu and cuda) must equal."""

import importlib
import inspect
import pkgutil
from types import ModuleType

import minitl.kernels

SIGNATURES = {
    "adamw.global_norm": "(gradients)",
    "adamw.update": "(parameters, gradients, first_moment, second_moment, *, segments, beta1, beta2, eps)",
    "attention.forward": "(q, k, v, cu_seqlens, *, heads, scale, dropout=0.0, seed=0, call=0)",
    "attention.backward": (
        "(grad_context, q, k, v, log_sum_exp, cu_seqlens, *, heads, scale, dropout=0.0, seed=0, call=0)"
    ),
    "cross_entropy.forward": "(logits, labels, class_weights, *, ignore_index, label_smoothing)",
    "cross_entropy.backward": (
        "(grad_loss, logits, labels, class_weights, log_sum_exp, total_weight, *, ignore_index, label_smoothing)"
    ),
    "dropout.keep_mask": "(shape, *, probability, seed, call, first=0, xp)",
    "dropout.forward": "(x, *, probability, seed, call, first=0)",
    "dropout.backward": "(grad_y, *, probability, seed, call, first=0)",
    "embedding.forward": "(tables, indices)",
    "embedding.backward": "(grad_y, index, *, out, padding_index=None)",
    "gelu.forward": "(x, bias, *, approximate)",
    "gelu.backward": "(grad_y, x, bias, *, approximate)",
    "layer_norm.forward": "(x, residual, weight, bias, *, eps, dropout=0.0, seed=0, call=0)",
    "layer_norm.backward": "(grad_y, total, weight, mean, rstd, *, dropout=0.0, seed=0, call=0)",
    "matmul.matmul": "(a, b, *, transpose_a=False, transpose_b=False, out=None, accumulate=False)",
    "philox.philox4x32": "(counter, key, rounds=10)",
    "philox.words": "(count, *, seed, call, first=0, xp)",
    "softmax.forward": "(x, mask, *, scale, dropout=0.0, seed=0, call=0, first=0)",
    "softmax.backward": "(grad_y, probabilities, *, scale, dropout=0.0, seed=0, call=0, first=0)",
}


def signatures(module: ModuleType) -> dict[str, str]:
    """The public functions that a kernel module defines, without annotations."""
    folder = module.__name__.split(".")[-2]
    found = {}
    for name, function in vars(module).items():
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_"):
            signature = inspect.signature(function)
            bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
            found[f"{folder}.{name}"] = str(signature.replace(parameters=bare, return_annotation=signature.empty))
    return found


def test_reference_kernels_have_these_signatures() -> None:
    folders = [entry.name for entry in pkgutil.iter_modules(minitl.kernels.__path__) if entry.ispkg]
    found: dict[str, str] = {}
    for folder in folders:
        found |= signatures(importlib.import_module(f"minitl.kernels.{folder}.reference"))
    assert found == SIGNATURES


def test_other_implementations_have_the_same() -> None:
    """Vacuous until there are any; then each file beside a reference.py named cpu or cuda must equal it."""
    for entry in pkgutil.walk_packages(minitl.kernels.__path__, "minitl.kernels."):
        if entry.name.rpartition(".")[2] in ("cpu", "cuda"):
            found = signatures(importlib.import_module(entry.name))
            folder = entry.name.split(".")[-2]
            assert found == {name: text for name, text in SIGNATURES.items() if name.startswith(f"{folder}.")}


def test_no_default_of_a_rate_or_eps() -> None:
    """Each default exists once, above the kernels; dropout's three say "none" and stand together."""
    for name, text in SIGNATURES.items():
        for word in ("eps=", "scale=", "probability=", "beta1=", "approximate=", "ignore_index="):
            assert word not in text, name
