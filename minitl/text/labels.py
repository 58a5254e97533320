"""The labels of a tagger and their numbers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from minitl.text.conll import Sentence


@dataclass(frozen=True)
class LabelSet:
    """Tags in the order of their numbers: ``labels[3]`` is the tag of class 3, ``labels.ids["B-PER"]`` its number."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"labels must differ, found {self.names}")

    @classmethod
    def from_sentences(cls, sentences: Iterable[Sentence]) -> "LabelSet":
        """The tags that occur in ``sentences``: ``O`` is number 0, the others follow sorted."""
        return cls.from_tags(sentence.tags or () for sentence in sentences)

    @classmethod
    def from_tags(cls, tag_sequences: Iterable[Sequence[str]]) -> "LabelSet":
        """The tags that occur in ``tag_sequences``: ``O`` is number 0, the others follow sorted.

        >>> LabelSet.from_tags([["B-PER", "O"], ["B-LOC"]]).names
        ('O', 'B-LOC', 'B-PER')
        """
        found = {tag for tags in tag_sequences for tag in tags}
        return cls(("O", *sorted(found - {"O"})))

    @classmethod
    def from_id2label(cls, id2label: Mapping[int, str]) -> "LabelSet":
        """The labels of a model's ``config.id2label``; its numbers must be 0, 1, 2 and so on."""
        if sorted(id2label) != list(range(len(id2label))):
            raise ValueError(f"id2label must number its labels 0 to {len(id2label) - 1}, found {sorted(id2label)}")
        return cls(tuple(id2label[number] for number in range(len(id2label))))

    @cached_property
    def ids(self) -> dict[str, int]:
        """Number of each label."""
        return {name: number for number, name in enumerate(self.names)}

    @property
    def id2label(self) -> dict[int, str]:
        """What ``BertConfig`` and ``from_pretrained`` call ``id2label``."""
        return dict(enumerate(self.names))

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __getitem__(self, number: int) -> str:
        return self.names[number]
