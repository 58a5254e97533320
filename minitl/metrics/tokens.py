"""The token-level table that many tutorials print: it counts ``O`` and single words, so it looks better than it is."""

from collections import Counter
from dataclasses import dataclass

from minitl.metrics.entities import Score, TagSequences, average, check_lengths, score_table

WARNING = "token-level, includes O; not comparable with entity F1"


@dataclass(frozen=True)
class TokenScores:
    """Scores of each tag, word by word; ``str()`` prints them under a heading that warns.

    Attributes:
        tags: the score of each tag that occurs in gold or predicted tags, sorted by name.
        accuracy: part of the words with the right tag.
        all_outside_accuracy: the accuracy of predicting ``O`` everywhere: what ``accuracy`` must be seen beside.
        words: number of words.
    """

    tags: dict[str, Score]
    accuracy: float
    all_outside_accuracy: float
    words: int

    @property
    def macro(self) -> Score:
        """The mean over tags, ``O`` included."""
        return average(list(self.tags.values()))

    @property
    def weighted(self) -> Score:
        """The mean over tags weighted by their number, ``O`` included."""
        return average(list(self.tags.values()), weighted=True)

    def __str__(self) -> str:
        rows = [*self.tags.items(), ("macro average", self.macro), ("weighted average", self.weighted)]
        return "\n".join(
            [
                WARNING,
                score_table("tag", rows, len(self.tags)),
                "",
                f"accuracy                        {self.accuracy:.4f} of {self.words} words",
                f"accuracy of O for every word    {self.all_outside_accuracy:.4f}",
            ]
        )


def token_scores(gold: TagSequences, predicted: TagSequences) -> TokenScores:
    """Score tags word by word.

    Args:
        gold, predicted: the tags of each sentence.

    Raises:
        ValueError: if numbers of sentences or tags differ.

    >>> scores = token_scores([["B-PER", "O", "O", "O"]], [["O", "O", "O", "O"]])
    >>> scores.accuracy, scores.all_outside_accuracy, scores.tags["B-PER"].f1
    (0.75, 0.75, 0.0)
    """
    check_lengths(gold, predicted)
    pairs = Counter(
        pair
        for gold_tags, predicted_tags in zip(gold, predicted, strict=True)
        for pair in zip(gold_tags, predicted_tags, strict=True)
    )
    in_gold, in_predicted = Counter[str](), Counter[str]()
    for (gold_tag, predicted_tag), count in pairs.items():
        in_gold[gold_tag] += count
        in_predicted[predicted_tag] += count
    tags = {}
    for name in sorted(in_gold | in_predicted):
        right = pairs[name, name]
        tags[name] = Score.from_counts(right, in_predicted[name] - right, in_gold[name] - right)
    words = pairs.total()
    right_words = sum(count for (gold_tag, predicted_tag), count in pairs.items() if gold_tag == predicted_tag)
    return TokenScores(
        tags=tags,
        accuracy=right_words / words if words else 0.0,
        all_outside_accuracy=in_gold["O"] / words if words else 0.0,
        words=words,
    )
