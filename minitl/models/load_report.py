"""What became of every tensor of a checkpoint, and of every parameter of the model: nothing is dropped without a line.

``compare`` sets the names and shapes in the files against those the model needs, before anything is allocated, and puts
each name of the files into exactly one list of the :class:`LoadReport`. Printing the report gives a few lines;
``lines(verbose=True)`` lists every name.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from minitl.errors import CheckpointError
from minitl.models import names

FLOAT_DTYPES = ("F64", "F32", "F16", "BF16")


class StoredTensor(Protocol):
    """What ``compare`` needs to know of a tensor in a file (``safetensors_file.TensorInfo`` has it)."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass
class LoadReport:
    """The account of one load. Names of files are spelt as in the file, names of the model as in minitl.

    Attributes:
        origin: where the files came from.
        used: names in the files that were loaded under their own name.
        renamed: names in the files that were loaded under another name -> that name.
        ignored: names in the files that are known and not needed, by (part, reason).
        unexpected: names in the files that nobody knows.
        misshaped: names in the files that cannot fill their place -> why.
        missing: parameters of the model that no file holds and that must not be random.
        new: parameters of the model that start random.
        notes: further remarks, one line each.
    """

    origin: str = ""
    used: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    ignored: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    misshaped: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def loaded(self) -> dict[str, str]:
        """Every tensor that was loaded: name in the model -> name in the files."""
        return {name: name for name in self.used} | {ours: theirs for theirs, ours in self.renamed.items()}

    def file_names(self) -> list[str]:
        """Every name of the files, from all lists; the accounting holds when this is the files' own list."""
        ignored = [name for group in self.ignored.values() for name in group]
        return [*self.used, *self.renamed, *ignored, *self.unexpected, *self.misshaped]

    def raise_if_unusable(self, folder: object) -> None:
        """Raise one CheckpointError that lists everything missing and misshaped, or return."""
        if not (self.missing or self.misshaped):
            return
        parts = [f"{folder}: the weights do not fit the configuration in config.json."]
        if self.missing:
            parts += _section(f"missing ({len(self.missing)}):", names.compress(self.missing))
        if self.misshaped:
            parts += _section(
                f"of the wrong shape or kind ({len(self.misshaped)}):",
                [f"{name}: {why}" for name, why in self.misshaped.items()],
            )
        if self.unexpected:
            parts += _section(f"in the files but unknown ({len(self.unexpected)}):", names.compress(self.unexpected))
        parts.append("Check that config.json and the weights belong together and that no shard is missing.")
        raise CheckpointError("\n".join(parts))

    def lines(self, verbose: bool = False) -> list[str]:
        """The report as lines of text.

        Args:
            verbose: list every single name below its line.

        Returns:
            A few lines without ``verbose``, one more per name with it.
        """
        result = [f"from {self.origin}"] if self.origin else []
        result.append(f"loaded {len(self.loaded)} tensors{self._how_renamed()}")
        if verbose:
            result += [f"    {name}" for name in self.used]
            result += [f"    {theirs} -> {ours}" for theirs, ours in self.renamed.items()]
        for (part, reason), group in self.ignored.items():
            shown = "" if verbose else f": {_some(group)}"
            result.append(f"not used: {part} ({_count(group)}{shown}); {reason}")
            result += [f"    {name}" for name in group if verbose]
        for title, group in (
            ("UNKNOWN, not used", self.unexpected),
            ("MISSING", self.missing),
            ("WRONG SHAPE OR KIND", [f"{name}: {why}" for name, why in self.misshaped.items()]),
        ):
            if group:
                result.append(f"{title} ({_count(group)})" if verbose else f"{title} ({_count(group)}): {_some(group)}")
                result += [f"    {name}" for name in group if verbose]
        if self.new:
            part = self.new[0].split(".")[0]
            result.append(f"NEW, random: {part} ({_count(self.new)}): train before use")
            result += [f"    {name}" for name in self.new if verbose]
        return result + [f"note: {note}" for note in self.notes]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _how_renamed(self) -> str:
        """How the names were translated, for example " (prefix bert. added, 23 renamed gamma/beta)"."""
        theirs = [names.dialect_of(name) for name in self.renamed]
        ours = [names.dialect_of(name) for name in self.renamed.values()]
        old = sum(dialect.gamma_beta for dialect in theirs)
        parts = []
        if any(here.prefix and not there.prefix for here, there in zip(ours, theirs, strict=True)):
            parts.append("prefix bert. added")
        if any(there.prefix and not here.prefix for here, there in zip(ours, theirs, strict=True)):
            parts.append("prefix bert. removed")
        if old:
            parts.append(f"{old} renamed gamma/beta")
        return f" ({', '.join(parts)})" if parts else ""


def compare(
    stored: Mapping[str, StoredTensor],
    expected: Mapping[str, tuple[int, ...]],
    base_prefix: str,
    *,
    new_head: bool = False,
) -> LoadReport:
    """Put every name of the files, and every parameter of the model, where it belongs.

    Args:
        stored: name in the files -> dtype and shape.
        expected: name in the model -> shape, from ``names.expected_shapes``.
        base_prefix: "bert." or "", what the model puts before its encoder.
        new_head: leave a trained classifier in the files unused and start a random one.

    Returns:
        A report; ``raise_if_unusable`` says whether the model can be filled.
    """
    report = LoadReport()
    taken: dict[str, str] = {}  # name in the model -> name in the files
    for name, tensor in stored.items():
        ours = names.from_checkpoint(name, base_prefix)
        part = names.unused_part(name)
        if part is not None and part[0] == "classifier" and any(head in expected for head in names.CLASSIFIER):
            part = None  # the model has a classifier, but not this tensor of it
        replaced = new_head and ours in names.CLASSIFIER
        if ours in expected and not replaced:
            if ours in taken:
                report.misshaped[name] = f"the same parameter is also stored as {taken[ours]}"
            elif why := _misfit(tensor, expected[ours]):
                report.misshaped[name] = why
            elif ours == name:
                report.used.append(name)
            else:
                report.renamed[name] = ours
            taken.setdefault(ours, name)
        elif replaced and ours in expected:
            report.ignored.setdefault(("trained classifier", "new_head=True asks for a new one"), []).append(name)
        elif part is not None:
            report.ignored.setdefault(part, []).append(name)
        else:
            report.unexpected.append(name)
    head_is_stored = any(name in taken for name in names.CLASSIFIER)
    for name in expected:
        if name not in taken:
            (report.new if name in names.CLASSIFIER and not head_is_stored else report.missing).append(name)
    if sorted(report.file_names()) != sorted(stored):  # the promise of this module, checked on every load
        raise AssertionError("the load report does not account for every tensor of the files")
    return report


def _misfit(tensor: StoredTensor, shape: tuple[int, ...]) -> str:
    """Why this tensor cannot fill a parameter of ``shape``; empty when it can."""
    if tensor.dtype not in FLOAT_DTYPES:
        return f"is {tensor.dtype}, needs one of {', '.join(FLOAT_DTYPES)}"
    if tuple(tensor.shape) != shape:
        return f"file {tuple(tensor.shape)}, model {shape}"
    return ""


def _count(group: list[str]) -> str:
    return f"{len(group)} tensor" if len(group) == 1 else f"{len(group)} tensors"


def _some(group: Iterable[str], most: int = 3) -> str:
    short = names.compress(group)
    return ", ".join(short[:most]) + (", ..." if len(short) > most else "")


def _section(title: str, entries: list[str]) -> list[str]:
    return [f"  {title}", *(f"    {entry}" for entry in entries)]
