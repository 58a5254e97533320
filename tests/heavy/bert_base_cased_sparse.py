"""Load a file with the exact tensor names and shapes of bert-base-cased as published; not run by pytest, see .ci/run.

The published file holds 436 MB. Only its header matters here, so the file is made sparse: the header is written, the
data is a hole that reads as zeros, and a few marked numbers are put where they can be found again. What is checked: the
load report, that marked numbers arrive in the right parameters, and that memory stays below 2 GB (the model itself
takes 0.43 GB; a second copy of it would show).

Run: python tests/heavy/bert_base_cased_sparse.py
"""

import json
import struct
import sys
import tempfile
import time
from pathlib import Path

from minitl.models import BertConfig, BertForTokenClassification
from minitl.models.names import Dialect, expected_shapes, to_checkpoint

MEMORY_LIMIT = 2_000_000_000  # bytes
PUBLISHED_SIZE = 435_755_784  # bytes of the published model.safetensors: one name or shape too many would show
CONFIG = {
    "architectures": ["BertForMaskedLM"],
    "attention_probs_dropout_prob": 0.1,
    "gradient_checkpointing": False,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "transformers_version": "4.6.0.dev0",
    "type_vocab_size": 2,
    "use_cache": True,
    "vocab_size": 28996,
}
HEADS = {
    "cls.predictions.bias": (28996,),
    "cls.predictions.transform.LayerNorm.beta": (768,),
    "cls.predictions.transform.LayerNorm.gamma": (768,),
    "cls.predictions.transform.dense.bias": (768,),
    "cls.predictions.transform.dense.weight": (768, 768),
    "cls.seq_relationship.bias": (2,),
    "cls.seq_relationship.weight": (2, 768),
}
REPORT = """\
loaded 197 tensors (50 renamed gamma/beta)
not used: pooler (2 tensors: bert.pooler.dense.bias, bert.pooler.dense.weight); this model has none
not used: masked-language-model head (5 tensors: cls.predictions.bias, cls.predictions.transform.LayerNorm.beta, \
cls.predictions.transform.LayerNorm.gamma, ...); only pre-training needs it
not used: next-sentence head (2 tensors: cls.seq_relationship.bias, cls.seq_relationship.weight); only pre-training \
needs it
NEW, random: classifier (2 tensors): train before use
note: the folder has no tokenizer (tokenizer.json or vocab.txt): text cannot be read with it"""


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Names as published: the prefix bert., gamma and beta, both pre-training heads, the decoder tied and so absent."""
    encoder = expected_shapes(BertConfig.from_dict(CONFIG), "bert.", pooler=True, classifier=False)
    dialect = Dialect(prefix=True, gamma_beta=True)
    return dict(sorted({**{to_checkpoint(name, dialect): shape for name, shape in encoder.items()}, **HEADS}.items()))


def write_sparse(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, float]:
    """Write the header and a hole; the last number of every tensor is marked. Returns name -> its mark."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    ends, position = {}, 0
    for name, shape in shapes.items():
        size = 4
        for side in shape:
            size *= side
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
        ends[name] = position
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    marks = {name: float(number + 1) for number, name in enumerate(shapes)}
    with path.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        stream.truncate(8 + len(header) + position)
        for name, end in ends.items():
            stream.seek(8 + len(header) + end - 4)
            stream.write(struct.pack("<f", marks[name]))
    return marks


def peak_memory() -> int:
    """The most memory this process has held, in bytes; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> int:
    """Build, load, compare; returns the exit code."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shapes = published_shapes()
        marks = write_sparse(folder / "model.safetensors", shapes)
        (folder / "config.json").write_text(json.dumps(CONFIG))
        started = time.monotonic()
        model = BertForTokenClassification.from_pretrained(folder, num_labels=9)
        seconds = time.monotonic() - started
        report = model.load_report
        size = (folder / "model.safetensors").stat().st_size
    assert report is not None
    print(report)
    print(f"{len(shapes)} tensors, {size:,} bytes, loaded in {seconds:.1f} s, peak memory {peak_memory() / 1e9:.2f} GB")
    problems = []
    if size != PUBLISHED_SIZE:
        problems.append(f"the file has {size:,} bytes, the published one {PUBLISHED_SIZE:,}")
    if "\n".join(report.lines()[1:]) != REPORT:
        problems.append("the report is not the expected one")
    if sorted(report.file_names()) != sorted(shapes):
        problems.append("the report does not account for every tensor")
    state = model.state_dict()
    wrong = [name for name, theirs in report.loaded.items() if state[name].ravel()[-1] != marks[theirs]]
    if wrong:
        problems.append(f"numbers arrived in the wrong place: {wrong[:5]}")
    if peak_memory() > MEMORY_LIMIT:
        problems.append(f"more than {MEMORY_LIMIT / 1e9:.0f} GB of memory")
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
