"""Who is compared: which worker runs a program, and what it is told."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Peer:
    """One line of a table.

    Attributes:
        name: for people.
        script: the worker.
        prepare: arguments of its ``prepare_...`` method. Peers that agree in script and ``prepare`` share a process.
        order: in which order it reads sentences.
        options: arguments of every step.
    """

    name: str
    script: str
    prepare: dict[str, Any]
    order: str = "grouped"
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def process(self) -> str:
        """What tells its process from others."""
        return f"{self.script} {sorted(self.prepare.items())}"


MINITL = Peer("minitl float32", "worker_minitl.py", {"precision": "float32"})
MINITL_BF16 = Peer("minitl bfloat16", "worker_minitl.py", {"precision": "bfloat16"})
TORCH_AS_SHIPPED = Peer("torch as shipped", "worker_torch.py", {"compiled": False}, order="random")
TORCH = Peer("torch grouped", "worker_torch.py", {"compiled": False})
TORCH_BF16 = Peer("torch grouped bfloat16", "worker_torch.py", {"compiled": False}, options={"autocast": True})
TORCH_COMPILE = Peer("torch.compile grouped", "worker_torch.py", {"compiled": True})
ONNX = Peer("ONNX Runtime grouped", "worker_onnx.py", {})

OURS = (MINITL, MINITL_BF16)
TRAINING = (*OURS, TORCH_AS_SHIPPED, TORCH, TORCH_BF16, TORCH_COMPILE)
INFERENCE = (*OURS, TORCH, TORCH_BF16, TORCH_COMPILE, ONNX)
EQUAL_LENGTHS = (*OURS, TORCH, TORCH_BF16, TORCH_COMPILE)  # without padding there is nothing to group
