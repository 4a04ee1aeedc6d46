"""Trains the first steps of a trial, evaluates once on a sample, saves, and measures what each takes.

Everything else is as in the trial itself: process, threads, schedule, checkpoints. Only the order of the rows differs, so
that the first batches stand for all of them.
"""

from __future__ import annotations

import json
import random
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import RandomSampler, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sweepkit.study.gpus import Busy
from sweepkit.study.paths import MEASURED
from sweepkit.study.schedule import evaluations
from sweepkit.study.study import StudyData
from sweepkit.trial import private
from sweepkit.trial.callback import Line
from sweepkit.trial.events import Checkpointed, Evaluated, Event, Finished, Logged, Started
from sweepkit.trial.first_steps import Measured
from sweepkit.trial.objective import run_trial
from sweepkit.trial.trial import TrialSpec

WARM_UP = 2
"""Steps before the measured ones: they also allocate memory and choose kernels."""
SECONDS = 5.0
"""How long the measured steps should take, if the trial has that many: a stall of the machine then weighs little."""
FEWEST = 3
"""Measured steps at least."""
GOLDEN = 0.6180339887498949
"""Any number of consecutive multiples, modulo 1, is spread evenly over a range (Weyl's sequence)."""
WATCHED_SECONDS = 3.0
"""How long a GPU is watched under the largest batches."""
EVALUATED = 16
"""Batches of the measured evaluation; its time is scaled to all rows."""


def measure(study: StudyData, spec: TrialSpec, line: Line, *, worst: bool = False) -> Finished:
    """Train, evaluate and save once, and write a Measured to ``measured.json`` in the trial's folder.

    ``worst`` finds the peak memory: two steps and an evaluation of two batches on the longest rows. The second step is
    the first to hold its activations beside the optimizer's state. On a GPU more steps follow, which show how busy it is.
    """
    course = _Course(worst=worst, adaptive=spec.ranks == 1, seed=spec.number)
    finished = run_trial(study, spec, course, before=course.attach)
    if course.measured is not None and spec.rank == 0:
        (Path(spec.directory) / MEASURED).write_text(json.dumps(asdict(course.measured)))
    return finished


