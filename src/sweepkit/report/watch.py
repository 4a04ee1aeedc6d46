"""A run in progress: the watcher's hooks, the switch that stops it, where each trial stands, and the outcome."""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

from sweepkit.report.answer import Answer
from sweepkit.report.rows import endings, read_spent
from sweepkit.study import words
from sweepkit.study.damage import note, read_json
from sweepkit.study.errors import DamagedFile
from sweepkit.study.files import write_whole
from sweepkit.study.locks import lock_owners
from sweepkit.study.paths import Place
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Event, Logged, Started
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Ending, Trial, read_spec

BEST_SHOWN = 5
"""Trials that views list as the best."""
Status = Literal["done", "failed", "interrupted"]


@dataclass(frozen=True)
class State:
    """Where a study stands, and why it ended in words.

    A study that ended before this was recorded is ``done`` if its trials show it, else ``not running``.
    """

    status: Status | Literal["running", "not running"]
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}" if self.reason and self.reason != self.status else self.status


def write_state(place: Place, state: State) -> None:
    """Record where the study stands; a driver that dies leaves it ``running`` without a lock, which is ``interrupted``."""
    write_whole(place.outcome_json, json.dumps(asdict(state)))


def read_state(study: StudyData, rows: Sequence[Trial]) -> State:
    """Return where the study stands now; a driver that has ended its run but still holds the lock does not run it."""
    place = study.place
    owners = set(lock_owners(place))
    try:
        known: State | None = read_json(place.outcome_json, State, "`sweep run` writes it again")
    except DamagedFile as error:
        note(str(error))
        known = State("not running", "how the last run ended is not known")
    if owners - {(os.getpid(), socket.gethostname())} or (owners and (known is None or known.status == "running")):
        return State("running")
    if known is not None:
        return State("interrupted", "the run ended without closing the study") if known.status == "running" else known
    ended, total = [row for row in rows if row.ending.counts], study.budget.trials
    return State("done" if total is not None and len(ended) >= total and len(ended) == len(rows) else "not running")


@dataclass(frozen=True, repr=False)
class Outcome:
    """How a call of ``run`` ended."""

    status: Status
    rows: list[Trial]
    best: Trial | None
    baseline: Trial | None
    reason: str
    """Why the run ended, in words: the budget, the space, an interruption or a failure."""
    seconds: float
    undelivered: str = ""
    """What the tracker has not received yet and why, in words; empty where it has everything."""

    def __repr__(self) -> str:
        ended = sum(row.ending.counts for row in self.rows)
        best = f", best {self.best.value:.5g} (trial {self.best.number})" if self.best and self.best.values else ""
        missing = f"; {self.undelivered}" if self.undelivered else ""
        return f"<{self.status}: {ended} trials{best}; {self.reason}{missing}>"


class Switch:
    """Stops a run from another thread: pressed once, running trials checkpoint first; pressed twice, they end at once."""

    def __init__(self) -> None:
        self.pressed = 0
        self._interrupt: Callable[[], None] | None = None

    def press(self) -> None:
        """Ask the run to stop; a run that has not started yet stops as it starts."""
        self.pressed += 1
        if self._interrupt is not None:
            self._interrupt()

    def connect(self, interrupt: Callable[[], None]) -> None:
        """Call ``interrupt`` at every press, and now for every earlier one."""
        self._interrupt = interrupt
        for _ in range(self.pressed):
            interrupt()


