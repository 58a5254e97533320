"""The training loop: steps, evaluations, checkpoints, the best state, an end for one of four reasons.

::

    step -> log -> signal? -> evaluation due? -> checkpoint due? -> step ...

Everything that decides what comes next is in a checkpoint: how many steps are done (which gives epoch and place in the
data), parameters, optimizer, the generator's two numbers, best state, patience, lengths of the logs. So a run that was
stopped after any step goes on with the same bits as one that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minitl import optim
from minitl.errors import InterruptedRunError, MinitlError
from minitl.models.loss_options import CROSS_ENTROPY, LossOptions
from minitl.models.token_classifier import BertForTokenClassification
from minitl.text.batching import Batch, batch_count, batches
from minitl.text.conll import Sentence
from minitl.text.encoding import EncodedDataset
from minitl.training.best import BestState
from minitl.training.checkpoint import CheckpointFolder
from minitl.training.early_stopping import EarlyStopping
from minitl.training.folder_lock import folder_lock
from minitl.training.graph import GraphedStep
from minitl.training.interruption import Interruption
from minitl.training.journal import Journal
from minitl.training.progress import TrainingProgress
from minitl.training.room import IN_FLIGHT
from minitl.training.settings import TrainingSettings
from minitl.training.snapshot import check_free_space, restore_snapshot, take_snapshot
from minitl.training.step import DivergedError, train_step
from minitl.training.step_records import Result, StepRecords, TakenStep
from minitl.training.training_state import TrainingState

Evaluate = Callable[[Callable[[], None]], Mapping[str, float]]
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended.

    Attributes:
        steps: optimizer steps, those that were skipped included.
        ended: why, in a few words.
        best_score, best_step: of the best evaluation, whose parameters the model has; None without one.
        skipped_steps: steps of which no label is scored.
        bad_steps: steps whose loss or gradient was not finite; they changed nothing.
    """

    steps: int
    ended: str
    best_score: float | None
    best_step: int | None
    skipped_steps: int
    bad_steps: int


