"""Turns Trainer hooks into events, asks after each evaluation whether to continue, and writes checkpoints."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sweepkit.study.damage import seal
from sweepkit.study.errors import TrialFailed, TrialInterrupted
from sweepkit.study.files import make_own, printable, remove
from sweepkit.study.objective import COSTS
from sweepkit.study.paths import ARGUMENTS, BEST, BEST_NEW, BEST_OLD, LAST
from sweepkit.study.study import StudyData
from sweepkit.trial.costs import Costs
from sweepkit.trial.events import Checkpointed, Evaluated, Event, Logged
from sweepkit.trial.private import training_loss
from sweepkit.trial.reading import NOT_METRICS, Reading, as_number, plain, read
from sweepkit.trial.trial import TrialSpec


class Line(Protocol):
    """A trial's connection to its driver."""

    def send(self, event: Event) -> None:
        """Send an event."""

    def ask(self, event: Evaluated) -> str:
        """Send an evaluation and wait for the answer: ``continue``, ``lean``, ``prune`` or ``stop``.

        ``lean`` means continue without a resumable checkpoint, for which there is no room.
        """

    def poll(self) -> str | None:
        """Return an answer that arrived between evaluations, if any, without waiting."""


class Diverged(TrialFailed):
    """A loss or metric is NaN or infinite."""


