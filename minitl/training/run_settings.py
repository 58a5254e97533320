"""What to fine-tune, on what, and how: the whole of what a run is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from minitl.errors import MinitlError
from minitl.models.default_model import DEFAULT_MODEL
from minitl.training.settings import TrainingSettings, known_names


@dataclass(frozen=True)
class RunSettings:
    """The settings of :class:`minitl.training.FineTuning`.

    Args:
        data: a folder of CoNLL files train, dev and test; None for the corpus that comes with minitl.
        model: a folder, or a name on the Hugging Face Hub.
        max_length: tokens the model reads at once; longer sentences are read in windows.
        pieces: which pieces of a word carry its label, "first" or "all".
        freeze: "nothing", "embeddings", "encoder" or a number of layers; see ``minitl.transfer.freeze``.
        class_weights: "none", "balanced", or a weight by label.
        label_smoothing: share of each target that is spread over all labels.
        focal_gamma: of the focal loss; 0 for cross-entropy.
        device: "cpu", "cuda" or "cudasim".
        precision: of matrix products, see ``minitl.precision``.
        training: everything about steps.

    Raises:
        MinitlError: a value out of its range; the message names it.
    """

    data: str | None = None
    model: str = DEFAULT_MODEL
    max_length: int = 128
    pieces: str = "first"
    freeze: str = "nothing"
    class_weights: str | Mapping[str, float] = "none"
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    device: str = "cpu"
    precision: str = "float32"
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        if not isinstance(self.max_length, int) or self.max_length < 3:
            raise MinitlError(f"max_length must be at least 3 ([CLS], a piece, [SEP]), not {self.max_length}")
        if self.pieces not in ("first", "all"):
            raise MinitlError(f"pieces must be 'first' or 'all', not {self.pieces!r}")

    def as_dict(self) -> dict[str, Any]:
        """Return the settings by name, for :meth:`from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunSettings:
        """Return settings by name; those that are left out have their defaults.

        Raises:
            MinitlError: a name that is none, or a value out of its range.
        """
        training = TrainingSettings.from_dict(values.get("training", {}))
        return cls(**{**known_names(cls, values), "training": training})
