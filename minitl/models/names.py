"""The names of a BERT checkpoint: one ordered, invertible table between what files say and what minitl says.

Inside minitl a parameter has the name that transformers gives it today. Files come in dialects:

- the encoder may carry the prefix ``bert.`` (saved with a head) or not (saved alone, as sentence-transformers does);
- old files call LayerNorm's ``weight`` and ``bias`` ``gamma`` and ``beta``, as TensorFlow did.

``RENAMES`` holds both rules, applied in order when reading and undone in reverse order when writing. ``UNUSED`` names
the parts of a file that our models have no place for, with the reason the load report prints. ``EMBEDDINGS``,
``LAYER``, ``POOLER`` and ``CLASSIFIER`` say which tensors a model needs and their shapes, so that a file is compared
with its configuration before anything is allocated.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from minitl.models.config import BertConfig

ENCODER_PREFIX = "bert."
ENCODER_PARTS = ("embeddings.", "encoder.", "pooler.")  # only names that go on like this take or lose the prefix

# (kind, in the file, in minitl), in the order they are applied when reading. A suffix counts only as a whole: it is
# the name itself or follows a dot, so that "my_gamma" stays "my_gamma".
RENAMES = (
    ("suffix", "LayerNorm.gamma", "LayerNorm.weight"),
    ("suffix", "LayerNorm.beta", "LayerNorm.bias"),
    ("prefix", ENCODER_PREFIX, ""),
)

# (how a name starts once its prefix is off, what it is, why it is not needed), first match wins.
UNUSED = (
    ("embeddings.position_ids", "constant buffer", "0, 1, 2, ... is computed, not loaded"),
    ("embeddings.token_type_ids", "constant buffer", "zeros are computed, not loaded"),
    ("cls.predictions.", "masked-language-model head", "only pre-training needs it"),
    ("cls.seq_relationship.", "next-sentence head", "only pre-training needs it"),
    ("qa_outputs.", "question-answering head", "another task's head"),
    ("pooler.", "pooler", "this model has none"),
    ("classifier.", "classifier", "this model has none"),
)

# Name -> shape, by the fields of BertConfig.
EMBEDDINGS = {
    "embeddings.word_embeddings.weight": ("vocab_size", "hidden_size"),
    "embeddings.position_embeddings.weight": ("max_position_embeddings", "hidden_size"),
    "embeddings.token_type_embeddings.weight": ("type_vocab_size", "hidden_size"),
    "embeddings.LayerNorm.weight": ("hidden_size",),
    "embeddings.LayerNorm.bias": ("hidden_size",),
}
LAYER = {
    "attention.self.query.weight": ("hidden_size", "hidden_size"),
    "attention.self.query.bias": ("hidden_size",),
    "attention.self.key.weight": ("hidden_size", "hidden_size"),
    "attention.self.key.bias": ("hidden_size",),
    "attention.self.value.weight": ("hidden_size", "hidden_size"),
    "attention.self.value.bias": ("hidden_size",),
    "attention.output.dense.weight": ("hidden_size", "hidden_size"),
    "attention.output.dense.bias": ("hidden_size",),
    "attention.output.LayerNorm.weight": ("hidden_size",),
    "attention.output.LayerNorm.bias": ("hidden_size",),
    "intermediate.dense.weight": ("intermediate_size", "hidden_size"),
    "intermediate.dense.bias": ("intermediate_size",),
    "output.dense.weight": ("hidden_size", "intermediate_size"),
    "output.dense.bias": ("hidden_size",),
    "output.LayerNorm.weight": ("hidden_size",),
    "output.LayerNorm.bias": ("hidden_size",),
}
POOLER = {"pooler.dense.weight": ("hidden_size", "hidden_size"), "pooler.dense.bias": ("hidden_size",)}
CLASSIFIER = {"classifier.weight": ("num_labels", "hidden_size"), "classifier.bias": ("num_labels",)}


@dataclass(frozen=True)
class Dialect:
    """How a file spells its names: with ``bert.`` before the encoder or not, with gamma/beta or weight/bias."""

    prefix: bool
    gamma_beta: bool


def from_checkpoint(name: str, base_prefix: str) -> str:
    """The name minitl uses for a tensor that a file calls ``name``.

    Args:
        name: as the file says.
        base_prefix: what the model puts before its encoder: "bert." (a model with a head) or "" (a bare encoder).

    Returns:
        The model's name; a name that no rule touches comes back unchanged.

    >>> from_checkpoint("bert.embeddings.LayerNorm.gamma", "")
    'embeddings.LayerNorm.weight'
    >>> from_checkpoint("embeddings.LayerNorm.bias", "bert.")
    'bert.embeddings.LayerNorm.bias'
    """
    for kind, theirs, ours in RENAMES:
        if kind == "prefix":
            name = without_prefix(name)
        elif _ends_with_whole(name, theirs):
            name = name.removesuffix(theirs) + ours
    return base_prefix + name if name.startswith(ENCODER_PARTS) else name


def to_checkpoint(name: str, dialect: Dialect) -> str:
    """The inverse of :func:`from_checkpoint`: how a file in ``dialect`` spells the model's ``name``.

    >>> to_checkpoint("embeddings.LayerNorm.weight", Dialect(prefix=True, gamma_beta=True))
    'bert.embeddings.LayerNorm.gamma'
    """
    name = without_prefix(name)  # the model's own prefix says nothing about the file's
    for kind, theirs, ours in reversed(RENAMES):
        if kind == "prefix":
            name = theirs + name if dialect.prefix and name.startswith(ENCODER_PARTS) else name
        elif dialect.gamma_beta and _ends_with_whole(name, ours):
            name = name.removesuffix(ours) + theirs
    return name


def dialect_of(name: str) -> Dialect:
    """The dialect in which a file wrote this one name."""
    suffixes = [theirs for kind, theirs, _ in RENAMES if kind == "suffix"]
    return Dialect(
        prefix=without_prefix(name) != name,
        gamma_beta=any(_ends_with_whole(name, suffix) for suffix in suffixes),
    )


def without_prefix(name: str) -> str:
    """``name`` without ``bert.``, when what follows is a part of the encoder."""
    bare = name.removeprefix(ENCODER_PREFIX)
    return bare if bare.startswith(ENCODER_PARTS) else name


def unused_part(name: str) -> tuple[str, str] | None:
    """What part of a file that our model does not use this name belongs to, and why; None when nobody knows it."""
    bare = without_prefix(name)
    for start, part, reason in UNUSED:
        if bare == start or (start.endswith(".") and bare.startswith(start)):
            return part, reason
    return None


def expected_shapes(
    config: BertConfig, base_prefix: str, *, pooler: bool, classifier: bool
) -> dict[str, tuple[int, ...]]:
    """Every tensor a model needs, under its name in minitl, and its shape.

    Args:
        config: the sizes.
        base_prefix: "bert." or "", what the model puts before its encoder.
        pooler: whether the encoder has a pooler.
        classifier: whether the model has a token classifier.

    Returns:
        name -> shape, in the order of the model.
    """
    encoder = dict(EMBEDDINGS)
    for layer in range(config.num_hidden_layers):
        encoder |= {f"encoder.layer.{layer}.{name}": sizes for name, sizes in LAYER.items()}
    if pooler:
        encoder |= POOLER
    table = {base_prefix + name: sizes for name, sizes in encoder.items()}
    if classifier:
        table |= CLASSIFIER
    return {name: tuple(getattr(config, size) for size in sizes) for name, sizes in table.items()}


def count_layers(names: Iterable[str]) -> int:
    """How many encoder layers a file holds: one more than the highest layer number in its names."""
    numbers = [re.match(r"encoder\.layer\.(\d{1,9})\.", without_prefix(name)) for name in names]
    return max((int(number[1]) + 1 for number in numbers if number), default=0)


def compress(names: Iterable[str]) -> list[str]:
    """Write names that differ only in the layer number as one line.

    >>> compress(["encoder.layer.0.x", "encoder.layer.1.x", "encoder.layer.3.x", "y"])
    ['encoder.layer.{0-1,3}.x', 'y']
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for name in names:
        before, mark, after = name.partition(".layer.")
        number, dot, rest = after.partition(".")
        if mark and dot and re.fullmatch(r"0|[1-9][0-9]{0,8}", number):
            groups.setdefault((before + mark, dot + rest), []).append(int(number))
        else:
            groups.setdefault((name, ""), [])
    return [
        before + (_ranges(sorted(numbers)) if len(numbers) > 1 else "".join(map(str, numbers))) + after
        for (before, after), numbers in groups.items()
    ]


def _ranges(numbers: list[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return "{" + ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs) + "}"


def _ends_with_whole(name: str, suffix: str) -> bool:
    return name == suffix or name.endswith("." + suffix)
