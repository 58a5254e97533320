"""Training: one step, a whole training with checkpoints, progress, the best state, where results go."""

from minitl.training.best import BestState
from minitl.training.checkpoint import Checkpoint, CheckpointFolder, read_checkpoint
from minitl.training.early_stopping import EarlyStopping
from minitl.training.graph import GraphedResult, GraphedStep
from minitl.training.interruption import Interruption
from minitl.training.progress import TrainingProgress
from minitl.training.runs import claim_output_folder, new_run_folder, run_folder
from minitl.training.settings import TrainingSettings
from minitl.training.step import DivergedError, StepResult, train_step
from minitl.training.trainer import Trainer, TrainingResult

__all__ = [
    "BestState",
    "Checkpoint",
    "CheckpointFolder",
    "DivergedError",
    "EarlyStopping",
    "GraphedResult",
    "GraphedStep",
    "Interruption",
    "StepResult",
    "Trainer",
    "TrainingProgress",
    "TrainingResult",
    "TrainingSettings",
    "claim_output_folder",
    "new_run_folder",
    "read_checkpoint",
    "run_folder",
    "train_step",
]
