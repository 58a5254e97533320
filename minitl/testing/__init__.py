"""The checks that minitl's own tests use, for your operations too. The guide is docs/testing.md.

``check_gradients`` needs NumPy only; ``assert_valid_function`` and the module ``strategies`` need Hypothesis.
"""

from minitl.testing.gradients import check_gradients
from minitl.testing.layouts import LAYOUTS
from minitl.testing.properties import assert_valid_function

__all__ = ["LAYOUTS", "assert_valid_function", "check_gradients"]
