"""Turns the Trainer's hooks into events, asks after each evaluation whether to go on, and writes checkpoints."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sweepkit.study.errors import TrialFailed, TrialInterrupted, nearest
from sweepkit.study.paths import BEST, BEST_NEW, BEST_OLD, LAST
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Checkpointed, Evaluated, Event, Logged
from sweepkit.trial.private import training_loss
from sweepkit.trial.trial import TrialSpec


class Line(Protocol):
    """The trial's line to its driver."""

    def say(self, event: Event) -> None:
        """Send an event."""

    def ask(self, event: Evaluated) -> str:
        """Send an evaluation and wait for the answer.

        ``continue``; ``lean``: go on, but there is no room for a resumable checkpoint; ``prune`` or ``stop``.
        """

    def heard(self) -> str | None:
        """Return a word that came down meanwhile, without waiting."""


class Diverged(TrialFailed):
    """A loss or metric is NaN or infinite."""


class TrialCallback(TrainerCallback):
    """Turns one Trainer's hooks into events; ``trainer`` is set once the Trainer exists."""

    trainer: Trainer

    def __init__(
        self, study: StudyData, spec: TrialSpec, line: Line, on_begin: Callable[[TrialCallback], None]
    ) -> None:
        self._spec = spec
        self._line = line
        self._on_begin = on_begin
        self._goals = study.objective.goals
        self._nan_ends = study.objective.nan == "diverged"
        self._resumable = study.checkpoints.every == "evaluation"
        self._objective = study.objective
        self.evaluations: list[tuple[float, ...]] = [tuple(e["values"]) for e in spec.evaluations]
        self.step = 0
        self._stopping = False
        self._folder = Path(spec.directory)
        self._main = spec.rank == 0

    @property
    def values(self) -> tuple[float, ...]:
        """The objective's values by its rule over all evaluations so far."""
        return self._objective.values_of(self.evaluations) if self.evaluations else ()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let the objective prove what is about to act, before the first step."""
        self._on_begin(self)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """End at the first NaN loss; act on a word that came down between evaluations."""
        self.step = state.global_step
        if self._nan_ends and not math.isfinite(training_loss(self.trainer)):
            raise Diverged(f"training loss is not finite at step {state.global_step}")
        word = self._agreed(self._line.heard() if self._main else None)
        if word == "stop" and self._resumable:
            self._stopping = True
            control.should_save = True
        elif word is not None:
            raise TrialInterrupted(word)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Take a resumable checkpoint that is whole into ``last/`` and say so; leave if that was all there was left to do."""
        if self._spec.ranks > 1:
            torch.distributed.barrier()  # each rank writes its own part
        if self._main:
            path = self._keep_last(Path(args.output_dir or "") / f"checkpoint-{state.global_step}")
            number = len(self.evaluations)
            self._line.say(
                Checkpointed(
                    trial=self._spec.number,
                    at=time.time(),
                    step=state.global_step,
                    role="last",
                    path=str(path),
                    evaluation=number,
                )
            )
        if self._stopping:
            raise TrialInterrupted("stop")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Send training metrics; evaluations go up whole by :meth:`on_evaluate`."""
        metrics = {k: float(v) for k, v in (logs or {}).items() if isinstance(v, (int, float)) and k != "epoch"}
        if self._main and metrics and not any(name.startswith("eval_") for name in metrics):
            self._line.say(
                Logged(
                    trial=self._spec.number,
                    at=time.time(),
                    step=state.global_step,
                    epoch=state.epoch or 0.0,
                    metrics=metrics,
                )
            )

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Send the evaluation, obey the answer, keep the best model, and ask for a resumable checkpoint."""
        self.step = state.global_step
        numbers = {k: float(v) for k, v in (metrics or {}).items() if isinstance(v, (int, float)) and k != "epoch"}
        for goal in self._goals:
            if goal.metric not in numbers:
                raise TrialFailed(
                    f"objective.metric: the evaluation reports no {goal.metric}{nearest(goal.metric, numbers)} "
                    f"It reports {', '.join(sorted(numbers))}"
                )
        values = tuple(numbers[goal.metric] for goal in self._goals)
        wrong = [goal.metric for goal, value in zip(self._goals, values, strict=True) if not math.isfinite(value)]
        if wrong:
            are = "is" if len(wrong) == 1 else "are"
            raise Diverged(f"{' and '.join(wrong)} {are} not finite at step {state.global_step}")
        self.evaluations.append(values)
        event = Evaluated(
            trial=self._spec.number,
            at=time.time(),
            number=len(self.evaluations),
            step=state.global_step,
            epoch=state.epoch or 0.0,
            metrics=numbers,
            values=values,
        )
        answer = self._agreed(self._line.ask(event) if self._main else None)
        if answer == "prune":
            raise TrialInterrupted("prune")
        if self._objective.improves(self.evaluations):
            self._save_best(state.global_step)
        training_goes_on = state.global_step < state.max_steps
        if not training_goes_on:
            return
        if answer == "stop":
            if not self._resumable:
                raise TrialInterrupted("stop")
            self._stopping = True
        control.should_save = self._resumable and answer != "lean"

    def _keep_last(self, written: Path) -> Path:
        """Move a checkpoint into ``last/``, where everything is whole, and remove the earlier ones; return where it is."""
        last = self._folder / LAST
        path = last / written.name
        last.mkdir(exist_ok=True)
        shutil.rmtree(path, ignore_errors=True)
        os.rename(written, path)
        for other in last.iterdir():
            if other != path:
                shutil.rmtree(other, ignore_errors=True)
        return path

    def _save_best(self, step: int) -> None:
        """Write the model to ``best/`` by way of a temporary folder, so that ``best/`` is always whole."""
        new, old, best = (self._folder / name for name in (BEST_NEW, BEST_OLD, BEST))
        if self._main:
            shutil.rmtree(new, ignore_errors=True)
        self.trainer.save_model(str(new))
        if not self._main:
            return
        shutil.rmtree(old, ignore_errors=True)
        if best.exists():
            os.rename(best, old)
        os.rename(new, best)
        shutil.rmtree(old, ignore_errors=True)
        self._line.say(
            Checkpointed(
                trial=self._spec.number,
                at=time.time(),
                step=step,
                role="best",
                path=str(best),
                evaluation=len(self.evaluations),
            )
        )

    def _agreed(self, word: str | None) -> str | None:
        """Return the word that every rank acts on: what rank 0, the only one that talks with the driver, was told."""
        if self._spec.ranks == 1:
            return word
        words: list[str | None] = [None, "continue", "lean", "stop", "prune"]
        urgency = torch.tensor(words.index(word), device=self.trainer.args.device)
        torch.distributed.all_reduce(urgency, op=torch.distributed.ReduceOp.MAX)
        return words[int(urgency.item())]
