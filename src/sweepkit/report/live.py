"""Where a study in progress stands: the trials that ended, and how far each running one has got."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from sweepkit.report.answer import Answer
from sweepkit.study import words
from sweepkit.study.paths import SPEC, Place
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Event, Logged, Started
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Ending, Trial

BEST_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Moment:
    """How far a running trial has got, according to its events."""

    params: Mapping[str, Any]
    step: int = 0
    epoch: float = 0.0
    evaluation: int = 0
    values: tuple[float, ...] = ()
    """The objective's metrics at the last evaluation."""
    history: tuple[float, ...] = ()
    """The first goal's metric at each evaluation so far."""
    since: float | None = None
    """When this attempt started, in seconds since the epoch."""

    def after(self, event: Event) -> Moment:
        """Return the moment after one more event."""
        if isinstance(event, Started):
            whole = self if event.resumed else Moment(params=self.params)
            return replace(whole, since=event.at, step=event.resumed)
        if isinstance(event, Logged):
            return replace(self, step=event.step, epoch=event.epoch)
        if isinstance(event, Evaluated):
            return replace(
                self,
                step=event.step,
                epoch=event.epoch,
                evaluation=event.number,
                values=event.values,
                history=(*self.history, *event.values[:1]),
            )
        return self


def read_moment(place: Place, trial: Trial) -> Moment:
    """Return how far a running trial has got, read from its event log."""
    moment = Moment(params=trial.params)
    for event in TrialLog(place.trial(trial.number)).events()[0]:
        moment = moment.after(event)
    return moment


def fraction(study: StudyData, moment: Moment) -> float | None:
    """Return the share of a trial's schedule that is done, from 0 to 1; None where its length is unknown."""
    arguments = {"num_train_epochs": 3.0, **study.training, **moment.params}
    steps, epochs = arguments.get("max_steps", -1), arguments["num_train_epochs"]
    if isinstance(steps, int) and steps > 0:
        return min(1.0, moment.step / steps)
    return min(1.0, moment.epoch / epochs) if isinstance(epochs, (int, float)) and epochs > 0 else None


@dataclass
class Board:
    """What a view of a study shows: its ended trials, and the moments of the running ones."""

    study: StudyData
    ended: dict[int, Trial] = field(default_factory=dict)
    running: dict[int, Moment] = field(default_factory=dict)

    @classmethod
    def at_start(cls, study: StudyData, rows: Iterable[Trial]) -> Self:
        """Return the board of a run that begins with ``rows``; what was running before is not running now."""
        board = cls(study)
        board.update(rows)
        board.running.clear()
        return board

    def update(self, rows: Iterable[Trial]) -> None:
        """Bring the board up to date with trials as storage has them."""
        for row in rows:
            if row.ending.counts:
                self.end(row)
            elif row.ending is Ending.running:
                self.running[row.number] = read_moment(self.study.place, row)

    def add(self, event: Event) -> None:
        """Move the event's trial on."""
        if isinstance(event, Started) and event.trial not in self.running:
            self.running[event.trial] = Moment(params=_hyperparameters(self.study.place, event.trial))
        if event.trial in self.running:
            self.running[event.trial] = self.running[event.trial].after(event)

    def end(self, row: Trial) -> None:
        """Move a trial that ended from the running to the ended ones."""
        self.running.pop(row.number, None)
        if row.ending.counts:
            self.ended[row.number] = row

    @property
    def rows(self) -> list[Trial]:
        """The ended trials, by number."""
        return sorted(self.ended.values(), key=lambda row: row.number)

    @property
    def total(self) -> int | None:
        """Trials in the budget."""
        return self.study.budget.trials

    @property
    def done(self) -> float:
        """Trials done; a running trial counts as the share of its schedule that is done."""
        shares = (fraction(self.study, moment) or 0.0 for moment in tuple(self.running.values()))
        return len(self.ended) + sum(shares)

    def best(self) -> str:
        """Return the best so far in words, for example ``best 0.874 (trial 7)``; empty while there is none."""
        answer = Answer(self.study, self.rows)
        best = answer.winners
        if answer.several:
            return f"Pareto front of {len(best)}" if best else ""
        return f"best {words.value(best[0].value)} (trial {best[0].number})" if best else ""

    def top(self) -> list[Trial]:
        """Return the trials that views list; see :func:`top_trials`."""
        return top_trials(self.study, self.rows)


def top_trials(study: StudyData, rows: list[Trial]) -> list[Trial]:
    """Return the best five trials or, with several goals, the first five of the Pareto front."""
    return Answer(study, rows).top(BEST_SHOWN)


def _hyperparameters(place: Place, number: int) -> dict[str, Any]:
    """Return the hyperparameters in a trial's spec; empty while it has none."""
    try:
        spec = json.loads((place.trial(number) / SPEC).read_text())
    except FileNotFoundError:
        return {}
    return dict(spec.get("hyperparameters", {}))
