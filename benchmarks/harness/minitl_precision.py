"""minitl's precision policy, for workers: entered once, and refused in words where it is not to be had."""

from contextlib import ExitStack

from harness.serve import Unavailable


def enter_precision(stack: ExitStack, precision: str) -> None:
    """Enter ``minitl.precision(precision)`` for as long as the stack is open; float32 is what minitl does anyway.

    Raises:
        Unavailable: this minitl has no such policy, refuses it on this processor, or would imitate it.
    """
    if precision == "float32":
        return
    import minitl
    from minitl.kernels import select

    if select("matmul", "cpu").__name__.endswith(".reference"):
        raise Unavailable(f"not measured: minitl's reference kernels only imitate {precision}")
    policy = getattr(minitl, "precision", None)
    if policy is None:
        raise Unavailable(f"not measured: this minitl has no {precision} policy")
    try:
        stack.enter_context(policy(precision))
    except Exception as error:
        raise Unavailable(f"not measured: {error}") from None