class _Course(TrainerCallback):
    """Takes the times as the trial's line, which events reach as they happen, and ends it as a Trainer callback."""

    def __init__(self, *, worst: bool, adaptive: bool, seed: int = 0) -> None:
        self._worst = worst
        self._adaptive = adaptive
        self._dice = random.Random(seed)
        self._warm_up, self._steps = (0, 2) if worst else (WARM_UP, FEWEST)
        self._seconds = SECONDS
        self._watched: Busy | None = None
        self._busy: float | None = None
        self._step_ends: list[float] = []
        self._times: dict[str, float] = {}
        self._sizes = {"best": 0, "last": 0}
        self._logged = {"step": 0, "evaluation": 0}
        self._whole = {"steps": 0, "evaluations": 0}
        self._evaluated_share = 1.0
        self._evaluated = False

    @property
    def measured(self) -> Measured | None:
        """The result; None where training did not come to the end of an evaluation."""
        if not self._evaluated or "evaluated" not in self._times:
            return None
        begin, evaluated = self._times["begin"], self._times["evaluated"]
        warm = self._step_ends[self._warm_up - 1] if self._warm_up else begin
        end = self._step_ends[self._warm_up + self._steps - 1]
        saved = max(self._times.get(role, evaluated) for role in self._sizes)
        per_step = self._logged["step"] / (self._warm_up + self._steps)
        return Measured(
            busy_seconds=saved - begin,
            step_seconds=(end - warm) / self._steps,
            evaluation_seconds=(evaluated - end) / self._evaluated_share,
            saving_seconds=saved - evaluated,
            **self._whole,
            measured_steps=self._steps,
            best_bytes=self._sizes["best"],
            last_bytes=self._sizes["last"],
            log_bytes=per_step * self._whole["steps"] + self._logged["evaluation"] * self._whole["evaluations"],
            busy=self._busy,
        )

    # The trial's line.

    def send(self, event: Event) -> None:
        """Record when training begins, what a checkpoint takes, and the log's size."""
        if isinstance(event, Started):
            self._times["begin"] = time.monotonic()
            return
        of_step = isinstance(event, Logged) and not self._evaluated
        self._logged["step" if of_step else "evaluation"] += len(event.to_json())
        if isinstance(event, Checkpointed):
            self._times[event.role] = time.monotonic()
            self._sizes[event.role] = sum(f.stat().st_size for f in Path(event.path).rglob("*") if f.is_file())

    def ask(self, event: Evaluated) -> str:
        """Record the end of the evaluation; continue, so that its checkpoints are written."""
        self._logged["evaluation"] += len(event.to_json())
        self._times["evaluated"] = time.monotonic()
        return "continue"

    def poll(self) -> str | None:
        """Record the end of a step."""
        self._step_ends.append(time.monotonic())
        return None

    # The Trainer's callback, which runs after the trial's own.

    def attach(self, trainer: Trainer) -> None:
        """Give a Trainer representative batches first, a sample to evaluate, and this callback."""
        trainer.add_callback(self)
        args, rows = trainer.args, cast("Any", trainer.eval_dataset)
        make_sampler = private.train_sampler(trainer)
        size = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        private.set_train_sampler(trainer, lambda data=None: self._ordered(data, make_sampler(data), size))
        count, size = 2 if self._worst else EVALUATED, args.eval_batch_size * args.world_size
        if not hasattr(rows, "select") or count * size >= len(rows):
            return
        order = self._ordered(rows, private.eval_sampler(trainer, rows) or SequentialSampler(rows), size)
        trainer.eval_dataset = rows.select(order[: count * size])
        private.set_eval_sampler(trainer, SequentialSampler)
        self._evaluated_share = count * size / len(rows)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Record the length of the whole trial."""
        counted = evaluations(vars(args), steps=state.max_steps, epochs=state.num_train_epochs)
        self._whole = {"steps": state.max_steps, "evaluations": max(1, counted or 0) + bool(args.eval_on_start)}
        if self._worst and self._adaptive and args.device.type == "cuda":
            self._warm_up, self._seconds = WARM_UP, WATCHED_SECONDS
        self._warm_up = min(self._warm_up, state.max_steps - 1)
        self._steps = min(self._steps, state.max_steps - self._warm_up)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """After the warm-up choose how many steps to measure; after those, evaluate."""
        if self._adaptive and self._warm_up and state.global_step == self._warm_up:
            last = self._step_ends[-1] - (self._step_ends[-2] if len(self._step_ends) > 1 else self._times["begin"])
            wanted = max(FEWEST, int(self._seconds / max(last, 1e-6)))
            self._steps = min(wanted, state.max_steps - self._warm_up)
            if self._worst:
                self._watched = Busy(f"GPU-{torch.cuda.get_device_properties(0).uuid}")
        elif self._watched and state.global_step == self._warm_up + self._steps:
            self._busy = self._watched.share()
        control.should_evaluate = state.global_step == self._warm_up + self._steps
        control.should_save = False

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Skip the evaluations of the trial's own schedule."""
        control.should_evaluate = control.should_save = False

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop after the evaluation and what it saves; one before the first step does not count."""
        self._evaluated = control.should_training_stop = state.global_step == self._warm_up + self._steps

    def _ordered(self, rows: Any, sampler: Any, size: int) -> Any:
        """Return row numbers in an order whose first batches of ``size`` stand for all; the sampler where it has none.

        A sampler that groups rows by length goes from long to short, repeatedly; its batches are therefore spread over all
        of its order.
        """
        if self._worst and hasattr(rows, "column_names"):
            return _longest(rows)
        if isinstance(sampler, RandomSampler):
            dice = torch.Generator().manual_seed(self._dice.randrange(1 << 32))
            return torch.randperm(len(rows), generator=dice).tolist()
        order = [] if sampler is None else list(sampler)
        count = len(order) // size
        if not count or not isinstance(order[0], int):
            return sampler
        start = self._dice.random()
        begins = [int((start + n * GOLDEN) % 1 * count) * size for n in range(count)]
        return [row for begin in begins for row in order[begin : begin + size]] + order[count * size :]


def _longest(rows: Any) -> list[int]:
    """Return the row numbers by decreasing number of tokens; in their order where rows have none."""
    if "input_ids" not in rows.column_names:
        return list(range(len(rows)))
    import pyarrow.compute

    column = rows.select_columns(["input_ids"]).with_format("arrow")[:]["input_ids"]
    lengths = pyarrow.compute.list_value_length(column).to_pylist()
    return sorted(range(len(rows)), key=lambda number: -lengths[number])
