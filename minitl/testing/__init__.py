"""The checks that minitl's own tests use, for your operations too."""

from minitl.testing.gradients import check_gradients

__all__ = ["check_gradients"]
