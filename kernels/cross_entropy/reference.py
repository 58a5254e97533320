"""Log-softmax, negative log-likelihood and the mean over scored rows, in one kernel.

    loss = sum_n w[l_n] * ( (1 - s) * -log p_n[l_n] )  +  s / C * sum_n sum_c w[c] * -log p_n[c],
           both divided by sum_n w[l_n], n over the rows whose label l_n is not ``ignore_index``

with class weights ``w`` (all 1 without) and label smoothing ``s`` (Szegedy et al. 2016, section 7). ``-log p[c]`` is
computed as ``log sum exp(x) - x[c]``; taking the log of a softmax would give -inf once two logits are 104 apart in
float32. With no scored row the loss is 0 and so is its gradient (PyTorch gives NaN).
"""

from __future__ import annotations

from minitl.kernels.launch import Array, array_module, check_floats, check_integers, check_ranges, check_shapes


def forward(
    logits: Array, labels: Array, class_weights: Array | None, *, ignore_index: int, label_smoothing: float
) -> tuple[Array, Array, Array]:
    """Return ``(loss, log_sum_exp, total_weight)``.

    Args:
        logits: (N, C).
        labels: (N,) integers in [0, C), or ``ignore_index`` for rows that are not scored.
        class_weights: (C,) or None.
        label_smoothing: share of the target that is spread evenly over all classes, 0 <= share < 1.

    Returns:
        loss: () mean over scored rows. log_sum_exp: (N,). total_weight: (), the divisor, 0 if no row is scored.
    """
    check_floats(logits=logits, class_weights=class_weights)
    check_integers(labels=labels)
    check_shapes(logits=(logits, "N C"), labels=(labels, "N"), class_weights=(class_weights, "C"))
    check_ranges(label_smoothing=(label_smoothing, 0, 1))
    if logits.shape[1] == 0:
        raise ValueError(f"cross_entropy needs at least one class; the shape of logits is {logits.shape}")
    xp = array_module(logits)
    maximum = logits.max(axis=1, keepdims=True)
    below = logits - maximum
    log_total = xp.log(xp.exp(below).sum(axis=1))
    scored, row_weights, class_weights = _weights(logits, labels, class_weights, ignore_index)
    total_weight = row_weights.sum()
    # Both terms relative to the maximum: near 1e3 a float32 log_sum_exp, and then the loss, is a multiple of 6e-5.
    label_below = xp.take_along_axis(below, xp.where(scored, labels, 0)[:, None], axis=1)[:, 0]
    row_loss = row_weights * (log_total - label_below) * (1 - label_smoothing)
    if label_smoothing > 0:
        spread = ((log_total[:, None] - below) * class_weights).sum(axis=1)
        row_loss = row_loss + label_smoothing / logits.shape[1] * spread
    row_loss = xp.where(scored, row_loss, 0)
    # Without weight, of no rows or of rows whose labels all weigh 0, there is nothing to average.
    loss = xp.where(total_weight == 0, 0, row_loss.sum() / xp.where(total_weight == 0, 1, total_weight))
    return loss, maximum[:, 0] + log_total, total_weight


def backward(
    grad_loss: Array,
    logits: Array,
    labels: Array,
    class_weights: Array | None,
    log_sum_exp: Array,
    total_weight: Array,
    *,
    ignore_index: int,
    label_smoothing: float,
) -> Array:
    """Return ``grad_logits`` (N, C): (mass of the target * softmax - target) / total weight, 0 in ignored rows."""
    check_floats(
        grad_loss=grad_loss,
        logits=logits,
        class_weights=class_weights,
        log_sum_exp=log_sum_exp,
        total_weight=total_weight,
    )
    check_integers(labels=labels)
    check_shapes(
        grad_loss=(grad_loss, ""),
        logits=(logits, "N C"),
        labels=(labels, "N"),
        class_weights=(class_weights, "C"),
        log_sum_exp=(log_sum_exp, "N"),
        total_weight=(total_weight, ""),
    )
    check_ranges(label_smoothing=(label_smoothing, 0, 1))
    xp = array_module(logits)
    classes = logits.shape[1]
    scored, row_weights, class_weights = _weights(logits, labels, class_weights, ignore_index)
    one_hot = (xp.arange(classes)[None, :] == labels[:, None]).astype(logits.dtype)
    target = one_hot * (row_weights * (1 - label_smoothing))[:, None] + label_smoothing / classes * class_weights
    probabilities = xp.exp(logits - log_sum_exp[:, None])
    # They sum to 1 but for the rounding of log_sum_exp, which near 1e3 is worth 3e-5 of each; gradients must sum to 0.
    mass = target.sum(axis=1, keepdims=True) / probabilities.sum(axis=1, keepdims=True)
    grad_rows = probabilities * mass - target
    divisor = xp.where(total_weight == 0, 1, total_weight)
    return xp.where(scored[:, None] & (total_weight != 0), grad_rows * (grad_loss / divisor), 0)


def _weights(
    logits: Array, labels: Array, class_weights: Array | None, ignore_index: int
) -> tuple[Array, Array, Array]:
    """Return which rows are scored (N,), the weight of each row's label (N,), and the class weights (C,)."""
    xp = array_module(logits)
    scored = labels != ignore_index
    if class_weights is None:
        class_weights = xp.ones(logits.shape[1], dtype=logits.dtype)
    row_weights = class_weights[xp.where(scored, labels, 0)] * scored.astype(logits.dtype)
    return scored, row_weights, class_weights
