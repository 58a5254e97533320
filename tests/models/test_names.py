"""The name table: invertible in every dialect, whole suffixes only, and the load report's accounting."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.errors import CheckpointError
from minitl.models import BertConfig
from minitl.models.load_report import compare
from minitl.models.names import (
    Dialect,
    compress,
    count_layers,
    dialect_of,
    expected_shapes,
    from_checkpoint,
    to_checkpoint,
    unused_part,
    without_prefix,
)

TINY = BertConfig(
    vocab_size=11, hidden_size=4, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, num_labels=3
)
DIALECTS = [Dialect(prefix, gamma_beta) for prefix in (False, True) for gamma_beta in (False, True)]

encoder_pieces = st.sampled_from(["bert", "embeddings", "encoder", "pooler", "layer", "0", "11", "dense", "weight"])
odd_pieces = st.sampled_from(["LayerNorm", "gamma", "beta", "bias", "classifier", "my_gamma", "xLayerNorm", ""])
pieces = encoder_pieces | odd_pieces
paths = st.lists(pieces, min_size=1, max_size=6).map(".".join)


@dataclass
class Stored:
    """A tensor in a file, as far as the report looks at it."""

    shape: tuple[int, ...]
    dtype: str = "F32"


def stored(names_and_shapes):
    return {name: Stored(shape) for name, shape in names_and_shapes.items()}


@pytest.mark.parametrize("base_prefix", ["", "bert."])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_parameter_comes_back_from_every_dialect(base_prefix, dialect):
    ours = expected_shapes(TINY, base_prefix, pooler=True, classifier=True)
    theirs = {to_checkpoint(name, dialect): name for name in ours}
    assert len(theirs) == len(ours)
    assert {from_checkpoint(name, base_prefix): name for name in theirs} == {
        name: their for their, name in theirs.items()
    }
    assert any(".gamma" in name for name in theirs) == dialect.gamma_beta
    assert any(name.startswith("bert.") for name in theirs) == dialect.prefix


@given(name=paths | st.text(max_size=30), base_prefix=st.sampled_from(["", "bert."]))
def test_reading_a_name_and_writing_it_back_in_its_dialect_changes_nothing(name, base_prefix):
    assert to_checkpoint(from_checkpoint(name, base_prefix), dialect_of(name)) == name


@given(name=paths, base_prefix=st.sampled_from(["", "bert."]))
def test_translating_twice_is_translating_once(name, base_prefix):
    once = from_checkpoint(name, base_prefix)
    assert from_checkpoint(once, base_prefix) == once


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert.embeddings.LayerNorm.gamma", "embeddings.LayerNorm.weight"),
        ("LayerNorm.beta", "LayerNorm.bias"),
        ("encoder.LayerNorm.gamma_1", "encoder.LayerNorm.gamma_1"),
        ("encoder.xLayerNorm.gamma", "encoder.xLayerNorm.gamma"),
        ("encoder.LayerNorm.gamma.weight", "encoder.LayerNorm.gamma.weight"),
        ("bert.classifier.weight", "bert.classifier.weight"),
        ("bert.embeddings", "bert.embeddings"),
        ("classifier.weight", "classifier.weight"),
    ],
)
def test_rules_touch_whole_parts_only(name, expected):
    assert from_checkpoint(name, "") == expected


def test_unused_parts_are_recognised_with_and_without_the_prefix():
    assert unused_part("bert.embeddings.position_ids")[0] == "constant buffer"
    assert unused_part("embeddings.position_ids")[0] == "constant buffer"
    assert unused_part("embeddings.position_ids.more") is None
    assert unused_part("cls.predictions.decoder.weight")[0] == "masked-language-model head"
    assert unused_part("cls.seq_relationship.bias")[0] == "next-sentence head"
    assert unused_part("qa_outputs.weight")[0] == "question-answering head"
    assert unused_part("bert.pooler.dense.weight")[0] == "pooler"
    assert unused_part("encoder.layer.0.adapter.weight") is None


def test_layers_are_counted_and_lists_are_written_short():
    assert count_layers(["bert.encoder.layer.0.a", "encoder.layer.11.b", "x.layer.40.c"]) == 12
    assert count_layers(["pooler.dense.weight"]) == 0
    assert compress(["a.layer.0.x", "a.layer.1.x", "a.layer.3.x", "a.layer.07.x", "y", "a.layer.4.z"]) == [
        "a.layer.{0-1,3}.x",
        "a.layer.07.x",
        "y",
        "a.layer.4.z",
    ]


@given(st.lists(st.integers(0, 30), max_size=12, unique=True), st.sampled_from(["x", "y.z"]))
def test_a_short_list_stands_for_every_name(numbers, rest):
    line = compress([f"encoder.layer.{number}.{rest}" for number in numbers])
    expanded = set()
    for text in line:
        inside = text.removeprefix("encoder.layer.").removesuffix(f".{rest}").strip("{}")
        for run in inside.split(","):
            first, _, last = run.partition("-")
            expanded |= set(range(int(first), int(last or first) + 1))
    assert expanded == set(numbers)


def test_report_of_a_pretraining_checkpoint():
    """Names as bert-base-cased was published: prefix, gamma/beta, both pre-training heads, a pooler."""
    expected = expected_shapes(TINY, "bert.", pooler=False, classifier=True)
    encoder = expected_shapes(TINY, "bert.", pooler=True, classifier=False)
    files = {to_checkpoint(name, Dialect(True, True)): shape for name, shape in encoder.items()}
    files |= {
        "cls.predictions.bias": (11,),
        "cls.predictions.transform.dense.weight": (4, 4),
        "cls.predictions.transform.dense.bias": (4,),
        "cls.predictions.transform.LayerNorm.gamma": (4,),
        "cls.predictions.transform.LayerNorm.beta": (4,),
        "cls.seq_relationship.weight": (2, 4),
        "cls.seq_relationship.bias": (2,),
    }
    report = compare(stored(files), expected, "bert.")
    report.raise_if_unusable("folder")
    assert sorted(report.file_names()) == sorted(files)
    assert str(report).splitlines() == [
        "loaded 37 tensors (10 renamed gamma/beta)",
        "not used: pooler (2 tensors: bert.pooler.dense.weight, bert.pooler.dense.bias); this model has none",
        "not used: masked-language-model head (5 tensors: cls.predictions.bias, "
        "cls.predictions.transform.dense.weight, cls.predictions.transform.dense.bias, ...); "
        "only pre-training needs it",
        "not used: next-sentence head (2 tensors: cls.seq_relationship.weight, cls.seq_relationship.bias); "
        "only pre-training needs it",
        "NEW, random: classifier (2 tensors): train before use",
    ]
    verbose = "\n".join(report.lines(verbose=True))
    assert all(name in verbose for name in files)


def test_report_of_a_bare_encoder_and_of_an_encoder_under_a_head():
    with_head = expected_shapes(TINY, "bert.", pooler=False, classifier=True)
    bare = expected_shapes(TINY, "", pooler=True, classifier=False)
    report = compare(stored({**bare, "embeddings.position_ids": (1, 512)}), with_head, "bert.")
    assert str(report).startswith("loaded 37 tensors (prefix bert. added)")
    assert report.new == ["classifier.weight", "classifier.bias"]
    report = compare(stored(with_head), bare, "")
    assert "prefix bert. removed" in str(report)
    assert report.missing == ["pooler.dense.weight", "pooler.dense.bias"]
    assert ("classifier", "this model has none") in report.ignored


def test_everything_wrong_is_listed_at_once():
    expected = expected_shapes(TINY, "bert.", pooler=False, classifier=True)
    files = stored(expected)
    del files["bert.embeddings.word_embeddings.weight"], files["bert.encoder.layer.1.output.dense.bias"]
    files["bert.encoder.layer.0.output.dense.bias"] = Stored((5,))
    files["bert.embeddings.LayerNorm.bias"] = Stored((4,), "I8")
    files["bert.embeddings.LayerNorm.gamma"] = Stored((4,))  # beside .weight: the same parameter twice
    files["mystery"] = Stored((1,))
    report = compare(files, expected, "bert.")
    with pytest.raises(CheckpointError) as caught:
        report.raise_if_unusable("folder")
    message = str(caught.value)
    for part in (
        "folder",
        "bert.embeddings.word_embeddings.weight",
        "bert.encoder.layer.1.output.dense.bias",
        "bert.encoder.layer.0.output.dense.bias: file (5,), model (4,)",
        "bert.embeddings.LayerNorm.bias: is I8",
        "also stored as bert.embeddings.LayerNorm.weight",
        "mystery",
    ):
        assert part in message


def test_a_replaced_head_is_reported_and_half_a_head_is_an_error():
    expected = expected_shapes(TINY, "bert.", pooler=False, classifier=True)
    files = stored(expected)
    files["classifier.weight"] = Stored((7, 4))
    report = compare(files, expected, "bert.", new_head=True)
    report.raise_if_unusable("folder")
    assert report.new == ["classifier.weight", "classifier.bias"]
    assert "new_head=True" in str(report)
    del files["classifier.bias"]
    files["classifier.weight"] = Stored((3, 4))
    assert compare(files, expected, "bert.").missing == ["classifier.bias"]
    files["classifier.out.weight"] = Stored((3, 4))
    assert compare(files, expected, "bert.").unexpected == ["classifier.out.weight"]


@given(
    st.dictionaries(
        paths | st.sampled_from(sorted(expected_shapes(TINY, "bert.", pooler=True, classifier=True))),
        st.builds(
            Stored, st.sampled_from([(4,), (4, 4), (3, 4), (8, 4), (11, 4)]), st.sampled_from(["F32", "I64", "BF16"])
        ),
        max_size=25,
    ),
    st.sampled_from(["", "bert."]),
    st.booleans(),
)
def test_every_name_is_in_exactly_one_list(files, base_prefix, new_head):
    expected = expected_shapes(TINY, base_prefix, pooler=base_prefix == "", classifier=base_prefix == "bert.")
    report = compare(files, expected, base_prefix, new_head=new_head)
    assert sorted(report.file_names()) == sorted(files)
    filled = set(report.loaded) | set(report.missing) | set(report.new)
    misfits = {from_checkpoint(name, base_prefix) for name in report.misshaped}
    assert filled | misfits == set(expected)
    text = "\n".join(report.lines(verbose=True))
    assert all(name in text for name in files)
    assert all(without_prefix(name) for name in expected)
