"""From text to named entities: what BertForTokenClassification does besides classifying tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import fsum
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from minitl.autograd import no_grad
from minitl.errors import CheckpointError
from minitl.models.pretrained import require_tokenizer
from minitl.text.batch import PackedBatch
from minitl.text.batching import predict_tags, window_logits
from minitl.text.conll import Sentence
from minitl.text.decoding import Aggregation, best_legal_path, scheme_of_labels, word_probabilities
from minitl.text.encoding import EncodedDataset, encode_dataset
from minitl.text.labels import LabelSet
from minitl.text.schemes import lenient_spans, split_tag
from minitl.text.words import Word, split_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minitl.models.config import BertConfig
    from minitl.nn import Module


@dataclass(frozen=True)
class Span:
    """A named entity in a text.

    Attributes:
        text: its characters, ``whole_text[start:end]``.
        label: its type, for example ``"PER"``.
        start, end: first character and the one after the last.
        score: mean probability of its words' tags, 0 to 1.
    """

    text: str
    label: str
    start: int
    end: int
    score: float


@dataclass(frozen=True)
class TaggedWords:
    """Tags of the words of one sentence.

    Attributes:
        tags: one for each word.
        scores: (W,) the probability of each; 1 for a word without a piece, which is O for certain.
    """

    tags: list[str]
    scores: npt.NDArray[np.float64]


class TaggingMixin:
    """``tag`` and ``predict_tags`` for a token classifier whose labels are tags such as ``B-PER``."""

    if TYPE_CHECKING:
        config: BertConfig

        def __call__(self, *args: Any, **options: Any) -> Any: ...
        def modules(self) -> Iterator[Module]: ...
        def train(self, mode: bool = True) -> Any: ...

    def predict_logits(self, batch: PackedBatch) -> npt.NDArray[Any]:
        """Return the logits (T, C) of a packed batch, without dropout or recording; the mode is left as it was."""
        modes = [(module, module.training) for module in self.modules()]
        self.train(False)
        try:
            with no_grad():
                logits: npt.NDArray[Any] = self(batch).logits.numpy()
                return logits
        finally:
            for module, training in modes:
                module.training = training

    def predict_tags(self, encoded: EncodedDataset, *, batch_size: int = 32) -> list[list[str]]:
        """Return one tag for every word of every sentence, in order.

        The model reads sentences of similar length together, in batches of bounded size; what comes with a sentence
        changes its logits by rounding at most.

        Args:
            encoded: the sentences, from ``minitl.text.encode_dataset``.
            batch_size: the most sentences, or windows of long ones, at a time.
        """
        return predict_tags(encoded, self._labels(), self.predict_logits, batch_size=batch_size)

    def tag(self, text: str, *, aggregation: Aggregation = "first", constrained: bool = False) -> list[Span]:
        """Find the named entities in a text of any length.

        Args:
            text: plain text; it is split into words as in CoNLL files, and read in overlapping windows where it is
                long, some thousand tokens at a time.
            aggregation: how the pieces of a word vote: "first", "average" or "max"; see ``minitl.text.decoding``.
            constrained: whether only legal sequences of tags are considered.

        Returns:
            The entities in order; ``text[span.start:span.end] == span.text``.

        Raises:
            CheckpointError: the model was loaded without a tokenizer, or its labels are no tags such as B-PER.
        """
        return self.tag_texts([text], aggregation=aggregation, constrained=constrained)[0]

    def tag_texts(
        self,
        texts: Sequence[str],
        *,
        aggregation: Aggregation = "first",
        constrained: bool = False,
        batch_size: int = 32,
        between_batches: Callable[[], None] | None = None,
    ) -> list[list[Span]]:
        """Find the named entities in several texts at once, which is faster than one by one; see :meth:`tag`.

        Args:
            texts: each of any length, also empty.
            aggregation, constrained: as for :meth:`tag`.
            batch_size: the most sentences, or windows of long ones, at a time.
            between_batches: called before each batch, for whoever must not wait until all is done: it may use the model
                itself, and what it raises ends the work.
        """
        words = [split_words(text) for text in texts]
        tagged = self.tag_words(
            [[word.text for word in one] for one in words],
            aggregation=aggregation,
            constrained=constrained,
            batch_size=batch_size,
            between_batches=between_batches,
        )
        return [_spans(*parts) for parts in zip(texts, words, tagged, strict=True)]

    def tag_words(
        self,
        sentences: Sequence[Sequence[str]],
        *,
        aggregation: Aggregation = "first",
        constrained: bool = False,
        batch_size: int = 32,
        between_batches: Callable[[], None] | None = None,
    ) -> list[TaggedWords]:
        """Tag sentences that are words already: exactly one tag for each word, whatever its characters.

        Args:
            sentences: the words of each; one without words has no tags.
            aggregation, constrained: as for :meth:`tag`.
            batch_size, between_batches: as for :meth:`tag_texts`.

        Raises:
            CheckpointError: as :meth:`tag`.
            TypeError: a sentence is a string, or a word is none.
        """
        if isinstance(sentences, str) or any(isinstance(words, str) for words in sentences):
            raise TypeError("tag_words takes lists of words; text that is not split into words goes to tag_texts")
        tokenizer = require_tokenizer(self)  # type: ignore[arg-type]
        labels = self._labels()
        _check_tags(labels)
        capacity = self.config.max_position_embeddings - 2  # pieces of a word that can be read

        def readable(word: str) -> str:
            return tokenizer.beginning(_without_surrogates(word), capacity)

        full = [Sentence(tuple(map(readable, words))) for words in sentences if len(words)]

        def logits_of(batch: PackedBatch) -> npt.NDArray[Any]:
            if between_batches is not None:
                between_batches()
            return self.predict_logits(batch)

        probabilities = self._probabilities(full, tokenizer, labels, aggregation, batch_size, logits_of) if full else []
        results = iter([_most_probable(one, labels, constrained) for one in probabilities])
        return [next(results) if len(words) else TaggedWords([], np.zeros(0)) for words in sentences]

    def _probabilities(
        self,
        sentences: list[Sentence],
        tokenizer: Any,
        labels: LabelSet,
        aggregation: Aggregation,
        batch_size: int,
        logits_of: Callable[[PackedBatch], npt.NDArray[Any]],
    ) -> list[npt.NDArray[np.float64]]:
        """Return the probabilities (W, C) of the words of each sentence."""
        encoded = encode_dataset(sentences, tokenizer, {}, self.config.max_position_embeddings)
        outside = labels.ids.get("O")
        certain = np.zeros(len(labels)) if outside is None else np.eye(len(labels))[outside]
        probabilities = [np.tile(certain, (len(sentence.words), 1)) for sentence in sentences]
        for window, logits in window_logits(encoded, labels, logits_of, batch_size=batch_size):
            probabilities[window.sentence][window.words] = word_probabilities(window, logits, aggregation)
        return probabilities

    def _labels(self) -> LabelSet:
        return LabelSet.from_id2label(self.config.id2label)


def _most_probable(probabilities: npt.NDArray[np.float64], labels: LabelSet, constrained: bool) -> TaggedWords:
    """Return the tags of a sentence of which the probabilities (W, C) are known."""
    if constrained:
        path = best_legal_path(probabilities, labels.names, scheme_of_labels(labels.names))
    else:
        path = probabilities.argmax(axis=1)
    return TaggedWords([labels[number] for number in path.tolist()], probabilities[np.arange(len(path)), path])


def _spans(text: str, words: Sequence[Word], tagged: TaggedWords) -> list[Span]:
    """Return the entities of tagged words as they stand in their text."""
    spans = []
    scores = tagged.scores.tolist()
    for entity in lenient_spans(tagged.tags):
        first, last = words[entity.start].start, words[entity.end - 1].end
        score = fsum(scores[entity.start : entity.end]) / (entity.end - entity.start)
        spans.append(Span(text[first:last], entity.type, first, last, score))
    return spans


def _without_surrogates(word: str) -> str:
    """Return a word as the tokenizer can read it: half of a surrogate pair, which is no character, becomes U+FFFD."""
    if not isinstance(word, str):
        raise TypeError(f"words must be strings, found {word!r}")
    try:
        word.encode("utf-8")
    except UnicodeEncodeError:
        pass
    else:
        return word
    return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in word)


def _check_tags(labels: LabelSet) -> None:
    try:
        for name in labels:
            split_tag(name)
    except ValueError as error:
        raise CheckpointError(
            f"the model's labels are no tags: {error}; train it for named entities, or load it with the id2label that "
            "it was trained with"
        ) from None
