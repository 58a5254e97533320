"""The one dispatch, and its one override."""

import threading

import pytest

import minitl
from minitl.kernels.select import IMPLEMENTATIONS, select


def test_the_choice_on_each_device() -> None:
    for device, implementation in IMPLEMENTATIONS.items():
        assert select("gelu", device).__name__ == f"minitl.kernels.gelu.{implementation}"
        assert select("gelu", f"{device}:1") is select("gelu", device)


def test_reference_overrides_and_ends_with_the_block() -> None:
    before = select("softmax", "cpu")
    with minitl.use_kernels("reference"):
        assert select("softmax", "cpu").__name__ == "minitl.kernels.softmax.reference"
        assert select("softmax", "strict").__name__ == "minitl.kernels.softmax.reference"
        with minitl.use_kernels("auto"), pytest.raises(NotImplementedError):
            select("softmax", "strict")
        assert select("softmax", "strict")
    assert select("softmax", "cpu") is before
    with pytest.raises(RuntimeError, match="on purpose"), minitl.use_kernels("reference"):
        raise RuntimeError("on purpose")
    with pytest.raises(NotImplementedError, match="no kernels for device 'strict'"):
        select("softmax", "strict")


def test_other_threads_keep_their_own_choice() -> None:
    seen = []
    with minitl.use_kernels("reference"):

        def look() -> None:
            try:
                select("softmax", "strict")
            except NotImplementedError as error:
                seen.append(str(error))

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert len(seen) == 1


def test_wrong_words() -> None:
    with pytest.raises(ValueError, match="'auto' or 'reference', not 'fast'"), minitl.use_kernels("fast"):
        pass
    with pytest.raises(ModuleNotFoundError, match="no_such_kernel"):
        select("no_such_kernel", "cpu")
