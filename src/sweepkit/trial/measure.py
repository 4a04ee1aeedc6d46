"""Trains the first steps of a trial on a sample of its rows, evaluates once, and measures what that takes.

The trial is a whole one in every other respect: its process, its threads, its schedule, its checkpoints. Knows nothing of
the search and of what its numbers are good for.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from torch.utils.data import RandomSampler, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sweepkit.study.paths import MEASURED
from sweepkit.study.schedule import evaluations
from sweepkit.study.study import StudyData
from sweepkit.trial import private
from sweepkit.trial.callback import Line
from sweepkit.trial.events import Checkpointed, Evaluated, Event, Finished, Logged, Started
from sweepkit.trial.measured import Measured
from sweepkit.trial.objective import run_trial
from sweepkit.trial.trial import TrialSpec

WARM_UP = 2
"""Steps before those that are measured: the first ones also allocate memory and choose kernels."""
SECONDS = 5.0
"""So long the measured steps should take, if a trial has so many: a stall of the machine is then a small part of them."""
FEWEST = 3
EVALUATED = 16
"""Batches of an evaluation that is measured; the rest of the rows is taken to last as long each."""


def measure(study: StudyData, spec: TrialSpec, line: Line, *, worst: bool = False) -> Finished:
    """Train, evaluate and save once, and write what was measured to ``measured.json`` in the trial's folder.

    ``worst``: two steps and an evaluation of two batches, on the longest rows there are: what memory is needed. The second
    step is the first that has its activations beside the optimizer's state.
    """
    course = _Course(line, worst=worst, adaptive=spec.ranks == 1, seed=spec.number)
    finished = run_trial(study, spec, course, before=course.shorten)
    if course.measured is not None and spec.rank == 0:
        (Path(spec.directory) / MEASURED).write_text(json.dumps(asdict(course.measured)))
    return finished


class _Course(TrainerCallback):
    """The way through a measured trial; it is the trial's line too, for what a trial says comes when it happens."""

    def __init__(self, line: Line, *, worst: bool, adaptive: bool, seed: int = 0) -> None:
        self._worst = worst
        self._adaptive = adaptive
        self._dice = random.Random(seed)
        self._warm_up, self._steps = (0, 2) if worst else (WARM_UP, FEWEST)
        self._times: list[float] = []
        self._marks: dict[str, float] = {}
        self._sizes: dict[str, int] = {}
        self._said = {"step": 0, "evaluation": 0}
        self._whole: dict[str, int] = {}
        self._evaluated_share = 1.0
        self._evaluated = False

    @property
    def measured(self) -> Measured | None:
        """What was measured; None where it did not come to the end of an evaluation."""
        if not self._evaluated or "asked" not in self._marks or not self._times:
            return None
        begin = self._marks["begin"] if not self._warm_up else self._times[self._warm_up - 1]
        end = self._times[self._warm_up + self._steps - 1]
        best = self._marks.get("best", self._marks["asked"])
        return Measured(
            busy_seconds=self._marks.get("last", best) - self._marks["begin"],
            step_seconds=(end - begin) / self._steps,
            evaluation_seconds=(self._marks["asked"] - end) / self._evaluated_share,
            saving_seconds=self._marks.get("last", best) - self._marks["asked"],
            steps=self._whole["steps"],
            evaluations=self._whole["evaluations"],
            measured_steps=self._steps,
            best_bytes=self._sizes.get("best", 0),
            last_bytes=self._sizes.get("last", 0),
            log_bytes=self._said["step"] * self._whole["steps"] / (self._warm_up + self._steps)
            + self._said["evaluation"] * self._whole["evaluations"],
        )

    # The trial's line.

    def say(self, event: Event) -> None:
        """Take note of when training begins, of what a checkpoint takes and of how much is said."""
        if not isinstance(event, Started):
            of_step = isinstance(event, Logged) and not self._evaluated
            self._said["step" if of_step else "evaluation"] += len(event.to_json())
        if isinstance(event, Started):
            self._marks["begin"] = time.monotonic()
        elif isinstance(event, Checkpointed):
            self._marks[event.role] = time.monotonic()
            self._sizes[event.role] = sum(f.stat().st_size for f in Path(event.path).rglob("*") if f.is_file())

    def ask(self, event: Evaluated) -> str:
        """Take note of when an evaluation is over; go on, so that its checkpoints are written."""
        self._said["evaluation"] += len(event.to_json())
        self._marks["asked"] = time.monotonic()
        return "continue"

    def heard(self) -> str | None:
        """Take note of when a step is over."""
        self._times.append(time.monotonic())
        return None

    # The Trainer's callback, after the trial's own.

    def shorten(self, trainer: Trainer) -> None:
        """Let a Trainer take its rows from samples, and tell this callback of every step."""
        trainer.add_callback(self)
        hooked: Any = trainer
        whole, samplers = trainer.get_train_dataloader, private.train_sampler(trainer)
        rows, taken = trainer.train_dataset, list[Any]()

        def sampler(dataset: Any = None) -> Any:
            found = samplers(dataset)
            taken.append(found)  # the first is that of all rows
            return found

        def loader(steps: int) -> Any:
            trainer.train_dataset, in_order = self._sample(
                rows, steps, _step_rows(trainer), taken[0] if taken else None
            )
            if in_order:
                private.set_train_sampler(trainer, SequentialSampler)
            try:
                return whole()
            finally:
                trainer.train_dataset = rows
                private.set_train_sampler(trainer, sampler)

        def batches() -> Iterator[Any]:
            accumulation = trainer.args.gradient_accumulation_steps
            if self._warm_up:
                yield from islice(loader(self._warm_up), self._warm_up * accumulation)
            while True:
                yield from loader(self._steps)

        def sampled() -> Any:
            return _Sampled(whole(), batches)

        private.set_train_sampler(trainer, sampler)
        hooked.get_train_dataloader = sampled
        evaluated: Any = trainer.eval_dataset
        if hasattr(evaluated, "select"):
            count, rows_each = 2 if self._worst else EVALUATED, trainer.args.eval_batch_size * trainer.args.world_size
            sample, in_order = self._sample(evaluated, count, rows_each, private.eval_sampler(trainer, evaluated))
            trainer.eval_dataset = sample
            if in_order:
                private.set_eval_sampler(trainer, SequentialSampler)
            self._evaluated_share = len(sample) / len(evaluated)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take note of how long the whole trial is."""
        counted = evaluations(vars(args), steps=state.max_steps, epochs=state.num_train_epochs)
        self._whole = {"steps": state.max_steps, "evaluations": max(1, counted or 0)}
        self._warm_up = min(self._warm_up, state.max_steps - 1)
        self._steps = min(self._steps, state.max_steps - self._warm_up)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """After the warm-up say how many steps to measure; after those, evaluate."""
        if self._adaptive and self._warm_up and state.global_step == self._warm_up:
            last = self._times[-1] - (self._times[-2] if len(self._times) > 1 else self._marks["begin"])
            wanted = max(FEWEST, int(SECONDS / max(last, 1e-6)))
            self._steps = min(wanted, state.max_steps - self._warm_up)
        control.should_evaluate = state.global_step == self._warm_up + self._steps
        control.should_save = False

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Pass over evaluations of the schedule's own."""
        control.should_evaluate = control.should_save = False

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop after the evaluation and what it saves; an earlier one, before the first step, does not count."""
        self._evaluated = control.should_training_stop = state.global_step == self._warm_up + self._steps

    def _sample(self, rows: Any, batches: int, size: int, sampler: Any) -> tuple[Any, bool]:
        """Return rows for so many batches, and whether they must stay in this order.

        A sampler that groups rows by their length would, of a few rows alone, make batches of another kind: of its order
        over all rows, whole batches are taken, one somewhere in each part of it: it goes up and down with a period.
        """
        if not hasattr(rows, "select") or batches * size >= len(rows):
            return rows, False
        if self._worst:
            return rows.select(_longest(rows)[: batches * size]), False
        order = [] if sampler is None or isinstance(sampler, RandomSampler) else list(sampler)
        there = len(order) // size
        if there < batches or not isinstance(order[0], int):
            return rows.select(self._dice.sample(range(len(rows)), batches * size)), False
        begins = [int((number + self._dice.random()) * there / batches) * size for number in range(batches)]
        return rows.select([row for begin in begins for row in order[begin : begin + size]]), True


class _Sampled:
    """A data loader as long as the whole one, which yields a sample's batches."""

    def __init__(self, whole: Any, batches: Any) -> None:
        self._whole = whole
        self._batches = batches

    def __len__(self) -> int:
        return len(self._whole)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._batches())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)


def _step_rows(trainer: Trainer) -> int:
    args = trainer.args
    return int(args.train_batch_size * args.gradient_accumulation_steps * args.world_size)


def _longest(rows: Any) -> list[int]:
    """Row numbers, those with the most tokens first; all are alike where there are no tokens."""
    if "input_ids" not in rows.column_names:
        return list(range(len(rows)))
    import pyarrow.compute

    column = rows.select_columns(["input_ids"]).with_format("arrow")[:]["input_ids"]
    lengths = pyarrow.compute.list_value_length(column).to_pylist()
    return sorted(range(len(rows)), key=lambda number: -lengths[number])