class TrialCallback(TrainerCallback):
    """Turns the hooks of one Trainer, set as ``trainer`` once it exists, into events."""

    trainer: Trainer

    def __init__(
        self, study: StudyData, spec: TrialSpec, line: Line, on_begin: Callable[[TrialCallback], None]
    ) -> None:
        self._spec = spec
        self._line = line
        self._on_begin = on_begin
        self._nan_ends = study.objective.nan == "diverged"
        self._resumable = study.checkpoints.every == "evaluation"
        self._objective = study.objective
        self._costs = Costs()
        self._weighs_costs = any(goal.metric in COSTS for goal in study.objective.goals)
        self.evaluations: list[tuple[float, ...]] = [tuple(e["values"]) for e in spec.evaluations]
        self.step = 0
        self._stopping = False
        self._folder = Path(spec.directory)
        self._main = spec.rank == 0

    @property
    def values(self) -> tuple[float, ...]:
        """The objective's values over the evaluations so far, by its rule (best, last or mean)."""
        return self._objective.values_of(self.evaluations) if self.evaluations else ()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Prove the hyperparameters before the first step."""
        self._on_begin(self)
        self._costs.begin(self._spec.resume_from)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """End at the first NaN or infinite loss; act on an answer that arrived between evaluations.

        Reading a loss makes a GPU's queue run empty: there it is read only where the Trainer logs, evaluates or ends.
        """
        self.step = state.global_step
        loss = training_loss(self.trainer)
        if loss is not None and loss.device.type == "cpu":
            self._read_loss()
        answer = self._agreed(self._line.poll() if self._main else None)
        if answer == "stop" and self._resumable:
            self._stopping = True
            control.should_save = True
        elif answer is not None:
            raise TrialInterrupted(answer)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End where the last steps' loss is NaN or infinite."""
        self._read_loss()

    def _read_loss(self) -> None:
        loss = training_loss(self.trainer)
        if self._nan_ends and loss is not None and not math.isfinite(loss.item()):
            raise Diverged(f"training loss is not finite at step {self.step}")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move a complete resumable checkpoint into ``last/`` and report it; end where a stop waited for it."""
        if self._spec.ranks > 1:
            torch.distributed.barrier()  # each rank writes its own part
        written = Path(args.output_dir or "") / f"checkpoint-{state.global_step}"
        self._costs.write(self.trainer, written if self._main else None)
        if self._main:
            path = self._keep_last(written)
            self._send(
                Checkpointed, step=state.global_step, role="last", path=str(path), evaluation=len(self.evaluations)
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
        """Send training metrics; :meth:`read` sends evaluations."""
        if "loss" in (logs or {}):
            self._read_loss()
        if state.log_history:
            state.log_history[-1] = plain(state.log_history[-1])
        metrics = _training_metrics(logs or {})
        if "train_runtime" in metrics:  # the Trainer's is that of this attempt
            seconds = self._costs.seconds()
            metrics |= {"train_runtime": seconds} if seconds is not None else {}
        if self._main and metrics:
            self._send(Logged, step=state.global_step, epoch=state.epoch or 0.0, metrics=metrics)

    def read(self, metrics: Mapping[str, Any], on_start: bool = False, *, final: bool = False) -> None:
        """Send an evaluation, act on the answer, keep the best model, and request a resumable checkpoint.

        ``metrics`` are what ``Trainer.evaluate`` returned. An evaluation ``on_start``, before the first step of this
        attempt, is only logged: it says nothing about what was trained. ``final``: training is over, which is also read from
        the Trainer, where it has taken all steps or a callback stopped it.
        """
        state, control = self.trainer.state, self.trainer.control
        costs = self._costs.now(self.trainer) if self._weighs_costs and not on_start else {}
        reading = read(metrics, (goal.metric for goal in self._objective.goals), costs)
        if on_start:
            finite = {name: value for name, value in reading.numbers.items() if math.isfinite(value)}
            if self._main:
                self._send(Logged, step=state.global_step, epoch=state.epoch or 0.0, metrics=finite)
            return
        self.step = state.global_step
        self._read_loss()
        values = self._values(reading)
        self.evaluations.append(values)
        event = Evaluated(
            trial=self._spec.number,
            at=time.time(),
            number=len(self.evaluations),
            step=state.global_step,
            epoch=state.epoch or 0.0,
            metrics=reading.numbers,
            values=values,
            final=final or control.should_training_stop or state.global_step >= state.max_steps,
        )
        answer = self._agreed(self._line.ask(event) if self._main else None)
        if answer == "prune":
            raise TrialInterrupted("prune")
        if self._objective.improves(self.evaluations):
            self._save_best(state.global_step)
        if state.global_step >= state.max_steps:
            return
        if answer == "stop":
            if not self._resumable:
                raise TrialInterrupted("stop")
            self._stopping = True
        control.should_save = self._resumable and answer != "lean"

    def _send(self, kind: type[Event], **fields: Any) -> None:
        self._line.send(kind(trial=self._spec.number, at=time.time(), **fields))

    def _values(self, reading: Reading) -> tuple[float, ...]:
        """Return the objective's metrics. Raises TrialFailed where one is missing, Diverged where one is not finite."""
        for goal in self._objective.goals:
            if missing := reading.missing(goal.metric):
                raise TrialFailed(f"objective.metric: {missing}")
        wrong = [goal.metric for goal in self._objective.goals if not math.isfinite(reading.numbers[goal.metric])]
        if wrong:
            are = "is" if len(wrong) == 1 else "are"
            raise Diverged(f"{' and '.join(wrong)} {are} not finite at step {self.step}")
        return tuple(reading.numbers[goal.metric] for goal in self._objective.goals)

    def _keep_last(self, written: Path) -> Path:
        """Move a checkpoint into ``last/``, which holds complete ones only, remove the earlier ones, return its path."""
        last = self._folder / LAST
        path = last / written.name
        make_own(last)
        seal(written)
        remove(path)
        os.rename(written, path)
        for other in last.iterdir():
            if other != path:
                remove(other)
        return path

    def _save_best(self, step: int) -> None:
        """Write the model to ``best/`` through a temporary folder, so that ``best/`` is always complete."""
        new, old, best = (self._folder / name for name in (BEST_NEW, BEST_OLD, BEST))
        if self._main:
            remove(new)
        self.trainer.save_model(str(new))
        if not self._main:
            return
        sharded = self.trainer.is_fsdp_enabled or self.trainer.is_deepspeed_enabled
        if sharded and not any(new.glob("*.safetensors")):
            raise TrialFailed("the sharded model was not saved whole: best/ would have no weights")
        (new / ARGUMENTS).unlink(missing_ok=True)
        seal(new)
        remove(old)
        if os.path.lexists(best):
            os.rename(best, old)
        os.rename(new, best)
        remove(old)
        self._send(Checkpointed, step=step, role="best", path=str(best), evaluation=len(self.evaluations))

    def _agreed(self, answer: str | None) -> str | None:
        """Return the answer that rank 0, the only one connected to the driver, received; the same on every rank."""
        if self._spec.ranks == 1:
            return answer
        answers: list[str | None] = [None, "continue", "lean", "stop", "prune"]
        urgency = torch.tensor(answers.index(answer), device=self.trainer.args.device)
        torch.distributed.all_reduce(urgency, op=torch.distributed.ReduceOp.MAX)
        return answers[int(urgency.item())]


def _training_metrics(logs: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers among what the Trainer logs, without the epoch and evaluations."""
    numbers = {printable(name): as_number(value) for name, value in logs.items() if name not in NOT_METRICS}
    return {k: v for k, v in numbers.items() if v is not None and not k.startswith("eval_")}
