"""Memory that is shared with torch, both ways, through DLPack."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import minitl  # noqa: E402
from minitl import Tensor, optim  # noqa: E402
from minitl.tensor import DTYPES  # noqa: E402

pytestmark = pytest.mark.reference

NAMES = sorted(dtype.name for dtype in DTYPES)


@pytest.mark.parametrize("name", NAMES)
def test_torch_writes_what_minitl_reads_and_the_reverse(name: str) -> None:
    ours = Tensor(np.zeros((2, 3), name))
    for theirs in (torch.from_dlpack(ours), torch.utils.dlpack.from_dlpack(ours), torch.from_dlpack(ours.__dlpack__())):
        assert theirs.dtype == getattr(torch, name)
        assert theirs.data_ptr() == ours.array.ctypes.data
        ours.copy_(np.zeros((2, 3), name))
        theirs[1, 2] = 1
        assert ours.numpy().tolist() == [[0, 0, 0], [0, 0, 1]]
        ours.copy_(np.ones((2, 3), name))
        assert theirs.sum() == 6


@pytest.mark.parametrize("name", NAMES)
def test_minitl_writes_what_torch_reads_and_the_reverse(name: str) -> None:
    theirs = torch.zeros((3, 2), dtype=getattr(torch, name))
    for view in (theirs, theirs.T, theirs[::2], theirs[1:1], theirs[0, 0]):
        theirs.zero_()
        ours = minitl.from_dlpack(view)
        assert ours.array.ctypes.data == view.data_ptr() or not view.numel()
        assert (ours.shape, ours.dtype.name, ours.device) == (tuple(view.shape), name, "cpu")
        ours.copy_(np.ones(ours.shape, name))
        assert (view == 1).all()
        assert theirs.sum() == view.numel(), "nothing beside the view was written"
        view.zero_()
        assert not ours.numpy().any()


def test_both_refuse_what_requires_a_gradient_alike() -> None:
    ours, theirs = Tensor(np.zeros(2), requires_grad=True), torch.zeros(2, requires_grad=True)
    with pytest.raises(BufferError, match="detach"):
        torch.from_dlpack(ours)
    with pytest.raises(BufferError, match="detach"):
        minitl.from_dlpack(theirs)
    assert torch.from_dlpack(ours.detach()).data_ptr() == ours.array.ctypes.data
    assert minitl.from_dlpack(theirs.detach()).array.ctypes.data == theirs.data_ptr()


@pytest.mark.parametrize("name", ["float16", "bfloat16", "complex64", "uint16", "float8_e4m3fn"])
def test_dtypes_that_a_tensor_does_not_hold(name: str) -> None:
    source = torch.zeros(2, dtype=torch.float32).to(getattr(torch, name))
    with pytest.raises(BufferError, match=rf"this Tensor of (torch\.)?{name}\b.*a Tensor holds float32.* convert"):
        minitl.from_dlpack(source)


def test_torch_sees_a_step_of_our_optimizer() -> None:
    """Shared after the optimizer was built: it moves parameters into its flat buffer."""
    parameter = Tensor(np.ones(4, np.float32), requires_grad=True)
    optimizer = optim.SGD([parameter], lr=0.5)
    theirs = torch.from_dlpack(parameter.detach())
    (parameter * Tensor(np.arange(4, dtype=np.float32))).sum().backward()
    optimizer.step()
    assert theirs.tolist() == [1.0, 0.5, 0.0, -0.5]
    assert parameter.grad is not None
    torch.from_dlpack(parameter.grad).zero_()
    optimizer.step()
    assert theirs.tolist() == [1.0, 0.5, 0.0, -0.5]


def test_torch_computes_in_our_memory_and_keeps_it_alive() -> None:
    theirs = torch.from_dlpack(Tensor(np.arange(1000.0)))
    others = [np.zeros(1000) for _ in range(50)]
    assert torch.equal(theirs, torch.arange(1000, dtype=torch.float64))
    assert not np.any(others)
