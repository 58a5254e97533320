"""Training: one step, progress, the best epoch, where results go."""

from minitl.training.best import BestState
from minitl.training.graph import GraphedResult, GraphedStep
from minitl.training.progress import TrainingProgress
from minitl.training.runs import claim_output_folder, new_run_folder, run_folder
from minitl.training.step import StepResult, train_step

__all__ = [
    "BestState",
    "GraphedResult",
    "GraphedStep",
    "StepResult",
    "TrainingProgress",
    "claim_output_folder",
    "new_run_folder",
    "run_folder",
    "train_step",
]
