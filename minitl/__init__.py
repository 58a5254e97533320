"""minitl: a small transfer-learning framework to read and to use.

Start reading at ``examples/ner_finetune.py`` and follow one sentence down: models, nn, ops, tensor and autograd,
kernels. Importing this package loads the engine only; import ``minitl.models``, ``minitl.text`` and the other packages
by name.
"""

from minitl import nn, ops, optim, testing
from minitl._version import __version__
from minitl.autograd import Function, no_grad
from minitl.interop import from_dlpack
from minitl.kernels.select import use_kernels
from minitl.precision import precision
from minitl.random import manual_seed
from minitl.tensor import Tensor

__all__ = [
    "Function", "Tensor", "__version__", "from_dlpack", "manual_seed", "nn", "no_grad", "ops", "optim", "precision",
    "testing", "use_kernels",
]  # fmt: skip