class Watcher:
    """Follows a run in the driver's process; the driver calls its hooks, which do nothing by themselves."""

    def on_open(self, study: StudyData, rows: list[Trial]) -> None:
        """The study is open; ``rows`` are the trials of earlier runs."""

    def on_note(self, text: str) -> None:
        """A sentence about the study as a whole."""

    def on_event(self, event: Event) -> None:
        """An event of a trial."""

    def on_trial_end(self, row: Trial) -> None:
        """A trial ended and will not be retried, or it paused."""

    def on_confirmation(self, board: Board) -> None:
        """The confirmation's runs moved on: ``board`` has them as trials. Their other hooks are not called."""

    def on_close(self, outcome: Outcome) -> None:
        """The run is over."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """How far a running trial has got, according to its events."""

    params: Mapping[str, Any]
    confirm_of: int | None = None
    """The trial that it repeats, of a confirmation run."""
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
            whole = self if event.resumed else Moment(params=self.params, confirm_of=self.confirm_of)
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
    moment = Moment(params=trial.params, confirm_of=trial.confirm_of)
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
    """What a view of a study shows: its ended trials, and the moments of the running and the paused ones."""

    study: StudyData
    ended: dict[int, Trial] = field(default_factory=dict)
    running: dict[int, Moment] = field(default_factory=dict)
    paused: dict[int, Moment] = field(default_factory=dict)
    confirmation: Board | None = None
    """The confirmation's runs as trials, once it has begun."""
    began: float = field(default_factory=time.time)
    """When the run began, in seconds since the epoch."""
    _confirms: dict[int, int | None] = field(default_factory=dict)
    """Of a confirmation: run → the trial that it repeats."""
    _from: tuple[float, float, float] | None = None
    """When the board began to look, what was done then, and the seconds that ``budget.hours`` left."""

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
            if row.ending.counts or row.ending is Ending.paused:
                self.end(row)
            elif row.ending is Ending.running:
                self.paused.pop(row.number, None)
                self.running[row.number] = read_moment(self.study.place, row)

    def add(self, event: Event) -> None:
        """Move the event's trial on."""
        if isinstance(event, Started) and event.trial not in self.running:
            params, of = _hyperparameters(self.study.place, event.trial), self._confirms.get(event.trial)
            new = Moment(params=params, confirm_of=of)
            self.running[event.trial] = self.paused.pop(event.trial, new)
        if event.trial in self.running:
            self.running[event.trial] = self.running[event.trial].after(event)

    def end(self, row: Trial) -> None:
        """Move a trial that ended or paused from the running ones to those."""
        moment = self.running.pop(row.number, None) or self.paused.pop(row.number, None)
        if row.ending is Ending.paused:
            known = moment is not None and moment.evaluation >= max(row.intermediate, default=0)
            self.paused[row.number] = moment if moment and known else read_moment(self.study.place, row)
        if row.ending.counts:
            self.ended[row.number] = row

    @property
    def total(self) -> int | None:
        """Trials in the budget."""
        return self.study.budget.trials

    @property
    def done(self) -> float:
        """Trials done; a running or paused trial counts as the share of its schedule that is done."""
        shares = (fraction(self.study, moment) or 0.0 for moment in (*self.running.values(), *self.paused.values()))
        return len(self.ended) + sum(shares)

    def seconds_left(self) -> float | None:
        """Return the time left at the speed since the first call; None where it or the number of trials is unknown."""
        now, done = time.monotonic(), self.done
        if self._from is None:
            spent = read_spent(self.study.place) if self.study.budget.hours else None
            limit = 3600 * (self.study.budget.hours or math.inf) - (spent.seconds if spent else 0.0)
            self._from = now, done, limit
        began, before, limit = self._from
        if self.total is None or done <= before:
            return None
        return max(0.0, min((now - began) * (self.total - done) / (done - before), limit - (now - began)))

    @property
    def stages(self) -> list[Board]:
        """The search and, once it has begun, the confirmation."""
        return [self, self.confirmation] if self.confirmation else [self]

    def count(self) -> str:
        """Return how many are done, for example ``3/8`` or ``2/6 confirmed``."""
        done = len(self.ended)
        return (words.plural(done, "trial") if self.total is None else f"{done}/{self.total}") + (
            " confirmed" * bool(self._confirms)
        )

    def clock(self) -> str:
        """Return the time spent and, while it goes on and its speed is known, the time left."""
        over, left = (self.confirmation.began, None) if self.confirmation else (time.time(), self.seconds_left())
        return words.span(int(over - self.began)) + (f", {words.time_left(left)}" if left else "")

    def counts(self) -> str:
        """Return how trials ended and how many have not, for example ``8 complete, 3 pruned, 2 running``."""
        going = {Ending.running: len(self.running), Ending.paused: len(self.paused)}
        said = [endings(self.answer.rows), *(f"{count} {ending}" for ending, count in going.items() if count)]
        return ", ".join(filter(None, said))

    @property
    def answer(self) -> Answer:
        """The answer so far."""
        return Answer(self.study, sorted(self.ended.values(), key=lambda row: row.number))

    @property
    def top(self) -> list[Trial]:
        """The trials that views list: the best or, with several goals, members of the Pareto front."""
        return self.answer.top(BEST_SHOWN)

    def best(self) -> str:
        """Return the best so far in words, for example ``best 0.874 (trial 7)``; empty while there is none."""
        answer = self.answer
        best = answer.winners
        if answer.several:
            return f"Pareto front of {len(best)}" if best else ""
        return f"best {words.value(best[0].value)} (trial {best[0].number})" if best else ""


def confirming(study: StudyData, place: Place, total: int, rows: Sequence[Trial]) -> Board:
    """Return the board of a study's confirmation, whose ``total`` runs lie at ``place``."""
    budget = study.budget.model_copy(update={"trials": total})
    runs = study.model_copy(update={"name": place.name, "budget": budget}).at(study.home)
    board = Board.at_start(runs, rows)
    board._confirms = {row.number: row.confirm_of for row in rows}
    return board


def _hyperparameters(place: Place, number: int) -> dict[str, Any]:
    """Return the hyperparameters in a trial's spec; empty while it has none."""
    spec = read_spec(place.trial(number))
    return dict(spec.hyperparameters) if spec else {}
