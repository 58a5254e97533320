"""BERT's word-piece tokenizer: a thin layer over the ``tokenizers`` library that loads, checks and saves it.

The library does the work (normalise, split, longest match first; Devlin et al. 2019, Wu et al. 2016). This layer turns
off the truncation and padding that some ``tokenizer.json`` switch on, builds a tokenizer where only ``vocab.txt``
exists, and keeps the settings of ``tokenizer_config.json``. ``tokenizers`` is imported when a tokenizer is made.
"""

import json
import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minitl.errors import CheckpointError
from minitl.text.tokenizer_files import (
    NORMALIZER_SETTINGS,
    SPECIAL_TOKENS,
    from_tokenizer_json,
    from_vocabulary,
    is_there,
    read_settings,
    token_name,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# What normalisation leaves within its run of letters, whatever it becomes; ideographs are words of their own.
_LETTER = r"[^\W_\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff][\u0300-\u036f]*+"
_UNCERTAIN = 64  # characters before a cut that may be part of something longer: a special token, a letter with marks
_BATCH = 4096  # sentences at once: the library's results are large, so they are turned into arrays as we go


class TextTokenizer:
    """Words to the numbers of their pieces.

    Attributes:
        vocab_size: number of entries, one more than the largest id.
        cls_id, sep_id, pad_id, unk_id: ids of the special tokens.
        max_word_characters: a run of letters longer than this becomes one [UNK].
        settings: what ``tokenizer_config.json`` said, as far as it is kept.
        notes: lines for people on what was decided while loading.
    """

    def __init__(
        self, tokenizer: "Tokenizer", settings: dict[str, Any] | None = None, source: str = "tokenizer"
    ) -> None:
        """Wrap ``tokenizer``, which is changed: truncation and padding go off.

        Args:
            tokenizer: a WordPiece tokenizer of the ``tokenizers`` library.
            settings: the contents of ``tokenizer_config.json``.
            source: where it comes from, for messages.

        Raises:
            CheckpointError: if it is no WordPiece tokenizer or lacks a special token.
        """
        model = tokenizer.model
        if type(model).__name__ != "WordPiece":
            raise CheckpointError(
                f"{source}: expected a WordPiece tokenizer as BERT has, found {type(model).__name__}; "
                "models with another tokenizer are not supported"
            )
        self.settings = dict(settings or {})
        self.notes: list[str] = []
        self._names = {key: token_name(self.settings.get(key), name) for key, name in SPECIAL_TOKENS.items()}
        self._tokenizer = tokenizer
        if tokenizer.truncation is not None:
            self.notes.append(f"truncation to {tokenizer.truncation['max_length']} tokens switched off")
            tokenizer.no_truncation()
        if tokenizer.padding is not None:
            self.notes.append("padding switched off")
            tokenizer.no_padding()
        self._add_special_tokens(source)
        self.vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        self.max_word_characters: int = model.max_input_chars_per_word
        self.cls_id, self.sep_id = self._id("cls_token"), self._id("sep_token")
        self.pad_id, self.unk_id = self._id("pad_token"), self._id("unk_token")

    @classmethod
    def from_folder(cls, folder: str | PathLike[str]) -> "TextTokenizer":
        """Load the tokenizer of a model folder.

        ``tokenizer.json`` is taken if present, else ``vocab.txt``. Lower-casing, accents and CJK splitting follow
        ``tokenizer_config.json`` where it speaks, as they do in transformers, then ``tokenizer.json``, then the
        defaults of BERT (lower-case).

        Raises:
            CheckpointError: if neither file exists or a file cannot be understood.
        """
        folder = Path(folder)
        settings = read_settings(folder / "tokenizer_config.json")
        if is_there(folder / "tokenizer.json"):
            tokenizer, notes = from_tokenizer_json(folder / "tokenizer.json", settings)
        elif is_there(folder / "vocab.txt"):
            tokenizer, notes = from_vocabulary(folder / "vocab.txt", settings)
        else:
            raise CheckpointError(
                f"{folder}: expected tokenizer.json or vocab.txt, found neither; "
                "copy the tokenizer files of the pretrained model into this folder"
            )
        loaded = cls(tokenizer, settings, str(folder))
        loaded.notes[:0] = notes
        return loaded

    def save(self, folder: str | PathLike[str], *, model_max_length: int | None = None) -> None:
        """Write ``tokenizer.json``, ``vocab.txt``, ``tokenizer_config.json`` and ``special_tokens_map.json``.

        ``transformers.AutoTokenizer`` loads the folder and gives the same ids.

        Args:
            folder: written into, made if missing.
            model_max_length: limit of the model, in tokens; None keeps what the loaded files said.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        settings = {**self.settings, **self._names, "tokenizer_class": "BertTokenizer"}
        normalizer = json.loads(self._tokenizer.to_str())["normalizer"] or {}
        for key, (argument, default) in NORMALIZER_SETTINGS.items():
            settings[key] = normalizer.get(argument, settings.get(key, default))
        if model_max_length is not None:
            settings["model_max_length"] = model_max_length
        self._tokenizer.save(str(folder / "tokenizer.json"))
        names = {number: token for token, number in self._tokenizer.get_vocab(with_added_tokens=True).items()}
        # A number without an entry (a vocabulary with a line twice) needs a line all the same, or all others move.
        lines = [names.get(number, f"[missing{number}]") + "\n" for number in range(self.vocab_size)]
        (folder / "vocab.txt").write_text("".join(lines), encoding="utf-8", newline="\n")
        _write_json(folder / "tokenizer_config.json", settings)
        _write_json(folder / "special_tokens_map.json", self._names)

    def encode_sentences(self, sentences: Sequence[Sequence[str]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Pieces of many sentences at once, without special tokens.

        Args:
            sentences: the words of each one.

        Returns:
            For each sentence the ids of its pieces (P,) and the number of the word each piece belongs to (P,), int64.
            A word that vanishes in normalisation (a zero-width space) has no piece.

        Raises:
            ValueError: if a word holds half of a surrogate pair, which is no character.
        """
        pieces = []
        for begin in range(0, len(sentences), _BATCH):
            inputs = [list(words) for words in sentences[begin : begin + _BATCH]]
            try:
                encodings = self._tokenizer.encode_batch(inputs, is_pretokenized=True, add_special_tokens=False)
            except (TypeError, UnicodeEncodeError):
                _raise_for_bad_word(inputs)
                raise
            for encoding in encodings:
                pieces.append((np.array(encoding.ids, dtype=np.int64), np.array(encoding.word_ids, dtype=np.int64)))
        return pieces

    def encode_words(self, words: Sequence[str]) -> list[list[int]]:
        """The ids of the pieces of each word of one sentence, without special tokens; none for a word that vanishes."""
        ids, piece_words = self.encode_sentences([words])[0]
        pieces: list[list[int]] = [[] for _ in words]
        for number, word in zip(ids.tolist(), piece_words.tolist(), strict=True):
            pieces[word].append(number)
        return pieces

    def beginning(self, word: str, pieces: int) -> str:
        """Return a word with the same first pieces that is no longer than it must be; short words are returned as is.

        The library takes some hundred bytes for each character of a word, and a word may have megabytes.

        Args:
            word: any word.
            pieces: how many pieces must be the same.
        """
        length = 8 * pieces + 4 * _UNCERTAIN
        if 4 * length < len(word):  # letters that are one [UNK] because there are so many are so with fewer, too
            most = self.max_word_characters + _UNCERTAIN
            word = re.sub(f"((?:{_LETTER}){{{most}}})(?:{_LETTER})++", r"\1", word)
        while 4 * length < len(word):
            encoding = self._tokenizer.encode([word[:length]], is_pretokenized=True, add_special_tokens=False)
            prefix = self._tokenizer.model.continuing_subword_prefix
            last_run = max((i for i, token in enumerate(encoding.tokens) if not token.startswith(prefix)), default=0)
            # What a cut can change: the run of letters it lies in, and what needs the characters behind it.
            if sum(end <= length - _UNCERTAIN for _, end in encoding.offsets[:last_run]) >= pieces:
                return word[:length]
            length *= 4
        return word

    def _id(self, key: str) -> int:
        number = self._tokenizer.token_to_id(self._names[key])
        assert number is not None  # checked in _add_special_tokens
        return int(number)

    def _add_special_tokens(self, source: str) -> None:
        """Make the special tokens whole: ``[SEP]`` as a word of the text is then one token, as in transformers."""
        from tokenizers import AddedToken

        missing = [
            name
            for key, name in self._names.items()
            if key != "mask_token" and self._tokenizer.token_to_id(name) is None
        ]
        if missing:
            raise CheckpointError(
                f"{source}: expected the special tokens {', '.join(SPECIAL_TOKENS.values())} in the vocabulary, "
                f"missing {', '.join(missing)}; name the right ones in tokenizer_config.json"
            )
        present = [name for name in self._names.values() if self._tokenizer.token_to_id(name) is not None]
        known = {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}
        self._tokenizer.add_special_tokens(
            [AddedToken(name, special=True, normalized=False) for name in present if name not in known]
        )


def _write_json(path: Path, state: dict[str, Any]) -> None:
    path.write_text(json.dumps(state, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


def _raise_for_bad_word(sentences: Sequence[Sequence[object]]) -> None:
    """Name the word the library refused."""
    for words in sentences:
        for word in words:
            if not isinstance(word, str):
                raise TypeError(f"a word must be a string, found {word!r}")
            if any("\ud800" <= character <= "\udfff" for character in word):
                raise ValueError(
                    f"{word!r} holds half of a surrogate pair, which is no character; clean the text first"
                )
