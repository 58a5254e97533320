"""Fine-tune a public BERT to find named entities: python examples/ner_finetune.py

Without arguments, on a CPU, it fetches a small BERT (91 MB, once), reads the corpus that comes with minitl, and
trains for a few minutes. Bring your own data with --data FOLDER: CoNLL files called train, dev and test. The trained
model is saved as a folder that minitl and Hugging Face transformers both load.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import minitl
from minitl import optim, transfer
from minitl.errors import MinitlError
from minitl.metrics import EntityScores, accounting, entity_scores, token_scores
from minitl.models import DEFAULT_MODEL, BertForTokenClassification, require_tokenizer
from minitl.text import (
    EncodedDataset,
    Sentence,
    batch_count,
    batches,
    encode_dataset,
    excluded_entities,
    load_corpus,
    read_folder,
)
from minitl.training import BestState, GraphedStep, TrainingProgress, run_folder, train_step
from minitl.viz import colour_entities

NEW_SENTENCES = (
    "Ingrid Solberg flew from Oslo to Nairobi on Monday to speak at the United Nations.",
    "Jordan Whitfield left Amazon in March and now paddles down the Amazon with two Brazilian friends.",
    "The reading room was silent; nobody had read the new novel yet.",
)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, help="folder or Hugging Face name of a BERT")
    parser.add_argument(
        "--data", metavar="FOLDER", help="CoNLL files train, dev, test; the embedded corpus if left out"
    )
    parser.add_argument("--epochs", type=at_least(1, int), default=5, help="times through the training sentences")
    parser.add_argument("--lr", type=at_least(0, float, below=1), default=2e-4, help="peak learning rate")
    parser.add_argument("--batch-size", type=at_least(1, int), default=16, help="sentences per step")
    parser.add_argument("--max-length", type=at_least(3, int), default=128, help="tokens the model reads at once")
    parser.add_argument("--seed", type=at_least(0, int, below=2**64), default=0, help="of everything random")
    parser.add_argument("--device", default="cpu", help="where to compute: cpu, or cuda for a GPU")
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "tf32", "auto"),
        default="float32",
        help="of matrix products; bfloat16 is faster where the processor or GPU has it, which auto finds out",
    )
    parser.add_argument("--output", metavar="FOLDER", help="where to save; runs/ner-1, runs/ner-2, ... if left out")
    parser.add_argument("--freeze", default="nothing", help="nothing, embeddings, encoder, or a number of layers")
    return parser.parse_args()


def at_least(minimum: float, kind: type, below: float = math.inf) -> Callable[[str], float]:
    """Return what argparse calls to turn a word into a number from ``minimum`` up to, but not including, ``below``."""

    def convert(text: str) -> float:
        value = kind(text)
        if not minimum <= value < below:
            limit = "" if below == math.inf else f" and below {below}"
            raise argparse.ArgumentTypeError(f"must be at least {minimum}{limit}, not {text}")
        return value

    convert.__name__ = kind.__name__  # argparse says "invalid int value" with it
    return convert


def score(model: BertForTokenClassification, sentences: Sequence[Sentence], encoded: EncodedDataset) -> EntityScores:
    """Tag the sentences and compare with their gold tags, entity by entity."""
    return entity_scores([sentence.tags for sentence in sentences], model.predict_tags(encoded))


def fine_tune(model, train: EncodedDataset, dev: Sequence[Sentence], encoded_dev: EncodedDataset, args) -> None:
    """Train; after each epoch score the dev sentences, and end with the weights of the best epoch."""
    steps = batch_count(train, args.batch_size)
    total = args.epochs * steps
    optimizer = optim.AdamW(optim.decay_groups(model, weight_decay=0.01), lr=args.lr)
    schedule = optim.Schedule(optimizer, total, warmup=total // 10)
    # On a GPU the recording of a step: to launch its kernels one by one takes longer than they do
    recorded = GraphedStep(model, optimizer, schedule=schedule) if args.device == "cuda" else None
    best = BestState(model)
    skipped = 0
    for epoch in range(args.epochs):
        model.train()
        with TrainingProgress(steps, f"epoch {epoch + 1}/{args.epochs}") as progress:
            for batch in batches(train, args.batch_size, seed=args.seed, epoch=epoch):
                if recorded is not None:
                    step = recorded(batch.packed)
                else:
                    step = train_step(model, [batch.packed], optimizer, schedule=schedule)  # forward, backward, update
                progress.advance(step.loss, labels=step.label_count, tokens=step.token_count)
                skipped += step.skipped
        f1 = score(model, dev, encoded_dev).f1
        print(f"epoch {epoch + 1}: dev entity F1 {f1:.3f}{'  (best so far)' if best.update(f1, epoch + 1) else ''}")
    best.restore()
    if skipped:
        print(f"{skipped} steps were skipped: no label of theirs is scored")
    print(f"kept epoch {best.label}, dev entity F1 {best.score:.3f}\n")


def run(args: argparse.Namespace, output: Path) -> None:
    minitl.manual_seed(args.seed)
    data = load_corpus() if args.data is None else read_folder(args.data)
    print("\n".join(data.notes))
    model = BertForTokenClassification.from_pretrained(args.model, id2label=data.labels.id2label, new_head=True)
    model.to(args.device)
    print(f"{model.load_report}\n{transfer.freeze(model, args.freeze)}")
    tokenizer = require_tokenizer(model)
    limit = min(args.max_length, model.config.max_position_embeddings)
    train, dev, test = (
        encode_dataset(part, tokenizer, data.labels.ids, limit) for part in (data.train, data.dev, data.test)
    )
    print(f"train: {train.report}\ndev: {dev.report}\ntest: {test.report}\n")

    before = score(model, data.test, test)
    print(f"before training: test entity F1 {before.f1:.3f}\n")
    fine_tune(model, train, data.dev, dev, args)

    gold, predicted = [sentence.tags for sentence in data.test], model.predict_tags(test)
    after = entity_scores(gold, predicted)
    print(f"test, before training\n{before}\n\ntest, after training\n{after}\n")
    print(f"{accounting(gold, predicted, excluded_entities(data.test, test))}\n\n{token_scores(gold, predicted)}\n")

    for text in NEW_SENTENCES:
        print(colour_entities(text, model.tag(text)))
    model.save_pretrained(output)
    print(f"\nsaved to {output}; load it with BertForTokenClassification.from_pretrained({str(output)!r})")


def main() -> None:
    args = parse_arguments()
    try:
        with minitl.precision(args.precision, device=args.device) as policy, run_folder("ner", args.output) as output:
            if args.precision == "auto":
                print(f"--precision auto: matrix products in {policy.compute}")
            run(args, output)
    except MinitlError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was saved", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
