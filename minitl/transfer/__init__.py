"""Methods of transfer learning: what is trained, and how. So far: freezing."""

from minitl.transfer.freezing import FreezeReport, freeze

__all__ = ["FreezeReport", "freeze"]
