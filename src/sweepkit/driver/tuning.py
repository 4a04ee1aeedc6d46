"""How long trials may be, and how many, so that a study with its confirmation fits into a given time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from sweepkit.driver.forecast import makespan
from sweepkit.study import words
from sweepkit.study.errors import InputError
from sweepkit.trial.first_steps import Measured

TOP, SEEDS = 2, 3
"""Best trials that are trained again beside the baseline, and new seeds of each."""
EVALUATIONS = 4
"""Evaluations of a trial; asha stops trials after the first and the third."""
SHARE = 0.5
"""Mean share of its length that a trial is trained under asha: 0.44 if exactly a third goes on at each rung, which the
earliest trials do not keep to."""
ENOUGH, FEWEST, MOST = 16, 8, 60
"""Trials that a search gets if shorter ones make that possible, that it needs, and at which more change little."""
MARGIN = 0.1
"""Share of the time that stays free for what was not foreseen, and for the report."""
STEPS = 300
"""Optimizer steps that fine-tuning takes on small data, as far as MOST_EPOCHS allow."""
USUAL_EPOCHS, MOST_EPOCHS = 3, 10
LADDER = (10.0, 8.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.5, 0.25, 0.1, 0.05, 0.02)
"""Lengths of a trial in epochs, from long to short."""
SHORTEST = 32
"""Steps below which part of an epoch teaches nothing about the whole."""
EVALUATED = 256
"""Validation rows that an evaluation keeps at least, where all of them would take too long."""


class TooLittle(InputError):
    """The time is too short for a study; it needs ``needed`` seconds."""

    def __init__(self, message: str, needed: float) -> None:
        super().__init__(message)
        self.needed = needed


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Length and number of trials."""

    epochs: float
    trials: int
    trial_seconds: float
    """Of a trial that is trained to its end."""
    search_seconds: float
    """After which no further trial starts."""
    confirm_seconds: float
    eval_rows: int | None = None
    """Validation rows to evaluate; None for all."""

    @property
    def seconds(self) -> float:
        """Seconds of search and confirmation at most; the last trials get one trial's time to end."""
        return self.search_seconds + self.trial_seconds + self.confirm_seconds


@dataclass(frozen=True, kw_only=True)
class Room:
    """What there is to fit into: time left, slots, and what is measured of trials of ``epochs`` epochs."""

    seconds: float
    """Until all must be done."""
    start_seconds: float
    slots: int
    measured: Sequence[Measured]
    epochs: float
    eval_rows: int

    def plan_for(self, epochs: float) -> Plan:
        """Return the plan for trials of this length; ``trials`` is how many fit, which may be none."""
        one, per_epoch = self.measured, self._epoch_seconds
        evaluating = fmean(each.evaluation_seconds for each in one)
        share = min(1.0, max(EVALUATED / self.eval_rows, epochs * per_epoch / 2 / max(1e-9, EVALUATIONS * evaluating)))
        each = evaluating * share + fmean(each.saving_seconds for each in one)
        trial = fmean(each.overhead_seconds for each in one) + epochs * per_epoch + EVALUATIONS * each
        confirm = makespan([trial], (TOP + 1) * SEEDS, self.slots)
        search = (1 - MARGIN) * self.seconds - self.start_seconds - confirm - trial
        count = (search * self.slots / trial - 1) / SHARE + 1  # the baseline is trained to its end
        return Plan(
            epochs=epochs,
            trials=max(0, min(MOST, int(count))),
            trial_seconds=trial,
            search_seconds=search,
            confirm_seconds=confirm,
            eval_rows=None if share == 1 else math.ceil(self.eval_rows * share),
        )

    def seconds_for(self, epochs: float, trials: int) -> float:
        """Return the time that a study of so many trials takes, margin included."""
        plan = self.plan_for(epochs)
        search = (1 + (trials - 1) * SHARE) * plan.trial_seconds / self.slots
        return (self.start_seconds + search + plan.trial_seconds + plan.confirm_seconds) / (1 - MARGIN)

    def lengths(self) -> list[float]:
        """Return the lengths worth a trial, in epochs, from long to short."""
        steps = [each.steps / self.epochs for each in self.measured]
        wanted = min(MOST_EPOCHS, max(USUAL_EPOCHS, math.ceil(STEPS / fmean(steps))))
        return [epochs for epochs in LADDER if epochs <= wanted and (epochs >= 1 or epochs * min(steps) >= SHORTEST)]

    @property
    def _epoch_seconds(self) -> float:
        return fmean(each.steps * each.step_seconds for each in self.measured) / self.epochs


def fit(room: Room, epochs: float | None = None) -> Plan:
    """Return the longest trials of which ENOUGH fit, else the shortest; ``epochs`` fixes their length.

    Raises TooLittle where fewer than FEWEST would fit.
    """
    lengths = room.lengths() if epochs is None else [epochs]
    plans = [room.plan_for(each) for each in lengths]
    plan = next((each for each in plans if each.trials >= ENOUGH), plans[-1])
    if plan.trials >= FEWEST:
        return plan
    needed = room.seconds_for(plan.epochs, FEWEST)
    length = "as long as was set" if epochs is not None else f"of {in_epochs(plan.epochs)}"
    raise TooLittle(
        f"{words.span(max(0.0, room.seconds))} are left, too little for a study: a trial {length} takes "
        f"{words.span(plan.trial_seconds)}, and {FEWEST} trials with {(TOP + 1) * SEEDS} runs to confirm the best, "
        f"{room.slots} at a time, take about {words.span(needed)}",
        needed,
    )


def in_epochs(count: float) -> str:
    """Return a length in words: ``1 epoch``, ``0.5 epochs``."""
    return f"{count:g} {'epoch' if count == 1 else 'epochs'}"
