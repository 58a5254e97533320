"""AdamW over flat buffers, and the global gradient norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from minitl.kernels.launch import Array, check_masks


class Segment(NamedTuple):
    """One parameter's place in the flat buffers, and how to update it now."""

    offset: int
    length: int
    learning_rate: float
    weight_decay: float
    step: int  # t, counted from 1, for this parameter
    gradient_factor: float = 1.0  # the gradient is this times what lies in the buffer; clipping makes it less than 1


#: For each segment (or gradient) None or, where it is a table of R rows, (R,) bool: which rows may differ from 0, in
#: gradient or moments. The others are 0 in all of them. No result depends on it: it says what may be skipped.
Touched = Sequence[Array | None] | None


def check_segments(segments: Sequence[Segment], *, size: int) -> None:
    """Raise a ValueError unless all segments lie in buffers of ``size`` elements; a slice would be cut in silence."""
    for number, (offset, length, _, _, step, _) in enumerate(segments):
        if not (0 <= offset <= offset + length <= size):
            raise ValueError(f"segments[{number}] is {length} elements from {offset}; the buffers have {size}")
        if step < 1:
            raise ValueError(f"segments[{number}] has step {step}; steps are counted from 1")


def check_touched(touched: Touched, *, lengths: Sequence[int]) -> None:
    """Raise unless there is a mask, or None, for each of these lengths, and its rows divide the length.

    Raises:
        TypeError: a mask is not bool.
        ValueError: another number of masks, or rows that do not fit.
    """
    if touched is None:
        return
    if len(touched) != len(lengths):
        raise ValueError(f"touched must have a mask, or None, for each of {len(lengths)} parts; it has {len(touched)}")
    check_masks(**{f"touched[{number}]": mask for number, mask in enumerate(touched)})
    for number, (mask, length) in enumerate(zip(touched, lengths, strict=True)):
        if mask is not None and (mask.ndim != 1 or length % max(1, mask.size) or (length and not mask.size)):
            raise ValueError(
                f"touched[{number}] must be (R,), one bool for each row of {length} elements; its shape is {mask.shape}"
            )
