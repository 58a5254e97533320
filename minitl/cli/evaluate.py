"""``minitl evaluate``: the scores of a model on tagged sentences, and where every gold entity went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from minitl.cli.given import given_options, refuse
from minitl.cli.printing import say, show, show_json
from minitl.errors import MinitlError


@click.command()
@click.argument("model_folder", metavar="MODEL")
@click.argument("data", metavar="DATA")
@click.option("--part", type=click.Choice(["train", "dev", "test"]), default="test", help="Of a data folder.")
@click.option("--mode", type=click.Choice(["conlleval", "strict"]), default="conlleval", help="How tags are read.")
@click.option("--constrained", is_flag=True, help="Predict legal sequences of tags only.")
@click.option("--predictions", metavar="FILE", help="Write word, gold tag and predicted tag as CoNLL.")
@click.option("--overwrite", is_flag=True, help="Let --predictions replace a file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def evaluate(model_folder: str, data: str, **options: Any) -> None:
    """Score MODEL on DATA: a data folder, "corpus" for the one that comes with minitl, or a file
    (CoNLL, .conllu or .jsonl).

    \b
    Examples:
      minitl evaluate runs/ner-1 my_folder --part dev
      minitl evaluate runs/ner-1 test.conll --predictions tagged.conll
    """
    from minitl.metrics import accounting, entity_scores, token_scores
    from minitl.models import BertForTokenClassification, require_tokenizer
    from minitl.text import Sentence, encode_dataset, excluded_entities, write_conll

    if Path(data).is_file():
        refuse(given_options() & {"part"}, f"{data} is a file, which has no parts")
    path = options["predictions"]
    if path is not None and Path(path).exists() and not options["overwrite"]:
        raise MinitlError(f"{path}: exists; --overwrite replaces it")
    sentences = read(data, options["part"])
    model = BertForTokenClassification.from_pretrained(model_folder)
    unknown = _unknown_types(sentences, model.config.id2label.values())
    if unknown:
        say(f"gold entities of types the model does not know, which it cannot find: {unknown}")
    words = [sentence.words for sentence in sentences]
    predicted = [tagged.tags for tagged in model.tag_words(words, constrained=options["constrained"])]
    gold = [sentence.tags or () for sentence in sentences]
    bare = [Sentence(one) for one in words]
    encoded = encode_dataset(bare, require_tokenizer(model), {}, model.config.max_position_embeddings)
    table = entity_scores(gold, predicted, mode=options["mode"])
    lost = accounting(gold, predicted, excluded_entities(sentences, encoded), mode=options["mode"])
    tokens = token_scores(gold, predicted)
    if path is not None:
        write_conll(path, sentences, predicted)
    if options["as_json"]:
        by_type = {name: vars(counts.score) for name, counts in table.types.items()}
        values = {"mode": table.mode, "micro": vars(table.micro), "types": by_type, "accounting": vars(lost)}
        show_json({**values, "accuracy": tokens.accuracy, "words": tokens.words})
    else:
        show(f"{encoded.report}\n\n{table}\n\n{lost}\n\n{tokens}")


def read(data: str, part: str) -> list[Any]:
    """Return the sentences of a part of a folder, of the embedded corpus, or of one file, in IOB2."""
    from minitl.text import load_corpus, read_folder, read_sentences
    from minitl.text.one_scheme import common_scheme, in_scheme

    if data == "corpus":
        return list(getattr(load_corpus(), part))
    if Path(data).is_dir():
        return list(getattr(read_folder(data), part))
    sentences = read_sentences(data)
    return in_scheme(sentences, common_scheme(sentences), "IOB2")


def _unknown_types(sentences: Any, labels: Any) -> str:
    """Return the types of gold entities that the model has no label for, with their numbers."""
    from collections import Counter

    from minitl.text import lenient_spans
    from minitl.text.schemes import split_tag

    known = {split_tag(label)[1] for label in labels}
    found = Counter(entity.type for sentence in sentences for entity in lenient_spans(sentence.tags or ()))
    return ", ".join(f"{name} {count}" for name, count in sorted(found.items()) if name not in known)
