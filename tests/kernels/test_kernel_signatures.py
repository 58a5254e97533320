"""The kernels' interface: one table, which every implementation must equal."""

import pytest
from kernel_contract import assert_signatures
from kernel_implementations import FOLDERS, implementations, modules

SIGNATURES = {
    "adamw.global_norm": "(gradients, *, touched=None)",
    "adamw.update": (
        "(parameters, gradients, first_moment, second_moment, *,"
        " segments, beta1, beta2, eps, torch_compat, touched=None)"
    ),
    "attention.forward": "(q, k, v, cu_seqlens, *, heads, scale, dropout=0.0, seed=0, call=0)",
    "attention.backward": (
        "(grad_context, q, k, v, log_sum_exp, cu_seqlens, *, heads, scale, dropout=0.0, seed=0, call=0)"
    ),
    "cross_entropy.forward": "(logits, labels, class_weights, *, ignore_index, label_smoothing)",
    "cross_entropy.backward": (
        "(grad_loss, logits, labels, class_weights, log_sum_exp, total_weight, *, ignore_index, label_smoothing)"
    ),
    "dropout.keep_mask": "(shape, *, probability, seed, call, first=0, xp)",
    "dropout.forward": "(x, *, probability, seed, call, first=0, rows=None)",
    "dropout.backward": "(grad_y, *, probability, seed, call, first=0, rows=None)",
    "embedding.forward": "(tables, indices)",
    "embedding.backward": "(grad_y, index, *, out, padding_index=None)",
    "gelu.forward": "(x, bias, *, approximate)",
    "gelu.backward": "(grad_y, x, bias, *, approximate)",
    "layer_norm.forward": "(x, residual, weight, bias, *, eps, dropout=0.0, seed=0, call=0, rows=None)",
    "layer_norm.backward": "(grad_y, total, weight, mean, rstd, *, dropout=0.0, seed=0, call=0, rows=None)",
    "matmul.column_sums": "(x)",
    "matmul.matmul": (
        "(a, b, *, transpose_a=False, transpose_b=False, out=None, accumulate=False, bias=None, bfloat16=False)"
    ),
    "philox.philox4x32": "(counter, key, rounds=10)",
    "philox.words": "(count, *, seed, call, first=0, xp)",
    "softmax.forward": "(x, mask, *, scale, dropout=0.0, seed=0, call=0, first=0)",
    "softmax.backward": "(grad_y, probabilities, *, scale, dropout=0.0, seed=0, call=0, first=0)",
}

# What a GPU has besides: results written where they belong, 16 bits, tables that lie on the device
CUDA_SIGNATURES = {
    "adamw.clip_lines": "(gradients, table, *, max_norm)",
    "adamw.update_lines": "(buffers, table, options, *, torch_compat, shadow=None, clip=None)",
    "attention.backward_joined": (
        "(grad_context, context, joined, log_sum_exp, layout, *, heads, scale, dropout, seed, call)"
    ),
    "attention.forward_joined": "(joined, layout, *, heads, scale, dropout, seed, call)",
    "embedding.forward_rounded": "(tables, indices, *, dtype)",
    "gelu.backward_into": "(grad_y, x, bias, *, approximate, grad_bias, accumulate)",
    "layer_norm.backward_into": (
        "(grad_y, total, weight, mean, rstd, *, grad_weight, grad_bias, accumulate, **options)"
    ),
    "matmul.column_sums_into": "(x, out, accumulate)",
}


@pytest.mark.parametrize("folder", FOLDERS)
def test_signatures(folder: str) -> None:
    for module in modules(folder):
        on_cuda = module.__name__.endswith(".cuda")
        assert_signatures(module, SIGNATURES | CUDA_SIGNATURES if on_cuda else SIGNATURES)


def test_every_folder_has_a_reference() -> None:
    assert {name.partition(".")[0] for name in SIGNATURES} == set(FOLDERS)
    for folder in FOLDERS:
        assert implementations(folder)[0].is_reference


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_runs(folder: str) -> None:
    """A file for a device that is not here is checked for its signatures alone; then this says so."""
    idle = set(modules(folder)) - {implementation.module for implementation in implementations(folder)}
    if idle:
        pytest.skip(f"no device here runs {', '.join(module.__name__ for module in idle)}")


def test_no_default_of_a_rate_or_eps() -> None:
    """Each default exists once, above the kernels; dropout's three say "none" and stand together."""
    for name, text in SIGNATURES.items():
        for word in ("eps=", "scale=", "probability=", "beta1=", "approximate=", "ignore_index="):
            assert word not in text, name
