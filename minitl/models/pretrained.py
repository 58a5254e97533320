"""``from_pretrained`` and ``save_pretrained``: a model out of a folder, and back into one.

The order matters for safety: configuration, headers and their comparison come first, so that a damaged or absurd file
is refused before anything is allocated; then the model is built, and its parameters are filled one tensor at a time.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from minitl import atomic_file
from minitl.errors import CheckpointError
from minitl.models import names, safetensors_file
from minitl.models.config import BertConfig
from minitl.models.default_model import DEFAULT_MODEL
from minitl.models.labels import normalised_labels, short
from minitl.models.load_report import LoadReport, compare
from minitl.models.weights_folder import SINGLE_FILE, WeightsFolder, open_weights
from minitl.nn import unset_weights

if TYPE_CHECKING:
    from minitl.models.sources import Source
    from minitl.text.tokenizer import TextTokenizer

Labels = Mapping[int, str] | Sequence[str]


class PretrainedMixin:
    """Loading and saving for a model class, which gives ``base_prefix`` and a constructor ``cls(config, dtype=...)``.

    Attributes:
        base_prefix: what parameter names have before the encoder: "bert." for a model with a head, "" for the encoder
            alone, whose constructor also takes ``add_pooler``.
        config: the configuration.
        load_report: what became of every tensor, or None for a model that was not loaded.
        tokenizer: the tokenizer of the folder, or None when it has none.
    """

    base_prefix: str = ""
    config: BertConfig
    load_report: LoadReport | None = None
    tokenizer: TextTokenizer | None = None

    @classmethod
    def from_pretrained(
        cls,
        folder_or_name: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        num_labels: int | None = None,
        id2label: Labels | None = None,
        dtype: str = "float32",
        new_head: bool = False,
        revision: str | None = None,
    ) -> Self:
        """Build a model with the weights of a folder or of a published model, in evaluation mode.

        Args:
            folder_or_name: a model folder, or a name on the Hugging Face Hub such as "google-bert/bert-base-cased".
            num_labels: C, classes of the head; by default what the configuration says.
            id2label: the classes' names, a dict or a list.
            dtype: "float32" or "float64", what the parameters are.
            new_head: replace a trained classifier in the files by a new random one.
            revision: commit, tag or branch on the Hub; by default "main", and a fixed commit for the default model.

        Returns:
            The model. ``model.load_report`` says what became of every tensor, ``model.tokenizer`` is the folder's
            tokenizer or None. Parameters without a tensor in the files (a new classifier) are random.

        Raises:
            CheckpointError: the files are damaged, do not fit the configuration, or hold a classifier trained for
                other labels than those asked for.
            DownloadError: no source has the model.
            ValueError: contradictory arguments.
        """
        from minitl.models.sources import resolve  # brings subprocess and zipfile, which `import minitl` can do without

        if np.dtype(dtype).name not in ("float32", "float64"):
            raise ValueError(f"dtype must be 'float32' or 'float64', found {dtype!r}")
        dtype = np.dtype(dtype).name
        source = resolve(folder_or_name, revision=revision)
        config = BertConfig.from_json_file(source.folder / "config.json")
        weights = open_weights(source.folder)
        with_head = cls.base_prefix != ""
        if with_head:
            config = _with_asked_labels(config, weights, source, num_labels, id2label, new_head)
        elif num_labels is not None or id2label is not None:
            raise ValueError(f"{cls.__name__} has no classifier; num_labels and id2label are for a model with a head")
        with_pooler = not with_head and any(names.without_prefix(name) in names.POOLER for name in weights.tensors)
        report = _compare(config, weights, cls.base_prefix, with_pooler, new_head)
        report.origin = source.origin
        report.notes[:0] = [*source.notes, *weights.notes]
        if not with_head and not with_pooler:
            report.notes.append("the files hold no pooler: pooler_output will be None")
        tokenizer = _load_tokenizer(source.folder, config, report)
        model: Self = _build(cls, config, dtype, with_pooler, report)
        _fill(model, weights, report, dtype)
        model.config, model.load_report, model.tokenizer = config, report, tokenizer
        return model

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder that ``from_pretrained`` and transformers load: configuration, weights, tokenizer.

        Each file is replaced in one step. Other files of an existing folder are left alone.

        Args:
            folder: made when missing.

        Raises:
            CheckpointError: the folder or a file in it cannot be written.
        """
        folder = Path(folder)
        atomic_file.make_folder(folder)
        arrays: dict[str, np.ndarray] = self.state_dict()  # type: ignore[attr-defined]  # Module's, beside this mixin
        dtypes = sorted({array.dtype.name for array in arrays.values()})
        safetensors_file.write(folder / SINGLE_FILE, arrays)
        if self.tokenizer is not None:
            _save_tokenizer(self.tokenizer, folder, self.config.max_position_embeddings)
        self.config.save(folder, architecture=type(self).__name__, dtype=dtypes[0] if len(dtypes) == 1 else None)


def require_tokenizer(model: PretrainedMixin) -> TextTokenizer:
    """The model's tokenizer, or one clear error.

    Raises:
        CheckpointError: the model has none, or one whose numbers go beyond the model's embedding.
    """
    if model.tokenizer is None:
        raise CheckpointError(
            "this model has no tokenizer: its folder holds neither tokenizer.json nor vocab.txt; copy the tokenizer "
            "files of the pretrained model into the folder and load it again"
        )
    if model.tokenizer.vocab_size > model.config.vocab_size:
        raise CheckpointError(_too_many_entries(model.tokenizer, model.config))
    return model.tokenizer


