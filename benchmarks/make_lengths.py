"""Count how long the sentences of CoNLL-2003 and WNUT-17 are, for benchmarks with natural lengths.

    python benchmarks/make_lengths.py --conll-lengths FILE --conll-words 203621 --wnut17 FOLDER --model FOLDER

CoNLL-2003 may not be passed on, so its lengths come as a list of integers, and its words as their number. WNUT-17 is
tokenised here. What is written, data/lengths.json, holds counts only; the benchmarks need nothing else.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from minitl.text import TextTokenizer, encode_dataset, read_folder

TARGET = Path(__file__).resolve().parent / "data" / "lengths.json"


def summary(name: str, lengths: Iterable[int], scored: int) -> dict[str, object]:
    """What the benchmarks know about a corpus: how many sentences have which length, and how many labels count."""
    counts = Counter(lengths)
    return {
        "name": name,
        "source": "training sentences, uncased word pieces, [CLS] and [SEP]",
        "sentences": counts.total(),
        "tokens": sum(length * count for length, count in counts.items()),
        "scored_labels": scored,
        "sentences_of_length": {str(length): counts[length] for length in sorted(counts)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--conll-lengths", type=Path, required=True, help="one integer a line, with [CLS] and [SEP]")
    parser.add_argument("--conll-words", type=int, required=True, help="words, each of which has one scored label")
    parser.add_argument("--wnut17", required=True, help="folder with CoNLL files")
    parser.add_argument("--model", required=True, help="folder with a tokenizer")
    args = parser.parse_args()
    conll = [int(line) for line in args.conll_lengths.read_text().split()]
    data = read_folder(args.wnut17)
    encoded = encode_dataset(data.train, TextTokenizer.from_folder(args.model), data.labels.ids, max_length=512)
    windows = [window for windows in encoded.windows for window in windows]
    corpora = {
        "conll2003": summary("CoNLL-2003", conll, args.conll_words),
        "wnut17": summary(
            "WNUT-17",
            (len(window.input_ids) for window in windows),
            sum(int((window.labels >= 0).sum()) for window in windows),
        ),
    }
    text = json.dumps(corpora, indent=1)
    TARGET.write_text(text + "\n")
    for name, corpus in corpora.items():
        print(name, {key: value for key, value in corpus.items() if key != "sentences_of_length"})


if __name__ == "__main__":
    main()
