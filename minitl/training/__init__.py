"""Training: one step, a whole training with checkpoints, progress, the best state, where results go."""

from minitl.training.best import BestState
from minitl.training.checkpoint import Checkpoint, CheckpointFolder, read_checkpoint
from minitl.training.early_stopping import EarlyStopping
from minitl.training.fine_tuning import FineTuning, reproduce_settings
from minitl.training.graph import GraphedResult, GraphedStep
from minitl.training.interruption import Interruption
from minitl.training.lr_range import LearningRateRange, lr_range_test
from minitl.training.progress import TrainingProgress
from minitl.training.run_settings import RunSettings
from minitl.training.runs import claim_output_folder, new_run_folder, run_folder
from minitl.training.settings import TrainingSettings
from minitl.training.statistics import Summary, summarize
from minitl.training.step import DivergedError, StepResult, train_step
from minitl.training.trainer import Trainer, TrainingResult

__all__ = [
    "BestState",
    "Checkpoint",
    "CheckpointFolder",
    "DivergedError",
    "EarlyStopping",
    "FineTuning",
    "GraphedResult",
    "GraphedStep",
    "Interruption",
    "LearningRateRange",
    "RunSettings",
    "StepResult",
    "Summary",
    "Trainer",
    "TrainingProgress",
    "TrainingResult",
    "TrainingSettings",
    "claim_output_folder",
    "lr_range_test",
    "new_run_folder",
    "read_checkpoint",
    "reproduce_settings",
    "run_folder",
    "summarize",
    "train_step",
]