class Trainer:
    """Trains a token classifier, evaluates it now and then, and ends with its best state.

    Args:
        model: its parameters that require a gradient are trained; freeze before.
        train: the training sentences.
        settings: how.
        evaluate: returns scores of the model by name. It is called with a function that it should call now and then,
            which raises when a signal asks to end. None for no evaluation: the last state is the best.
        metric: the score that is to become large.
        loss_options: weights of classes, smoothing, focal loss.
        folder: an existing folder for checkpoints and logs; without one, nothing is written, and signals do what they
            always do.
        sentences: those of ``train``, for messages that name them.
        identity: what must be equal for a checkpoint to be of this run (data, model), beside the settings.
        say: called with lines for people; None to say nothing and show no progress.
        hold_lock: whether :meth:`run` keeps other runs out of the folder; False if the caller does.

    Attributes:
        state: where it stands.
        total: steps there will be, unless training ends early.
        steps_per_epoch: steps of one epoch.
    """

    def __init__(
        self,
        model: BertForTokenClassification,
        train: EncodedDataset,
        settings: TrainingSettings | None = None,
        *,
        evaluate: Evaluate | None = None,
        metric: str = "f1",
        loss_options: LossOptions = CROSS_ENTROPY,
        folder: Path | None = None,
        sentences: Sequence[Sentence] = (),
        identity: Mapping[str, Any] | None = None,
        say: Callable[[str], None] | None = None,
        hold_lock: bool = True,
    ) -> None:
        self.model, self.train_data = model, train
        self.settings = settings = settings or TrainingSettings()
        self.evaluate, self.metric, self.loss_options = evaluate, metric, loss_options
        self.folder, self.sentences, self.say, self.hold_lock = folder, sentences, say, hold_lock
        self.identity = {"settings": settings.as_dict(), **(identity or {})}
        self.steps_per_epoch = -(-batch_count(train, settings.batch_size) // settings.accumulation)
        self.total = settings.epochs * self.steps_per_epoch
        if settings.max_steps is not None:
            self.total = min(self.total, settings.max_steps)
        self.optimizer = optim.AdamW(optim.decay_groups(model, settings.weight_decay), lr=settings.lr)
        warmup = int(settings.warmup * self.total)
        self.schedule = optim.Schedule(self.optimizer, self.total, warmup=warmup, shape=settings.schedule)
        self.state = TrainingState(stopping=EarlyStopping(settings.patience, settings.min_delta))
        self.best = BestState(model)
        self._checkpoints: CheckpointFolder | None = None
        if folder is not None:
            self._checkpoints = CheckpointFolder(folder / CHECKPOINTS, settings.keep_checkpoints)
        self._saved_at = 0
        self._journal: Journal | None = None
        self._interruption = Interruption()
        self._records: StepRecords  # made when the run begins, since restoring changes the state
        self._recorded: GraphedStep | None = None
        if model.bert.device.partition(":")[0] == "cuda" and settings.accumulation == 1:
            # the recording of a step: to launch its kernels one by one takes longer than they do
            self._recorded = GraphedStep(
                model, self.optimizer, max_norm=settings.max_norm, loss_options=loss_options, raise_if_diverged=False
            )

    # -- from the outside ----------------------------------------------------------------------------------------------

    def restore(self, *, strict: bool = False) -> list[str]:
        """Go to where the newest whole checkpoint of the folder is; stay at the beginning if there is none.

        Args:
            strict: whether a damaged checkpoint is an error, even if one before it is whole.

        Returns:
            Notes for people: damaged checkpoints that were passed over.

        Raises:
            CheckpointError: none is whole, or the newest is not and ``strict``, or it is of another run.
        """
        if self._checkpoints is None:
            return []
        checkpoint, notes = self._checkpoints.newest(strict=strict)
        if checkpoint is not None:
            self.state = restore_snapshot(checkpoint, self.model, self.optimizer, self.best, self.identity, self.folder)
            self._saved_at = self.state.step
        return notes

    def run(self) -> TrainingResult:
        """Train to the end; the model then has the parameters of the best evaluation.

        Raises:
            InterruptedRunError: a signal came; the step was finished, and saved if there is a folder.
            DivergedError: too many steps in a row were not finite, or parameters are not.
            MinitlError: the folder is in use, full or gone, or holds checkpoints of later steps.
        """
        with ExitStack() as stack:
            if self.folder is not None and self._checkpoints is not None:
                if self.hold_lock:
                    stack.enter_context(folder_lock(self.folder))
                self._check_folder(self.folder, self._checkpoints)
                self._journal = Journal(self.folder)
                stack.callback(self._journal.close)
                self._tell(*self._journal.cut(self.state.log_lengths))
                stack.enter_context(self._interruption)
            self._records = self._new_records()
            try:
                self._train()
            except InterruptedRunError as error:
                self._save()
                what = "it is saved" if self.state.step else "there is nothing to save"
                message = f"{error} after step {self.state.step} of {self.total}; {what}"
                raise InterruptedRunError(message, error.signal_number) from None
        if self.best.score is not None:
            self.best.restore()
        self.model.eval()
        state = self.state
        return TrainingResult(
            state.step, state.ended, state.best_score, state.best_step, state.skipped_steps, state.bad_steps
        )

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _train(self) -> None:
        state = self.state
        self._after_step()  # what an interruption has left undone
        while not state.ended:
            epoch, place = divmod(state.step, self.steps_per_epoch)
            last = min(self.steps_per_epoch, place + self.total - state.step)
            title = f"epoch {epoch + 1}/{self.settings.epochs}"
            with TrainingProgress(last, title, done=place, quiet=self.say is None) as progress:
                for group in self._groups(epoch, place):
                    self._take_step(group, progress)
                    if state.step % self.steps_per_epoch == 0 or state.step == self.total:
                        break  # what comes after the last step is not a part of the epoch's time
                    self._after_step()
                    if state.ended:
                        break
                self._records.enter()
            self._after_step()

    def _groups(self, epoch: int, place: int) -> Iterator[list[Batch]]:
        """Yield the batches of each step from step ``place`` of an epoch on."""
        settings = self.settings
        group: list[Batch] = []
        start = place * settings.accumulation
        for batch in batches(self.train_data, settings.batch_size, seed=settings.seed, epoch=epoch, start=start):
            group.append(batch)
            if len(group) == settings.accumulation:
                yield group
                group = []
        if group:
            yield group

    def _take_step(self, group: list[Batch], progress: TrainingProgress) -> None:
        self.model.train()
        self.schedule.go_to(self.state.step)
        lr = self.optimizer.groups[0].lr or 0.0
        result: Result
        try:
            if self._recorded is not None:
                result = self._recorded(group[0].packed)
            else:
                packed, norm = [batch.packed for batch in group], self.settings.max_norm
                result = train_step(self.model, packed, self.optimizer, max_norm=norm, loss_options=self.loss_options)
        except DivergedError as error:
            result = error.result
        self.state.step += 1
        self._records.add(TakenStep(self.state.step, lr, group, result))
        if self._recorded is None or len(self._records) > IN_FLIGHT:  # a GPU must not be waited for
            self._records.enter(progress, leave=len(self._records) - 1)

    # -- after a step --------------------------------------------------------------------------------------------------

    def _after_step(self) -> None:
        """Evaluate, end and save, where that is due."""
        state, settings = self.state, self.settings
        if self._journal is not None:
            self._interruption.check()
        done = state.step >= self.total or bool(state.ended)
        evaluation = state.step > 0 and (
            done or state.step % self.steps_per_epoch == 0 or _due(state.step, settings.evaluate_every)
        )
        if evaluation and state.evaluated_at != state.step:
            self._records.enter()
            self._evaluate()
        if state.step >= self.total and not state.ended:
            state.ended = "all steps done"
        if (
            state.ended
            or _due(state.step, settings.checkpoint_every)
            or (evaluation and settings.checkpoint_every is None)
        ):
            self._save()

    def _evaluate(self) -> None:
        state = self.state
        if self.evaluate is None:
            state.evaluated_at = state.step
            return
        self.model.eval()
        scores = dict(self.evaluate(self._interruption.check if self._journal is not None else lambda: None))
        if self.metric not in scores:
            raise ValueError(f"evaluate returned {', '.join(scores)}, but the metric is {self.metric!r}")
        score = float(scores[self.metric])
        is_best = self.best.update(score, state.step)
        if is_best:
            state.best_score, state.best_step = score, state.step
        state.evaluated_at = state.step
        if self._journal is not None:
            record = {"step": state.step, "evaluation": scores, "best": is_best}
            self._journal.write(record, {f"dev/{name}": value for name, value in scores.items()})
        self._tell(f"step {state.step}: dev {self.metric} {score:.4f}{'  (best so far)' if is_best else ''}")
        if state.stopping.update(score) and state.step < self.total:
            state.ended = f"no improvement in {state.stopping.waited} evaluations"
            self._tell(f"ends early: {state.ended}")

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        """Save a checkpoint, unless there is one of this step."""
        state = self.state
        if self._checkpoints is None or self._journal is None or state.step == self._saved_at:
            return
        self._records.enter()
        state.log_lengths = self._journal.flush()
        self._checkpoints.save(take_snapshot(self.model, self.optimizer, self.best, state, self.identity))
        self._saved_at = state.step

    def _check_folder(self, folder: Path, checkpoints: CheckpointFolder) -> None:
        """Raise if checkpoints could not be saved, or would not be the newest in the folder."""
        check_free_space(folder, self.model)
        later = checkpoints.unread(self.state.step)
        if later:
            raise MinitlError(
                f"{folder}: holds a checkpoint of step {later[-1]}, and this training stands at step "
                f"{self.state.step}; resume from it, or name another folder"
            )
        removed = checkpoints.prepare()
        if removed:
            self._tell(f"removed what an interrupted run has left: {', '.join(removed)}")

    def _new_records(self) -> StepRecords:
        return StepRecords(
            self.state,
            self._journal,
            steps_per_epoch=self.steps_per_epoch,
            most_bad_steps=self.settings.most_bad_steps,
            sentences=self.sentences,
            tell=self._tell,
        )

    def _tell(self, *lines: str) -> None:
        for line in lines:
            if self.say is not None:
                self.say(line)


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
