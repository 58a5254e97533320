"""Where every gold entity went: found, or lost for one of four reasons. Nothing may be left over."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from minitl.metrics.entities import Mode, TagSequences, check_lengths, read_entities
from minitl.text.schemes import Entity, Scheme


@dataclass(frozen=True)
class Accounting:
    """Gold entities = found + wrong type + wrong boundary + missed + excluded.

    Attributes:
        gold: number of gold entities: the denominator of recall, excluded ones included.
        found: predicted with the same type and words.
        wrong_type: predicted with the same words and another type.
        wrong_boundary: predicted with some of the words, or more.
        missed: no word of it predicted to be in an entity.
        excluded: how many could not be found, by reason.
        predicted: number of predicted entities: the denominator of precision.
        invented: predicted entities that share no word with a gold one.

    Raises:
        ValueError: if the parts do not add up to ``gold``.
    """

    gold: int
    found: int
    wrong_type: int
    wrong_boundary: int
    missed: int
    excluded: dict[str, int] = field(default_factory=dict)
    predicted: int = 0
    invented: int = 0

    def __post_init__(self) -> None:
        parts = (self.found, self.wrong_type, self.wrong_boundary, self.missed, *self.excluded.values())
        if sum(parts) != self.gold or min(parts) < 0:
            raise ValueError(f"the accounting does not add up: {self.gold} gold entities, but {sum(parts)} in {self!r}")
        if self.predicted < self.found + self.invented:
            raise ValueError(f"the accounting does not add up: too few predicted entities in {self!r}")

    @property
    def recall(self) -> float:
        """Found entities as a part of all gold entities, 0.0 if there is none."""
        return self.found / self.gold if self.gold else 0.0

    def __str__(self) -> str:
        rows = {
            "gold entities": self.gold,
            "  found": self.found,
            "  wrong type": self.wrong_type,
            "  wrong boundary": self.wrong_boundary,
            "  missed": self.missed,
            **{f"  excluded: {reason}": count for reason, count in sorted(self.excluded.items())},
            "predicted entities": self.predicted,
            "  without a gold one": self.invented,
        }
        width = max(map(len, rows))
        return "\n".join(f"{name:<{width}}  {count:>9}" for name, count in rows.items())


def accounting(
    gold: TagSequences,
    predicted: TagSequences,
    excluded: Mapping[tuple[int, int, int], str] | None = None,
    *,
    mode: Mode = "conlleval",
    scheme: Scheme = "IOB2",
) -> Accounting:
    """Say of every gold entity what became of it.

    An entity that was found is found even if it is listed as excluded, so that ``found`` is always the number of true
    positives of :func:`entity_scores`; after that comes ``excluded``, then wrong type, wrong boundary and missed.

    Args:
        gold, predicted: the tags of each sentence.
        excluded: (sentence, start, end) of gold entities that could not be found, and why, as
            :func:`minitl.text.excluded_entities` lists them.
        mode, scheme: how tags are read, as in :func:`entity_scores`.

    Raises:
        ValueError: if ``excluded`` names an entity that is not in ``gold``, or numbers of sentences or tags differ.
    """
    check_lengths(gold, predicted)
    unused = dict(excluded or {})
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for number, (gold_tags, predicted_tags) in enumerate(zip(gold, predicted, strict=True)):
        gold_entities = read_entities(gold_tags, mode, scheme, f"gold sentence {number}")
        predicted_entities = read_entities(predicted_tags, mode, scheme, f"predicted sentence {number}")
        covered = _words_of(predicted_entities)
        spans = {(entity.start, entity.end) for entity in predicted_entities}
        right = set(predicted_entities)
        for entity in gold_entities:
            reason = unused.pop((number, entity.start, entity.end), None)
            fate = _fate(entity, right, spans, covered)
            if reason is not None and fate != "found":
                reasons[reason] += 1
            else:
                counts[fate] += 1
        in_gold = _words_of(gold_entities)
        counts["gold"] += len(gold_entities)
        counts["predicted"] += len(predicted_entities)
        counts["invented"] += sum(in_gold.isdisjoint(range(item.start, item.end)) for item in predicted_entities)
    if unused:
        raise ValueError(
            f"excluded names {len(unused)} entities that are not in gold, the first is {next(iter(unused))}"
        )
    names = ("gold", "found", "wrong_type", "wrong_boundary", "missed", "predicted", "invented")
    return Accounting(**{name: counts[name] for name in names}, excluded=dict(reasons))


def _words_of(entities: Iterable[Entity]) -> set[int]:
    return {word for entity in entities for word in range(entity.start, entity.end)}


def _fate(entity: Entity, right: set[Entity], spans: set[tuple[int, int]], covered: set[int]) -> str:
    """What became of one gold entity."""
    if entity in right:
        return "found"
    if (entity.start, entity.end) in spans:
        return "wrong_type"
    return "missed" if covered.isdisjoint(range(entity.start, entity.end)) else "wrong_boundary"
