"""From text to named entities: what BertForTokenClassification does besides classifying tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from minitl.autograd import no_grad
from minitl.errors import CheckpointError
from minitl.models.pretrained import require_tokenizer
from minitl.text.batch import PackedBatch
from minitl.text.batching import predict_tags, word_logits
from minitl.text.conll import Sentence
from minitl.text.encoding import EncodedDataset, encode_dataset
from minitl.text.labels import LabelSet
from minitl.text.schemes import lenient_spans, split_tag
from minitl.text.words import split_words

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

    def tag(self, text: str) -> list[Span]:
        """Find the named entities in a text of any length.

        Args:
            text: plain text; it is split into words as in CoNLL files, and read in overlapping windows where it is
                long, some thousand tokens at a time.

        Returns:
            The entities in order; ``text[span.start:span.end] == span.text``.

        Raises:
            CheckpointError: the model was loaded without a tokenizer, or its labels are no tags such as B-PER.
        """
        words = split_words(text)
        if not words:
            return []
        tokenizer = require_tokenizer(self)  # type: ignore[arg-type]
        labels = self._labels()
        _check_tags(labels)
        sentence = Sentence(tuple(word.text for word in words), None)
        encoded = encode_dataset([sentence], tokenizer, {}, self.config.max_position_embeddings)
        tags = ["O"] * len(words)
        scores = np.ones(len(words))  # a word without a piece is O for certain
        for window, logits in word_logits(encoded, labels, self.predict_logits):
            scores[window.words] = _softmax(logits).max(axis=1)
            for word, number in zip(window.words.tolist(), logits.argmax(axis=1).tolist(), strict=True):
                tags[word] = labels[number]
        spans = []
        for entity in lenient_spans(tags):
            first, last = words[entity.start].start, words[entity.end - 1].end
            score = float(scores[entity.start : entity.end].mean())
            spans.append(Span(text[first:last], entity.type, first, last, score))
        return spans

    def _labels(self) -> LabelSet:
        return LabelSet.from_id2label(self.config.id2label)


def _check_tags(labels: LabelSet) -> None:
    try:
        for name in labels:
            split_tag(name)
    except ValueError as error:
        raise CheckpointError(
            f"the model's labels are no tags: {error}; train it for named entities, or load it with the id2label that "
            "it was trained with"
        ) from None


def _softmax(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    normalised: npt.NDArray[Any] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return normalised
