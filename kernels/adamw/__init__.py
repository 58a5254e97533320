"""AdamW over flat buffers, and the global gradient norm."""

from typing import NamedTuple


class Segment(NamedTuple):
    """One parameter's place in the flat buffers, and how to update it now."""

    offset: int
    length: int
    learning_rate: float
    weight_decay: float
    step: int  # t, counted from 1, for this parameter
