"""Entity precision, recall and F1, counted as the CoNLL shared tasks count: an entity is right if its type, first and
last word are.

Two ways to read tags as entities, which differ on illegal sequences only:

- ``conlleval``: the chunk rules of the shared task's script, which read any sequence (an ``I-PER`` out of nowhere
  starts an entity). Source: ``conlleval.pl`` by Tjong Kim Sang; ``E`` and ``S`` as in seqeval's default mode.
- ``strict``: only what the scheme allows is an entity (in IOB2 one that begins with ``B``). Source: seqeval's strict
  mode, Nakayama 2018.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from minitl.text.schemes import Entity, Scheme, check_scheme, lenient_spans, split_tag

Mode = Literal["conlleval", "strict"]
TagSequences = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Score:
    """Precision, recall and F1 between 0 and 1, each 0.0 where it is undefined, and the number of gold entities."""

    precision: float
    recall: float
    f1: float
    support: int

    @classmethod
    def from_counts(cls, true_positives: int, false_positives: int, false_negatives: int) -> "Score":
        """Compute a score from what was found, invented, and not found."""
        predicted, support = true_positives + false_positives, true_positives + false_negatives
        precision = true_positives / predicted if predicted else 0.0
        recall = true_positives / support if support else 0.0
        f1 = 2 * true_positives / (predicted + support) if predicted + support else 0.0
        return cls(precision, recall, f1, support)


@dataclass(frozen=True)
class TypeCounts:
    """True positives, false positives and false negatives of one type."""

    true_positives: int
    false_positives: int
    false_negatives: int

    @property
    def score(self) -> Score:
        """Precision, recall and F1 of these counts."""
        return Score.from_counts(self.true_positives, self.false_positives, self.false_negatives)


@dataclass(frozen=True)
class EntityScores:
    """The scores of each type and three averages; ``str()`` prints them as a table.

    Attributes:
        mode, scheme: how the tags were read.
        types: counts of each type in gold or predicted tags, sorted by name. Bare tags have the type ``""``.
    """

    mode: Mode
    scheme: Scheme
    types: dict[str, TypeCounts]

    @property
    def total(self) -> TypeCounts:
        """The counts of all types together."""
        counts = self.types.values()
        return TypeCounts(
            sum(count.true_positives for count in counts),
            sum(count.false_positives for count in counts),
            sum(count.false_negatives for count in counts),
        )

    @property
    def micro(self) -> Score:
        """The score of all entities together: the number that papers report."""
        return self.total.score

    @property
    def macro(self) -> Score:
        """The mean over types."""
        return average([count.score for count in self.types.values()])

    @property
    def weighted(self) -> Score:
        """The mean over types, each weighted by its number of gold entities."""
        return average([count.score for count in self.types.values()], weighted=True)

    @property
    def f1(self) -> float:
        """Micro F1."""
        return self.micro.f1

    def __str__(self) -> str:
        rows = [(name or "(no type)", count.score) for name, count in self.types.items()]
        rows += [("micro average", self.micro), ("macro average", self.macro), ("weighted average", self.weighted)]
        reading = "conlleval" if self.mode == "conlleval" else f"strict {self.scheme}"
        return score_table(f"entity ({reading})", rows, len(self.types))


def average(scores: Sequence[Score], *, weighted: bool = False) -> Score:
    """The mean of some scores, plain or weighted by support; 0.0 where there is nothing to average."""
    weights = [score.support if weighted else 1 for score in scores]
    total = sum(weights)
    pairs = list(zip(weights, scores, strict=True))
    support = sum(score.support for score in scores)
    if not total:
        return Score(0.0, 0.0, 0.0, support)
    return Score(
        sum(weight * score.precision for weight, score in pairs) / total,
        sum(weight * score.recall for weight, score in pairs) / total,
        sum(weight * score.f1 for weight, score in pairs) / total,
        support,
    )


def score_table(title: str, rows: Sequence[tuple[str, Score]], rule_after: int) -> str:
    """Aligned lines with a heading, and an empty line after ``rule_after`` rows."""
    width = max(len(title), *(len(name) for name, _ in rows))
    lines = [f"{title:<{width}}  {'precision':>9}  {'recall':>9}  {'F1':>9}  {'support':>9}"]
    for number, (name, score) in enumerate(rows):
        if number == rule_after:
            lines.append("")
        numbers = f"{score.precision:9.4f}  {score.recall:9.4f}  {score.f1:9.4f}  {score.support:9d}"
        lines.append(f"{name:<{width}}  {numbers}")
    return "\n".join(lines)


def entity_scores(
    gold: TagSequences, predicted: TagSequences, *, mode: Mode = "conlleval", scheme: Scheme = "IOB2"
) -> EntityScores:
    """Score predicted tags against gold tags.

    Args:
        gold: the tags of each sentence.
        predicted: as many tags for each of the same sentences.
        mode: ``"conlleval"`` reads tags of any scheme, ``"strict"`` those of ``scheme`` only.
        scheme: used by ``"strict"``.

    Raises:
        ValueError: if numbers of sentences or tags differ, or something is no tag.

    >>> scores = entity_scores([["B-PER", "I-PER", "O"]], [["B-PER", "I-PER", "B-LOC"]])
    >>> scores.micro
    Score(precision=0.5, recall=1.0, f1=0.6666666666666666, support=1)
    """
    check_lengths(gold, predicted)
    found, in_gold, in_predicted = Counter[str](), Counter[str](), Counter[str]()
    for number, (gold_tags, predicted_tags) in enumerate(zip(gold, predicted, strict=True)):
        gold_entities = read_entities(gold_tags, mode, scheme, f"gold sentence {number}")
        predicted_entities = read_entities(predicted_tags, mode, scheme, f"predicted sentence {number}")
        in_gold.update(entity.type for entity in gold_entities)
        in_predicted.update(entity.type for entity in predicted_entities)
        found.update(entity.type for entity in set(gold_entities) & set(predicted_entities))
    types = {
        name: TypeCounts(found[name], in_predicted[name] - found[name], in_gold[name] - found[name])
        for name in sorted(in_gold | in_predicted)
    }
    return EntityScores(mode, scheme, types)


def check_lengths(gold: TagSequences, predicted: TagSequences) -> None:
    """Raise a ``ValueError`` unless both hold as many sentences and each as many tags."""
    if len(gold) != len(predicted):
        raise ValueError(f"expected a prediction for each of {len(gold)} sentences, found {len(predicted)}")
    for number, (gold_tags, predicted_tags) in enumerate(zip(gold, predicted, strict=True)):
        if len(gold_tags) != len(predicted_tags):
            raise ValueError(f"sentence {number} has {len(gold_tags)} gold and {len(predicted_tags)} predicted tags")


def read_entities(tags: Sequence[str], mode: Mode, scheme: Scheme, where: str) -> list[Entity]:
    """The entities of one sentence in the given mode; ``where`` names it in messages."""
    if mode not in ("conlleval", "strict"):
        raise ValueError(f"mode must be 'conlleval' or 'strict', found {mode!r}")
    try:
        return lenient_spans(tags) if mode == "conlleval" else strict_spans(tags, scheme)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


# For each scheme with an explicit first word: prefixes that begin an entity, go on, end it, and are one alone.
_STRICT = {"IOB2": ("B", "I", "", ""), "BIOES": ("B", "I", "E", "S"), "BILOU": ("B", "I", "L", "U")}


def strict_spans(tags: Sequence[str], scheme: Scheme) -> list[Entity]:
    """The entities of one sentence that are whole and legal in ``scheme``; what breaks the scheme is no entity.

    >>> strict_spans(["I-PER", "B-PER", "I-LOC"], "IOB2")
    [Entity(type='PER', start=1, end=2)]
    """
    check_scheme(scheme)
    pairs = [split_tag(tag) for tag in tags]
    if scheme == "IOB1":
        return _strict_iob1(pairs)
    begin, inside, last, single = _STRICT[scheme]
    entities = []
    position = 0
    while position < len(pairs):
        start = position
        prefix, type_name = pairs[start]
        position += 1
        if prefix == single:
            entities.append(Entity(type_name, start, position))
        if prefix != begin:
            continue
        while position < len(pairs) and pairs[position] == (inside, type_name):
            position += 1
        if not last:
            entities.append(Entity(type_name, start, position))
        elif position < len(pairs) and pairs[position] == (last, type_name):
            position += 1
            entities.append(Entity(type_name, start, position))
    return entities


def _strict_iob1(pairs: Sequence[tuple[str, str]]) -> list[Entity]:
    """In IOB1 ``I`` may start anywhere, and ``B`` only right after an entity of its type."""
    entities: list[Entity] = []
    for position, (prefix, type_name) in enumerate(pairs):
        before = entities[-1] if entities and entities[-1].end == position else None
        same = before is not None and before.type == type_name
        if prefix == "I" and same and before is not None:
            entities[-1] = Entity(type_name, before.start, position + 1)
        elif prefix == "I" or (prefix == "B" and same):
            entities.append(Entity(type_name, position, position + 1))
    return entities
