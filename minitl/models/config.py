"""What a BERT is: its sizes, its rates and its labels, under Hugging Face's names and with their defaults.

A configuration is checked when it is built, before anything is allocated: a field that would change the result and is
not supported is refused, never ignored. Keys we do not know are kept in ``extra`` and written back by ``save``.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from minitl import atomic_file, strict_json
from minitl.errors import CheckpointError
from minitl.models.labels import MOST_LABELS, inverted_labels, labels_from_json, normalised_labels, short

# hidden_act -> what ops.gelu calls its variant: "none" is x * Phi(x) with the error function, "tanh" the approximation
# (Hendrycks & Gimpel 2016, section 2); relu stands apart.
HIDDEN_ACTS = {
    "gelu": "none",
    "gelu_python": "none",
    "gelu_new": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "relu": "relu",
}
LARGEST_SIZE = 2**31 - 1
LARGEST_FILE = 10_000_000  # bytes of config.json; label maps of a hundred thousand names fit

_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)
_RATES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")

# Keys of config.json that change what the model computes and that minitl does not implement.
_REFUSED = {
    "is_decoder": "a decoder masks the future and gives other results",
    "is_encoder_decoder": "only encoders are supported",
    "add_cross_attention": "cross-attention layers are not supported",
    "pruned_heads": "pruned attention heads are not supported",
    "quantization_config": "quantised weights are not supported",
}


@dataclass
class BertConfig:
    """Sizes, rates and labels of a BERT encoder and its head.

    Args:
        vocab_size: V, rows of the word embedding.
        hidden_size: D, width of the model; divisible by ``num_attention_heads``.
        num_hidden_layers: encoder layers.
        num_attention_heads: H, attention heads of each layer.
        intermediate_size: F, width of the feed-forward layer.
        hidden_act: "gelu", "gelu_python" (erf), "gelu_new", "gelu_pytorch_tanh" (tanh) or "relu".
        hidden_dropout_prob: dropout after the embeddings and after each sub-layer, in [0, 1).
        attention_probs_dropout_prob: dropout on the attention probabilities, in [0, 1).
        max_position_embeddings: longest sentence in tokens.
        type_vocab_size: number of segments.
        initializer_range: standard deviation of new weights.
        layer_norm_eps: added to the variance in LayerNorm.
        pad_token_id: row of the word embedding that gets no gradient, or None.
        position_embedding_type: only "absolute".
        classifier_dropout: dropout before the classifier; None means ``hidden_dropout_prob``.
        num_labels: C, classes of the head; taken from the label maps, else 2.
        id2label: class number -> name; ``LABEL_0``, ``LABEL_1``, ... by default.
        label2id: name -> class number, the inverse of ``id2label``.
        extra: keys of config.json that minitl does not know, kept as they are.

    Raises:
        ValueError: a value that is out of range, contradictory or not supported.
        TypeError: a value of the wrong type (a bool or a float where a whole number is needed).
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    position_embedding_type: str = "absolute"
    classifier_dropout: float | None = None
    # None is accepted by these three and replaced in __post_init__, so that readers see the types below.
    num_labels: int = None  # type: ignore[assignment]
    id2label: dict[int, str] = None  # type: ignore[assignment]
    label2id: dict[str, int] = None  # type: ignore[assignment]
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill in the label maps and check everything."""
        if self.num_labels is not None:
            _check_whole("num_labels", self.num_labels, largest=MOST_LABELS)
        if self.id2label is None and self.label2id is None:
            count = 2 if self.num_labels is None else self.num_labels
            self.id2label = {number: f"LABEL_{number}" for number in range(count)}
        elif self.id2label is None:
            self.id2label = inverted_labels(self.label2id)
        self.id2label = normalised_labels(self.id2label)
        inverse = {label: number for number, label in self.id2label.items()}
        if self.label2id is None:
            self.label2id = inverse
        if self.num_labels is None:
            self.num_labels = len(self.id2label)
        self.validate()

    def validate(self) -> None:
        """Check every field again, for example after one was assigned; raises as the constructor does."""
        for name in _SIZES:
            _check_whole(name, getattr(self, name))
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} must be divisible by num_attention_heads {self.num_attention_heads}"
            )
        for name in _RATES:
            if not (name == "classifier_dropout" and self.classifier_dropout is None):
                _check_real(name, getattr(self, name), at_least=0.0, below=1.0)
        _check_real("initializer_range", self.initializer_range, at_least=0.0, below=math.inf)
        _check_real("layer_norm_eps", self.layer_norm_eps, at_least=0.0, below=1.0)
        if self.layer_norm_eps == 0:
            raise ValueError("layer_norm_eps must be larger than 0: a constant row would divide by zero")
        if self.pad_token_id is not None:
            _check_whole("pad_token_id", self.pad_token_id, smallest=0, largest=self.vocab_size - 1)
        if not isinstance(self.hidden_act, str) or self.hidden_act not in HIDDEN_ACTS:
            raise ValueError(f"hidden_act {self.hidden_act!r} is not known; known are {', '.join(HIDDEN_ACTS)}")
        if self.position_embedding_type != "absolute":
            raise ValueError(
                f"position_embedding_type {self.position_embedding_type!r} is not supported, only 'absolute'"
            )
        self._validate_labels()
        self._validate_extra()

    def _validate_labels(self) -> None:
        self.id2label = normalised_labels(self.id2label)
        _check_whole("num_labels", self.num_labels, largest=MOST_LABELS)
        if self.num_labels != len(self.id2label):
            raise ValueError(f"num_labels is {self.num_labels} but id2label names {len(self.id2label)} labels")
        inverse = {label: number for number, label in self.id2label.items()}
        if self.label2id != inverse:
            raise ValueError(f"label2id {short(self.label2id)} is not the inverse of id2label {short(self.id2label)}")

    def _validate_extra(self) -> None:
        known = {item.name for item in fields(self)} - {"extra"}
        for key in self.extra:
            if not isinstance(key, str):
                raise TypeError(f"a key of extra must be a string, found {key!r}")
            if key in known or key == "model_type":
                raise ValueError(f"extra holds {key!r}, which is a field of its own")
        for key, reason in _REFUSED.items():
            if self.extra.get(key):
                raise ValueError(f"{key} is {short(self.extra[key])}: {reason}")

    @property
    def has_named_labels(self) -> bool:
        """False when the labels are only LABEL_0, LABEL_1, ... , the names that mean nothing."""
        return any(label != f"LABEL_{number}" for number, label in self.id2label.items())

    def with_labels(
        self, num_labels: int | None = None, id2label: Mapping[int, str] | Sequence[str] | None = None
    ) -> "BertConfig":
        """A copy with other labels: ``id2label`` as given, or ``num_labels`` unnamed ones.

        Raises:
            ValueError: the two contradict each other, or the labels are not a list without gaps or repeats.
        """
        labels = None if id2label is None else normalised_labels(id2label)
        changes: dict[str, Any] = {"num_labels": num_labels, "id2label": labels, "label2id": None}
        return replace(self, **changes, extra=dict(self.extra))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "BertConfig":
        """Build a configuration from the keys of config.json; unknown ones go to ``extra``.

        Raises:
            ValueError, TypeError: as the constructor, and when ``model_type`` is not "bert".
        """
        model_type = values.get("model_type", "bert")
        if model_type != "bert":
            raise ValueError(f"model_type is {model_type!r}; minitl loads models of type 'bert'")
        known = {item.name for item in fields(cls)} - {"extra"}
        arguments = {key: value for key, value in values.items() if key in known}
        extra = {key: value for key, value in values.items() if key not in known and key != "model_type"}
        if arguments.get("id2label") is not None:
            arguments["id2label"] = labels_from_json(arguments["id2label"])
        return cls(**arguments, extra=extra)

    @classmethod
    def from_json_file(cls, path: str | Path) -> "BertConfig":
        """Read ``config.json``.

        Raises:
            CheckpointError: the file is missing, is not strict JSON, or holds a value the constructor refuses; the
                message names the file.
        """
        path = Path(path)
        values = strict_json.read_object(path, largest=LARGEST_FILE)
        try:
            return cls.from_dict(values)
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{path}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """The keys and values of config.json: label maps with string keys, ``extra`` unfolded."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        del values["extra"], values["num_labels"]
        values["id2label"] = {str(number): label for number, label in self.id2label.items()}
        values["label2id"] = dict(self.label2id)
        return {**self.extra, **values, "model_type": "bert"}

    def save(self, folder: str | Path, *, architecture: str | None = None, dtype: str | None = None) -> None:
        """Write ``config.json`` into ``folder``, which must exist, in one step.

        Args:
            folder: where to.
            architecture: written as ``architectures``, the class that transformers builds; None keeps what was loaded.
            dtype: the weights' dtype, which transformers 5 reads; None keeps what was loaded.

        Raises:
            ValueError, TypeError: a field was changed to something invalid.
            CheckpointError: the file cannot be written.
        """
        self.validate()
        values = self.to_dict()
        if architecture is not None:
            values["architectures"] = [architecture]
        if dtype is not None:
            values["dtype"] = dtype
            values.pop("torch_dtype", None)  # the same key before transformers 5; two of them could disagree
        text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        atomic_file.write_bytes(Path(folder) / "config.json", (text + "\n").encode("utf-8"))


def _check_whole(name: str, value: Any, *, smallest: int = 1, largest: int = LARGEST_SIZE) -> None:
    if type(value) is not int:  # a bool is an int to isinstance
        raise TypeError(f"{name} must be a whole number, found {value!r}")
    if not smallest <= value <= largest:
        raise ValueError(f"{name} must be between {smallest:,} and {largest:,}, found {value:,}")


def _check_real(name: str, value: Any, *, at_least: float, below: float) -> None:
    if type(value) not in (int, float):
        raise TypeError(f"{name} must be a number, found {value!r}")
    if not at_least <= value < below:  # NaN compares false, so it is refused here too
        raise ValueError(f"{name} must be at least {at_least:g} and less than {below:g}, found {value!r}")
