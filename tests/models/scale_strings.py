"""Random strings from everywhere in Unicode, and a tagger that is tiny, quick and finds entities all the time."""

from __future__ import annotations

import random
import string
import unicodedata
from pathlib import Path

import numpy as np

import minitl
from minitl.models import BertConfig, BertForTokenClassification
from minitl.text import TextTokenizer

TAGS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}
OUTSIDE = -0.5  # added to the logit of O, so that about nine words of ten are of an entity


def _range(first: int, last: int) -> str:
    return "".join(chr(number) for number in range(first, last + 1) if unicodedata.category(chr(number)) != "Cn")


ALPHABETS = {
    "Latin": string.ascii_letters + _range(0xC0, 0x24F),
    "Greek": _range(0x370, 0x3FF),
    "Cyrillic": _range(0x400, 0x4FF),
    "Hebrew": _range(0x591, 0x5F4),
    "Arabic": _range(0x600, 0x6FF),
    "Devanagari": _range(0x900, 0x97F),
    "Thai": _range(0xE00, 0xE7F),
    "Hangul": _range(0x1100, 0x11FF) + _range(0xAC00, 0xAC80),
    "Kana and ideographs": _range(0x3040, 0x30FF) + _range(0x4E00, 0x4E80) + "\U00020000\ufa0e",
    "marks": _range(0x300, 0x36F) + "\u20dd\ufe0f\ufe0e",
    "emoji": "👩👨👧👦👋🏽🏿❤🏳🌈🇳🇴🇯🇵#*1" + "\u200d" * 8 + "\ufe0f\u20e3\U000e0067\U000e007f",
    "directions": "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u061c",
    "controls": _range(0, 31) + _range(0x7F, 0x9F),
    "spaces": " " * 6 + "\t\n\r\x0b\x0c\x1c\x85\u00a0\u1680\u2000\u2003\u2009\u2028\u2029\u202f\u205f\u3000",
    "no width": "\u200b\u200c\u200d\u2060\ufeff\u00ad\u180e\u034f",
    "punctuation": string.punctuation + "…–—‘’“”«»¿¡·•、。「」！",  # noqa: RUF001
    "digits": string.digits + "٣४๓３½Ⅷ²" + ".,:-/",
    "rare": "\ue000\uf8ff\ufdd0\ufffe\uffff\ufffd\U000f0000\U0010ffff\U0001d400\ufb01\u017fßẞİ\u0131Σς",
    "words": "Mr. U.S. O'Brien's 3-2 AT&T @name #topic e.g. well-known ...",
}


def random_strings(count: int, seed: str) -> list[str]:
    """Strings of up to 60 characters, each of up to four alphabets or of all; without surrogates."""
    drawn = random.Random(seed)
    alphabets = [*ALPHABETS.values(), "".join(ALPHABETS.values())]
    strings = []
    for _ in range(count):
        alphabet = "".join(drawn.sample(alphabets, drawn.randint(1, 4)))
        characters = drawn.choices(alphabet, k=int(60 * drawn.random() ** 2))
        for place in range(drawn.randint(0, 2) if characters else 0):  # any character that is no surrogate
            number = drawn.randrange(0x110000 - 0x800)
            characters[place * 7 % len(characters)] = chr(number if number < 0xD800 else number + 0x800)
        strings.append(" " * drawn.randint(0, 1) + "".join(characters))
    return strings


def write_eager_model(folder: Path) -> Path:
    """Write the tagger; its vocabulary has the letters of all alphabets, so that words have pieces."""
    letters = sorted({one.lower() for one in "".join(ALPHABETS.values()) if one.isprintable() and not one.isspace()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    minitl.manual_seed(7)
    model = BertForTokenClassification(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
            max_position_embeddings=64,
            id2label=TAGS,
            initializer_range=1.0,
        )
    )
    model.classifier.bias.copy_(np.array([OUTSIDE, 0, 0, 0, 0], dtype=np.float32))
    model.tokenizer = TextTokenizer.from_folder(folder)
    model.save_pretrained(folder)
    return folder
