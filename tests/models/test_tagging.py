"""``tag`` and ``predict_tags``: from text to entities, with a tiny model and a tiny vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minitl
from minitl.autograd import is_grad_enabled
from minitl.errors import CheckpointError
from minitl.models import BertConfig, BertForTokenClassification, PackedBatch
from minitl.models.tagging import Span
from minitl.text import LabelSet, Sentence, encode_dataset, word_logits

LETTERS = [chr(number) for number in range(ord("a"), ord("z") + 1)] + ["東", "京", "é"]
WORDS = ["angela", "merkel", "visited", "paris", "new", "york", "the", ".", ",", "-", "'"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
TAGS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}
# word piece -> class and its logit; all others O with logit 2
RULE = {"angela": (1, 3.0), "merkel": (2, 1.0), "paris": (3, 4.0), "new": (3, 0.5), "york": (4, 2.5)}
MAX_LENGTH = 12


class RuleTagger(BertForTokenClassification):
    """Its logits are known: by RULE for one class, 0 for the others."""

    def predict_logits(self, batch: PackedBatch) -> Any:
        assert np.diff(batch.cu_seqlens).max() <= MAX_LENGTH
        logits = np.zeros((batch.token_count, len(TAGS)), dtype=np.float32)
        for row, token in enumerate(batch.input_ids.tolist()):
            number, logit = RULE.get(VOCABULARY[token], (0, 2.0))
            logits[row, number] = logit
        return logits


def expected_score(text: str) -> float:
    """The mean over the words of the softmax of (logit, 0, 0, 0, 0)."""
    logits = np.array([RULE[word][1] for word in text.lower().split()])
    return float((np.exp(logits) / (np.exp(logits) + len(TAGS) - 1)).mean())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved random tagger with a vocabulary."""
    path = tmp_path_factory.mktemp("tagger")
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=MAX_LENGTH,
        id2label=TAGS,
        initializer_range=1.0,  # so that the tags vary
    )
    minitl.manual_seed(0)
    BertForTokenClassification(config).save_pretrained(path)
    (path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> BertForTokenClassification:
    return BertForTokenClassification.from_pretrained(folder)


@pytest.fixture(scope="module")
def rule_tagger(folder: Path) -> RuleTagger:
    return RuleTagger.from_pretrained(folder)


def test_entities_are_spans_of_the_text_with_the_mean_probability_of_their_words(rule_tagger: RuleTagger) -> None:
    text = "  Angela Merkel visited\n Paris, New York."
    spans = rule_tagger.tag(text)
    assert [(span.text, span.label) for span in spans] == [
        ("Angela Merkel", "PER"),
        ("Paris", "LOC"),
        ("New York", "LOC"),
    ]
    for span in spans:
        assert text[span.start : span.end] == span.text
        assert span.score == pytest.approx(expected_score(span.text), rel=1e-6)  # float32 logits


def test_long_text_is_read_in_windows_and_nothing_is_lost(rule_tagger: RuleTagger) -> None:
    text = "the angela merkel visited new york . " * 40  # 280 words, 12 tokens at a time
    spans = rule_tagger.tag(text)
    assert [span.text for span in spans] == ["angela merkel", "new york"] * 40
    for span in spans:
        assert text[span.start : span.end] == span.text
        assert span.score == pytest.approx(expected_score(span.text), rel=1e-6)  # float32 logits


texts = st.text(alphabet=st.sampled_from("".join(LETTERS) + "ABZ .,'-\n\t\u00a0!☃"), max_size=60) | st.text(max_size=30)


@given(text=texts)
def test_spans_reproduce_the_text_in_order(model: BertForTokenClassification, text: str) -> None:
    end = 0
    for span in model.tag(text):
        assert isinstance(span, Span)
        assert end <= span.start < span.end
        assert span.text == text[span.start : span.end]
        assert span.text == span.text.strip()
        assert span.label in ("PER", "LOC")
        assert 0 < span.score <= 1
        end = span.end


def test_the_random_model_does_find_something(model: BertForTokenClassification) -> None:
    spans = model.tag("angela merkel visited paris , the new york of the angela merkel")
    assert spans  # or the test above would be about nothing


@pytest.mark.parametrize("text", ["", "   ", "\n\t "])
def test_no_text_no_entities(model: BertForTokenClassification, text: str) -> None:
    assert model.tag(text) == []


def test_words_that_vanish_or_are_unknown_do_not_move_the_others(rule_tagger: RuleTagger) -> None:
    text = "☃ \u200d Angela \u200b Merkel ☃"
    found = [(span.text, span.label) for span in rule_tagger.tag(text)]
    assert found[0][0].startswith("Angela")
    assert all(span.text == text[span.start : span.end] for span in rule_tagger.tag(text))


TINY = {"vocab_size": 20, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4}


def test_without_a_tokenizer_the_error_says_so() -> None:
    model = BertForTokenClassification(BertConfig(**TINY))
    with pytest.raises(CheckpointError, match="no tokenizer"):
        model.tag("Paris")


def test_a_tokenizer_with_more_entries_than_the_model_is_refused(folder: Path) -> None:
    model = BertForTokenClassification(BertConfig(**TINY))
    model.tokenizer = BertForTokenClassification.from_pretrained(folder).tokenizer
    with pytest.raises(CheckpointError, match="belong to another model"):
        model.tag("Paris")


def test_labels_that_are_no_tags_give_one_clear_error(folder: Path) -> None:
    model = BertForTokenClassification.from_pretrained(folder, num_labels=3, new_head=True)
    with pytest.raises(CheckpointError, match=r"labels are no tags: .*LABEL_0.*id2label"):
        model.tag("angela merkel visited paris the new york")


def test_predict_tags_gives_one_tag_for_every_word_in_order(rule_tagger: RuleTagger) -> None:
    sentences = [
        ("the", "angela", "merkel"),
        ("paris",),
        ("\u200d", "new", "york", "x" * 101, "paris"),  # the first vanishes, the fourth is unknown
        ("new", "york", ".") * 30,  # windows
        ("the", "the"),
    ]
    expected = [
        ["O", "B-PER", "I-PER"],
        ["B-LOC"],
        ["O", "B-LOC", "I-LOC", "O", "B-LOC"],
        ["B-LOC", "I-LOC", "O"] * 30,
        ["O", "O"],
    ]
    assert rule_tagger.tokenizer is not None
    encoded = encode_dataset([Sentence(words) for words in sentences], rule_tagger.tokenizer, {}, MAX_LENGTH)
    for batch_size in (1, 2, 32):
        assert rule_tagger.predict_tags(encoded, batch_size=batch_size) == expected


def test_a_long_text_is_read_in_batches_of_bounded_size(rule_tagger: RuleTagger) -> None:
    """What is held at once does not grow with the text."""
    read: list[tuple[int, int]] = []
    predict_logits = rule_tagger.predict_logits

    def noting(batch: PackedBatch) -> Any:
        read.append((batch.sentence_count, batch.token_count))
        return predict_logits(batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rule_tagger, "predict_logits", noting)
        spans = [rule_tagger.tag("the angela merkel visited new york . " * times) for times in (100, 400)]
    assert [len(found) for found in spans] == [200, 800]
    assert max(read) == (32, 32 * MAX_LENGTH)
    assert len(read) > 2 * 5


def test_what_comes_with_a_sentence_changes_its_logits_by_rounding(folder: Path) -> None:
    model = BertForTokenClassification.from_pretrained(folder, dtype="float64")
    words = np.random.default_rng(3).choice(WORDS, size=(11, 30))
    assert model.tokenizer is not None
    sentences = [Sentence(tuple(row[: 3 * i + 1])) for i, row in enumerate(words.tolist())]
    encoded = encode_dataset(sentences, model.tokenizer, {}, MAX_LENGTH)
    labels = LabelSet.from_id2label(TAGS)

    def logits_of(batch_size: int) -> dict[tuple[int, int], np.ndarray]:
        found = word_logits(encoded, labels, model.predict_logits, batch_size=batch_size)
        return {
            (window.sentence, word): row for window, rows in found for word, row in zip(window.words, rows, strict=True)
        }

    alone = logits_of(1)
    assert sorted(alone) == [(i, word) for i, sentence in enumerate(sentences) for word in range(len(sentence.words))]
    for batch_size in (2, 32):
        together = logits_of(batch_size)
        for place, row in alone.items():
            # float64, logits of size 1 to 10, sums of tens of terms
            np.testing.assert_allclose(together[place], row, rtol=0, atol=1e-12)


def test_the_batch_size_does_not_change_the_tags(model: BertForTokenClassification) -> None:
    words = np.random.default_rng(0).choice(WORDS, size=(9, 15))
    assert model.tokenizer is not None
    encoded = encode_dataset([Sentence(tuple(row[: 3 + i])) for i, row in enumerate(words.tolist())],
                             model.tokenizer, {}, MAX_LENGTH)  # fmt: skip
    expected = model.predict_tags(encoded, batch_size=1)
    assert [len(tags) for tags in expected] == list(range(3, 12))
    assert len({tag for tags in expected for tag in tags}) > 2
    assert model.predict_tags(encoded, batch_size=4) == expected


# -- the mode ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def watched(folder: Path) -> tuple[BertForTokenClassification, list[tuple[bool, bool]]]:
    """A model that notes, whenever it runs, whether it is in training mode and whether operations are recorded."""
    model = BertForTokenClassification.from_pretrained(folder)
    seen: list[tuple[bool, bool]] = []
    forward = model.classifier.forward

    def noting(x: Any) -> Any:
        seen.append((model.classifier.training, is_grad_enabled()))
        return forward(x)

    model.classifier.forward = noting  # type: ignore[method-assign]
    return model, seen


@pytest.mark.parametrize("training", [True, False])
def test_tagging_evaluates_records_nothing_and_restores_the_mode(watched: Any, training: bool) -> None:
    model, seen = watched
    model.train(training)
    state = minitl.random.default_generator().call
    assert model.tag("angela visited paris") == model.tag("angela visited paris")  # no dropout
    assert seen == [(False, False)] * 2
    assert all(module.training == training for module in model.modules())
    assert is_grad_enabled()
    assert minitl.random.default_generator().call == state


def test_the_mode_is_restored_after_an_error(watched: Any) -> None:
    model, _ = watched
    model.train()
    broken = PackedBatch(np.array([10**6]), np.array([0]), np.array([0]), np.array([0, 1]))
    with pytest.raises(ValueError, match="token id 1000000"):
        model.predict_logits(broken)
    assert all(module.training for module in model.modules())
    assert is_grad_enabled()
