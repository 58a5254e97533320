"""BERT, its configuration, and loading and saving weights; names are imported when they are first used."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minitl.models.bert import BertModel
    from minitl.models.config import BertConfig
    from minitl.models.default_model import DEFAULT_MODEL
    from minitl.models.loss_options import LossOptions
    from minitl.models.onnx_export import export_onnx
    from minitl.models.pretrained import require_tokenizer
    from minitl.models.tagging import Span
    from minitl.models.token_classifier import BertForTokenClassification
    from minitl.text.batch import PackedBatch

_HOMES = {
    "BertConfig": "minitl.models.config",
    "BertModel": "minitl.models.bert",
    "BertForTokenClassification": "minitl.models.token_classifier",
    "DEFAULT_MODEL": "minitl.models.default_model",
    "LossOptions": "minitl.models.loss_options",
    "PackedBatch": "minitl.text.batch",
    "Span": "minitl.models.tagging",
    "export_onnx": "minitl.models.onnx_export",
    "require_tokenizer": "minitl.models.pretrained",
}

__all__ = [
    "DEFAULT_MODEL",
    "BertConfig",
    "BertForTokenClassification",
    "BertModel",
    "LossOptions",
    "PackedBatch",
    "Span",
    "export_onnx",
    "require_tokenizer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