def _with_asked_labels(
    config: BertConfig,
    weights: WeightsFolder,
    source: Source,
    num_labels: int | None,
    id2label: Labels | None,
    new_head: bool,
) -> BertConfig:
    """The configuration with the labels asked for, unless the files hold a classifier trained for others."""
    stored = any(name in names.CLASSIFIER for name in weights.tensors) and not new_head
    architectures = config.extra.get("architectures") or []
    if stored and architectures and not str(architectures[0]).endswith("ForTokenClassification"):
        raise CheckpointError(
            f"{source.folder}: the classifier in the files belongs to {short(architectures[0])}, not to a token "
            "classifier; pass new_head=True to start a new one"
        )
    if num_labels is None and id2label is None:
        return config
    asked = config.with_labels(num_labels, id2label)
    if not stored:
        return config if id2label is None and asked.num_labels == config.num_labels else asked
    differs = asked.num_labels != config.num_labels
    if id2label is not None and config.has_named_labels:  # LABEL_0, LABEL_1, ... may be given names
        differs = differs or normalised_labels(id2label) != config.id2label
    if differs:
        raise CheckpointError(
            f"{source.folder}: holds a classifier trained for {_described(config)}, but {_described(asked)} were asked "
            "for; pass new_head=True to replace it by a new one, or leave the labels out to keep it"
        )
    return config if id2label is None else asked


def _described(config: BertConfig) -> str:
    return f"{config.num_labels} labels {short(list(config.id2label.values()))}"


def _compare(
    config: BertConfig, weights: WeightsFolder, base_prefix: str, with_pooler: bool, new_head: bool
) -> LoadReport:
    layers = names.count_layers(weights.tensors)
    if config.num_hidden_layers > layers:  # said first: a table of a billion layers must not even be written down
        raise CheckpointError(
            f"{weights.folder}: config.json says num_hidden_layers {config.num_hidden_layers:,}, but the weights hold "
            f"{layers} layers; config.json and the weights do not belong together, or a shard is missing"
        )
    expected = names.expected_shapes(config, base_prefix, pooler=with_pooler, classifier=base_prefix != "")
    unlisted = set(weights.unlisted)
    listed = {name: info for name, info in weights.tensors.items() if name not in unlisted}
    report = compare(listed, expected, base_prefix, new_head=new_head)
    if unlisted:
        report.ignored["tensors that the shard index does not list", "the index is what counts"] = weights.unlisted
    report.raise_if_unusable(weights.folder)
    return report


def _build(cls: type[Any], config: BertConfig, dtype: str, with_pooler: bool, report: LoadReport) -> Any:
    """Build the model without drawing weights that the files bring; only a new classifier starts at random."""
    with unset_weights():
        options = {"add_pooler": with_pooler} if cls.base_prefix == "" else {}
        model = cls(config, dtype=dtype, **options)
    if report.new:
        assert set(report.new) <= set(names.CLASSIFIER), report.new
        model.reset_classifier(dtype)
    return model


def _fill(model: Any, weights: WeightsFolder, report: LoadReport, dtype: str) -> None:
    """Copy every tensor into its parameter, one at a time, so that no second copy of the model ever exists."""
    loaded = report.loaded
    parameters = dict(model.named_parameters())
    if set(parameters) != set(loaded) | set(report.new):
        difference = sorted(set(parameters) ^ (set(loaded) | set(report.new)))
        raise AssertionError(f"names.py and the model disagree about the parameters {difference}")
    with weights.reader(dtype) as reader:
        for ours, theirs in loaded.items():
            array = reader.read(theirs)
            if not np.isfinite(array).all():
                report.notes.append(f"WARNING: {theirs} holds NaN or infinity")
            parameters[ours].copy_(array)
    model.eval()


def _load_tokenizer(folder: Path, config: BertConfig, report: LoadReport) -> TextTokenizer | None:
    if not any((folder / name).exists() for name in ("tokenizer.json", "vocab.txt")):
        report.notes.append("the folder has no tokenizer (tokenizer.json or vocab.txt): text cannot be read with it")
        return None
    from minitl.text.tokenizer import TextTokenizer

    tokenizer = TextTokenizer.from_folder(folder)
    report.notes += [f"tokenizer: {note}" for note in tokenizer.notes]
    if tokenizer.vocab_size > config.vocab_size:
        report.notes.append("WARNING: " + _too_many_entries(tokenizer, config))
    return tokenizer


def _too_many_entries(tokenizer: TextTokenizer, config: BertConfig) -> str:
    return (
        f"the tokenizer has {tokenizer.vocab_size} entries but the model's embedding only {config.vocab_size}; "
        "the tokenizer files belong to another model"
    )


def _save_tokenizer(tokenizer: TextTokenizer, folder: Path, model_max_length: int) -> None:
    """Let the tokenizer write into a folder of its own inside ``folder``, then move each file into place."""
    try:
        prefix = atomic_file.TEMPORARY_FOLDER
        with tempfile.TemporaryDirectory(dir=folder, prefix=prefix, ignore_cleanup_errors=True) as temporary:
            tokenizer.save(temporary, model_max_length=model_max_length)
            for path in sorted(Path(temporary).iterdir()):
                atomic_file.write_bytes(folder / path.name, path.read_bytes())
    except Exception as error:
        if isinstance(error, OSError) or type(error) is Exception:  # the latter from the tokenizers library
            raise CheckpointError(f"{folder}: the tokenizer cannot be written ({error})") from None
        raise
