"""Text: data files, tag schemes, word pieces, windows and packed batches.

Importing this package does not import ``tokenizers``; making a :class:`TextTokenizer` does.
"""

from minitl.text.alignment import AlignedSentence, EncodingReport, encode_sentence, encode_sentences
from minitl.text.batch import IGNORED, PackedBatch
from minitl.text.batching import Batch, batch_count, batches, decode, predict_tags, window_logits, word_logits
from minitl.text.conll import Sentence, read_conll, stream_conll, write_conll
from minitl.text.conllu import read_conllu
from minitl.text.conversion import Converted, Reading, convert_file
from minitl.text.dataset import Dataset, load_corpus, read_folder
from minitl.text.encoding import EncodedDataset, EncodedWindow, encode_dataset, excluded_entities
from minitl.text.formats import read_sentences
from minitl.text.jsonl import read_jsonl
from minitl.text.labels import LabelSet
from minitl.text.schemes import (
    SCHEMES,
    Entity,
    IllegalTransition,
    Scheme,
    convert,
    detect_scheme,
    illegal_transitions,
    lenient_spans,
    spans_to_tags,
    tags_to_spans,
)
from minitl.text.tokenizer import TextTokenizer
from minitl.text.windows import Window, plan_windows
from minitl.text.words import Word, split_words

__all__ = [
    "IGNORED",
    "SCHEMES",
    "AlignedSentence",
    "Batch",
    "Converted",
    "Dataset",
    "EncodedDataset",
    "EncodedWindow",
    "EncodingReport",
    "Entity",
    "IllegalTransition",
    "LabelSet",
    "PackedBatch",
    "Reading",
    "Scheme",
    "Sentence",
    "TextTokenizer",
    "Window",
    "Word",
    "batch_count",
    "batches",
    "convert",
    "convert_file",
    "decode",
    "detect_scheme",
    "encode_dataset",
    "encode_sentence",
    "encode_sentences",
    "excluded_entities",
    "illegal_transitions",
    "lenient_spans",
    "load_corpus",
    "plan_windows",
    "predict_tags",
    "read_conll",
    "read_conllu",
    "read_folder",
    "read_jsonl",
    "read_sentences",
    "spans_to_tags",
    "split_words",
    "stream_conll",
    "tags_to_spans",
    "window_logits",
    "word_logits",
    "write_conll",
]
