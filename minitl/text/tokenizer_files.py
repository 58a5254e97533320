"""The files of a tokenizer, read as what a stranger may have written.

``tokenizer.json`` describes a whole pipeline to the ``tokenizers`` library, patterns of regular expressions included,
which can take for ever on a line of text. So only the parts that BERT's tokenizers are made of reach the library, and
numbers that would make tables of gigabytes are refused before.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minitl import strict_json
from minitl.errors import CheckpointError
from minitl.plain_file import read_plain
from minitl.text.conll import escaped, shown

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LARGEST_FILE = 50_000_000  # bytes; the tokenizer.json of multilingual BERT has 2 million
LARGEST_SETTINGS = 5_000_000  # bytes of tokenizer_config.json, which may list added tokens
LARGEST_ID = 10_000_000
LONGEST_WORD = 10_000  # characters of a word that is not [UNK]: the search for pieces is quadratic in it

# The names BERT gives its special tokens; `tokenizer_config.json` may name others.
SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
# Setting in tokenizer_config.json -> (argument of BertNormalizer, default where no file says anything).
NORMALIZER_SETTINGS = {
    "do_lower_case": ("lowercase", True),
    "strip_accents": ("strip_accents", None),
    "tokenize_chinese_chars": ("handle_chinese_chars", True),
}
# Part of tokenizer.json -> its kinds that reach the library. None of these has a pattern or a table of its own.
_KINDS = {
    "normalizer": ("BertNormalizer", "Sequence", "Lowercase", "StripAccents", "Strip", "NFC", "NFD", "NFKC", "NFKD"),
    "pre_tokenizer": ("BertPreTokenizer", "Sequence", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits"),
    "post_processor": ("TemplateProcessing", "BertProcessing"),
    "decoder": ("WordPiece",),
}
_INNER = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers"}  # what a Sequence calls its members


def is_there(path: Path) -> bool:
    """Whether a folder has such a name, whatever it is: a link to nothing is an error, not a file that is missing."""
    return path.exists() or path.is_symlink()


def token_name(value: Any, default: str) -> str:
    """The text of a special token, which a configuration writes as a string or as ``{"content": ...}``."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else default


def read_settings(path: Path) -> dict[str, Any]:
    """Read ``tokenizer_config.json``; empty if there is none.

    Raises:
        CheckpointError: it is no strict JSON, or a setting that is used is of another type than it must be.
    """
    if not is_there(path):
        return {}
    settings = strict_json.read_object(path, largest=LARGEST_SETTINGS)
    for key in NORMALIZER_SETTINGS:
        if not isinstance(settings.get(key), (bool, type(None))):
            raise CheckpointError(f"{path}: {key} must be true, false or null, found {shown(settings[key])}")
    for key in SPECIAL_TOKENS:
        value = settings.get(key)
        if value is not None and not token_name(value, ""):
            raise CheckpointError(f"{path}: {key} must be a token, found {shown(value)}")
    return settings


def from_tokenizer_json(path: Path, settings: dict[str, Any]) -> "tuple[Tokenizer, list[str]]":
    """Load ``tokenizer.json``; where ``tokenizer_config.json`` contradicts its normaliser, the latter wins.

    Raises:
        CheckpointError: it is no strict JSON, describes another tokenizer than BERT's, or the library refuses it.
    """
    from tokenizers import Tokenizer

    state = strict_json.read_object(path, largest=LARGEST_FILE)
    _check(state, path)
    notes = []
    normalizer = state.get("normalizer")
    if isinstance(normalizer, dict) and normalizer.get("type") == "BertNormalizer":
        for key, (argument, _) in NORMALIZER_SETTINGS.items():
            if key in settings and normalizer.get(argument) != settings[key]:
                notes.append(f"{key}={settings[key]} of tokenizer_config.json overrides {normalizer.get(argument)}")
                normalizer[argument] = settings[key]
    try:
        return Tokenizer.from_str(json.dumps(state)), notes
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"{path}: the tokenizers library cannot read it: {escaped(str(error), 200)}") from error


