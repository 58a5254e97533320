"""The default model and how a copy of it is recognised: by the SHA-256 sums of its files, whatever the source."""

import hashlib
from pathlib import Path

from minitl.errors import CheckpointError
from minitl.models.config import BertConfig

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"  # 6 layers, 384 wide, BERT architecture, Apache-2.0, 91 MB
DEFAULT_REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"  # the commit on the Hub whose files have the sums below

SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
# The values of config.json that matter; on the Hub the file may be edited without changing them.
CONFIG = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)


def problems(folder: Path, *, edited_config: bool = False) -> list[str]:
    """What is wrong with a copy of the default model.

    Args:
        folder: where the files lie.
        edited_config: accept another ``config.json`` with the same values that matter, as the Hub may hold.

    Returns:
        One line per file that is missing or not the file it should be; empty for a good copy.
    """
    found = []
    for name, expected in SHA256.items():
        path = folder / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif (actual := sha256_of(path)) != expected and not (
            name == "config.json" and edited_config and _same_values(path)
        ):
            found.append(f"{name} has the SHA-256 sum {actual[:12]}..., expected {expected[:12]}...: refused")
    return found


def sha256_of(path: Path) -> str:
    """The SHA-256 sum of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _same_values(path: Path) -> bool:
    try:
        config = BertConfig.from_json_file(path)
    except CheckpointError:
        return False
    config.extra = {}
    return config == CONFIG
