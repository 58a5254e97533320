"""``minitl export``: a model folder as one ONNX file."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from minitl.cli.printing import say, show
from minitl.errors import CheckpointError

if TYPE_CHECKING:
    from minitl.models import BertForTokenClassification, BertModel

# Of the largest output. Random models and trained taggers are at 1e-7 to 1e-6, the rounding of float32 through a few
# dozen sums; deeper ones with larger activations get a hundred times the room.
ALLOWED = 1e-4


@click.command()
@click.argument("model_folder")
@click.argument("output", metavar="OUTPUT.onnx", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--encoder", is_flag=True, help="Export the encoder alone: hidden states in place of logits.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
def export(model_folder: str, output: Path, encoder: bool, overwrite: bool) -> None:
    """Write the token classifier in MODEL_FOLDER, or of that name on the Hugging Face Hub, as an ONNX file.

    \b
    Examples:
      minitl export runs/ner-1 tagger.onnx
      minitl export sentence-transformers/all-MiniLM-L6-v2 encoder.onnx --encoder

    The file takes input_ids, attention_mask and token_type_ids, padded batches of any size, and gives logits. Where
    onnxruntime is installed, it is run on some sentences first and its results are compared with minitl's; a file that
    gives others is not written. The path of the file is printed to standard output, all else to standard error. The
    tokenizer stays in the model folder.
    """
    if output.suffix != ".onnx":
        raise click.UsageError(f"OUTPUT must end in .onnx, found {output.name!r}")
    if output.exists() and not overwrite:
        raise CheckpointError(f"{output}: exists; choose another name, or replace it with --overwrite")
    if not output.parent.is_dir():
        raise CheckpointError(f"{output.parent}: is no folder; make it first")
    from minitl import atomic_file
    from minitl.models.onnx_export import onnx_bytes
    from minitl.models.onnx_graph import onnx_module

    onnx_module()  # first, since a model may take long to fetch
    model = _loaded(model_folder, encoder)
    say(str(model.load_report))
    data = onnx_bytes(model)
    say(_checked(model, data))
    atomic_file.write_bytes(output, data)
    say(f"wrote {len(data):,} bytes")
    show(os.fspath(output))


def _loaded(folder: str, encoder: bool) -> BertForTokenClassification | BertModel:
    """Load what is in the folder; a new classifier, which is random, is nothing to export."""
    from minitl.models import BertForTokenClassification, BertModel

    if encoder:
        return BertModel.from_pretrained(folder)
    model = BertForTokenClassification.from_pretrained(folder)
    if model.load_report is not None and model.load_report.new:
        raise CheckpointError(
            f"{folder}: holds no trained classifier, only an encoder; train it first, or export that with --encoder"
        )
    return model


def _checked(model: BertForTokenClassification | BertModel, data: bytes) -> str:
    """Run the file's bytes with ONNX Runtime and compare with minitl; return a line that says how it went."""
    try:
        import onnxruntime
    except ImportError:
        return "not checked: ONNX Runtime is not installed (pip install onnxruntime)"
    inputs = _sentences(model.config.vocab_size, model.config.max_position_embeddings, model.config.type_vocab_size)
    largest, difference = 0.0, 0.0
    for ours, theirs in zip(_our_results(model, inputs), _their_results(onnxruntime, data, inputs), strict=True):
        largest = max(largest, float(np.abs(ours).max()))
        difference = float(np.maximum(difference, np.abs(ours - theirs).max()))  # Python's max() would pass over NaN
    told = f"the largest difference is {difference:.1e}, the largest output {largest:.1e}"
    if not difference <= ALLOWED * largest:
        raise CheckpointError(
            f"ONNX Runtime {onnxruntime.__version__} gives other results: {told}; nothing was written"
        )
    count = len(inputs["input_ids"])
    return f"checked on {count} random sentences with ONNX Runtime {onnxruntime.__version__}: {told}"


def _sentences(vocabulary: int, positions: int, segments: int) -> dict[str, np.ndarray]:
    """Four sentences (B, S) of random tokens: whole, padded right, padded left, and with holes."""
    random = np.random.default_rng(0)
    length = min(positions, 32)
    mask = np.ones((4, length), np.int64)
    mask[1, (length + 1) // 2 :] = 0
    mask[2, : length // 2] = 0
    mask[3, 1::2] = 0
    return {
        "input_ids": random.integers(0, vocabulary, mask.shape),
        "attention_mask": mask,
        "token_type_ids": random.integers(0, segments, mask.shape),
    }


def _our_results(model: Any, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    from minitl.autograd import no_grad

    with no_grad():
        out = model.eval()(**inputs)
    names = ("logits",) if hasattr(out, "logits") else ("last_hidden_state", "pooler_output")
    return [getattr(out, name).numpy() for name in names if getattr(out, name) is not None]


def _their_results(onnxruntime: ModuleType, data: bytes, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: warnings are about machines and graphs, and nothing for a user
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    results: list[np.ndarray] = session.run(None, inputs)
    return results