def from_vocabulary(path: Path, settings: dict[str, Any]) -> "tuple[Tokenizer, list[str]]":
    """Build BERT's tokenizer from ``vocab.txt``, as transformers does.

    Raises:
        CheckpointError: it is too large, or no UTF-8.
    """
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordPiece

    try:
        lines = read_plain(path, largest=LARGEST_FILE).decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: expected UTF-8 with one token a line, found: {error}") from error
    # Only line ends come off: the no-break space or a line separator can be a token.
    vocabulary = {line.removesuffix("\r"): number for number, line in enumerate(lines)}
    names = {key: token_name(settings.get(key), name) for key, name in SPECIAL_TOKENS.items()}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token=names["unk_token"], max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    start, end = names["cls_token"], names["sep_token"]
    if start in vocabulary and end in vocabulary:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{start}:0 $A:0 {end}:0",
            pair=f"{start}:0 $A:0 {end}:0 $B:1 {end}:1",
            special_tokens=[(start, vocabulary[start]), (end, vocabulary[end])],
        )
    repeated = len(lines) - len(vocabulary)
    return tokenizer, [f"{repeated} lines of vocab.txt repeat others; the last one counts"] if repeated else []


def _check(state: dict[str, Any], path: Path) -> None:
    """Raise a CheckpointError unless this is a tokenizer as BERT's, of a size that a vocabulary can have."""
    model = state.get("model")
    kind = model.get("type", "WordPiece") if isinstance(model, dict) else None
    if not isinstance(model, dict) or kind != "WordPiece":
        raise CheckpointError(
            f"{path}: expected a WordPiece tokenizer as BERT has, found {shown(kind)}; "
            "models with another tokenizer are not supported"
        )
    for part, kinds in _KINDS.items():
        _check_part(state.get(part), part, kinds, path)
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise CheckpointError(f"{path}: model.vocab must map tokens to numbers, found {shown(vocabulary)}")
    _check_ids(vocabulary, "model.vocab", path)
    longest = model.get("max_input_chars_per_word", 100)
    if type(longest) is not int or not 1 <= longest <= LONGEST_WORD:
        raise CheckpointError(
            f"{path}: model.max_input_chars_per_word must be 1 to {LONGEST_WORD:,}, found {shown(longest)}"
        )
    added = state.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(one, dict) for one in added):
        raise CheckpointError(f"{path}: added_tokens must be a list of objects, found {shown(added)}")
    for one in added:
        if not token_name(one, ""):
            raise CheckpointError(f"{path}: an added token must have a content, found {shown(one)}")
    _check_ids({one["content"]: one.get("id") for one in added}, "added_tokens", path)


def _check_part(part: Any, name: str, kinds: tuple[str, ...], path: Path, depth: int = 0) -> None:
    if part is None:
        return
    kind = part.get("type") if isinstance(part, dict) else part
    if not isinstance(part, dict) or kind not in kinds or depth > 3:
        raise CheckpointError(
            f"{path}: {name} is {shown(kind)}, which BERT's tokenizers have not; known are {', '.join(kinds)}"
        )
    if kind == "Sequence":
        members = part.get(_INNER[name])
        if not isinstance(members, list) or len(members) > 20:
            raise CheckpointError(f"{path}: the Sequence of {name} must list its members, found {shown(members)}")
        for member in members:
            _check_part(member, name, kinds, path, depth + 1)


def _check_ids(ids: dict[str, Any], name: str, path: Path) -> None:
    for token, number in ids.items():
        if type(number) is not int or not 0 <= number <= LARGEST_ID:
            raise CheckpointError(
                f"{path}: {name} gives {escaped(token)} the number {shown(number)}, it must be 0 to {LARGEST_ID:,}"
            )
    if len(set(ids.values())) < len(ids):
        raise CheckpointError(f"{path}: {name} gives one number to several tokens")
