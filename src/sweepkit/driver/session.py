"""The driver of one study: what to try next, what a trial's words mean, when it is enough. The same for every backend.

Passes every event on to the trial's log, the search, the tracker and whoever watches. Knows no process and no MLflow.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sweepkit.backends import Scheduler
from sweepkit.backends.checkpoints import Shelf
from sweepkit.driver.budget import Spent, reached
from sweepkit.driver.population import Population
from sweepkit.report.watch import Watcher
from sweepkit.search.search import Asked, Search
from sweepkit.study.errors import FULL_DISK, StudyFailed
from sweepkit.study.study import StudyData
from sweepkit.trackers import Courier, tracker_of
from sweepkit.trial.events import Checkpointed, Evaluated, Event, Finished
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Ending, Reason, Trial, TrialSpec

ALIKE = 3
"""So many trials in a row that fail with the same cause end the study."""

LOSSES = 20
"""So often a trial is started again that lost its machine; this says nothing against the trial."""


@dataclass(frozen=True)
class Given:
    """What is known of a run's trials before the first one starts."""

    gpus: float = 0.0
    """GPUs of one trial; a shared one counts by its share."""
    slots: int = 0
    """Trials at a time; 0 where slots come and go (a cluster)."""
    splits_batches: bool = False
    """Whether a trial that ran out of memory may be tried with a smaller micro-batch."""
    model_bytes: float = 0.0
    """Size of a model on disk; 0 when unknown."""
    scheduler: Scheduler | None = None
    """Who decides where trials meet that train side by side (population-based training)."""


class Driver:
    """Drives one study; a :class:`sweepkit.backends.Session`."""

    def __init__(self, study: StudyData, search: Search, *, courier: Courier, watch: Watcher, given: Given) -> None:
        self._study = study
        self._place = search.place
        self._search = search
        self._courier = courier
        self._watch = watch
        self._given = given
        limit = study.budget.disk_gb
        keep = study.checkpoints.keep if search.proposes else 0
        self._shelf = Shelf(
            self._place,
            keep=keep,
            limit_bytes=limit * 1e9 if limit else None,
            model_bytes=given.model_bytes,
            pinned=tracker_of(study, place=self._place).registered(),
        )
        self._population = Population(study, search, self._shelf, given.scheduler if search.proposes else None)
        self._spent = Spent(study.place.folder / "spent.json", slots=given.slots)
        self._trial_seconds = sum((row.seconds or 0.0) for row in search.trials() if row.ending.counts)
        self._logs: dict[int, TrialLog] = {}
        self._asked: dict[int, Asked] = {}
        self._again: list[TrialSpec] = []
        self._alike: tuple[str, int] = ("", 0)
        self._enough_since: float | None = None
        self.reason = ""
        self.killing = False
        self._interrupted = self._told = False
        self._resumed = self._take_over()

    @property
    def stopping(self) -> bool:
        """Whether running trials are to checkpoint and stop."""
        grace = self._study.budget.grace_minutes * 60
        late = self._enough_since is not None and time.monotonic() - self._enough_since >= grace
        return self._interrupted or late

    @property
    def interrupted(self) -> bool:
        """Whether somebody asked the study to stop."""
        return self._interrupted

    def interrupt(self) -> None:
        """First call: running trials checkpoint and stop. Second: they end at once."""
        self.killing = self._interrupted
        self._interrupted = True
        self.reason = self.reason or "interrupted"

    def next(self) -> TrialSpec | None:
        """Return the next trial to start: a retry, one an earlier driver left, or a new one."""
        if self._interrupted or self._enough():
            return None
        if self._again:
            return self._again.pop(0)
        asked = None
        while asked is None:
            while self._resumed:
                spec = self._resume(self._resumed.pop(0))
                if spec is not None:
                    return spec
            asked = self._search.ask()
            if asked is None:
                self._resumed = self._take_over()  # what another driver left that died meanwhile
                if not self._resumed and self._population.all_there(self._asked):
                    self._again = [self._spec(self._asked[number]) for number in self._population.meet()]
                    return self._again.pop(0)
                if not self._resumed:
                    self.reason = self.reason or (
                        "every configuration of the space was tried"
                        if self._search.exhausted
                        else "all trials of the budget are done"
                    )
                    return None
        return self._spec(asked)

    def hear(self, event: Event) -> str | None:
        """Take an event to everybody who wants it; return the answer where the trial waits for one."""
        if isinstance(event, Finished):
            self._finish(event)
            return None
        self._log(event.trial).append(event)
        self._watch.on_event(event)
        self._courier.poke()
        if isinstance(event, Checkpointed):
            self._shelf.wrote(event.trial, event.role, Path(event.path))
        if not isinstance(event, Evaluated):
            return None
        if self._search.report(event):
            return "prune"
        going, resumable = self._shelf.before_writing(event.trial, self._ranked())
        self._drop(going)
        if self.stopping or self._population.meets(event.number):
            return "stop"
        return "continue" if resumable else "lean"

    def tick(self) -> float:
        """Look at budgets and save the time spent; say once that the study stops (a signal's handler must not print)."""
        if self._interrupted and not self._told:
            self._told = True
            self._watch.on_note("stopping: running trials checkpoint first; Ctrl-C again ends them at once")
        self._enough()
        self._spent.save(at_least_every=10.0)
        return 1.0

    def close(self) -> None:
        """Save what was spent (on a full disk the seconds since the last time are lost); who waits for others is stopped."""
        try:
            for log in map(self._log, self._population.waiting):
                if log.finished:
                    self._search.tell(log.finished, attempts=log.attempts)
            self._spent.save()
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise

    def _log(self, number: int) -> TrialLog:
        if number not in self._logs:
            self._logs[number] = TrialLog(self._place.trial(number))
        return self._logs[number]

    def _enough(self) -> bool:
        """Whether a budget other than the number of trials is reached; says so once."""
        if self._enough_since is None:
            what = reached(
                self._study,
                seconds=self._spent.seconds,
                gpu_seconds=self._gpu_seconds() if self._study.budget.gpu_hours else 0.0,
                best=self._search.best() if self._search.proposes else None,
            )
            if what:
                self._enough_since, self.reason = time.monotonic(), what
                self._watch.on_note(what)
        return self._enough_since is not None

    def _gpu_seconds(self) -> float:
        return self._given.gpus * (self._trial_seconds + sum(log.seconds for log in self._logs.values()))

    def _take_over(self) -> list[Asked]:
        """Return the trials an earlier driver left unfinished, their logs read: what they took counts."""
        left = self._search.unfinished()
        for asked in left:
            self._log(asked.number)
        return left

    def _resume(self, asked: Asked) -> TrialSpec | None:
        """Return how a left trial goes on; or end it, where only its driver had not noted yet that it had ended."""
        self._asked[asked.number] = asked
        log = self._log(asked.number)
        evaluations = log.evaluations
        if log.finished and log.finished.ending != Ending.stopped:
            self._finish(log.finished, logged=True)
            return self._again.pop() if self._again and self._again[-1].number == asked.number else None
        if evaluations and self._search.report(evaluations[-1]):
            last = evaluations[-1]
            self._finish(
                Finished(
                    trial=asked.number,
                    at=time.time(),
                    ending=Ending.pruned,
                    step=last.step,
                    values=self._search.value_so_far(last),
                )
            )
            return None
        return None if self._population.holds(asked.number, evaluations) else self._spec(asked)

    def _spec(self, asked: Asked) -> TrialSpec:
        """Return the spec of a trial's next attempt, going on from its last whole checkpoint where there is one."""
        self._asked[asked.number] = asked
        folder = self._place.trial(asked.number)
        folder.mkdir(parents=True, exist_ok=True)
        log = self._log(asked.number)
        self._shelf.recover(asked.number)
        checkpoint, step = self._shelf.resumable(asked.number)
        given = dict(asked.hyperparameters)
        for change in self._population.schedule(asked.number):
            given |= change.hyperparameters
            if log.append(change):
                self._watch.on_event(change)
        own = self._study.seed + asked.number if self._study.seed_per_trial else None
        return TrialSpec(
            number=asked.number,
            hyperparameters=given,
            drawn=dict(asked.params),
            directory=str(folder),
            attempt=log.attempts + 1,
            resume_from=str(checkpoint) if checkpoint else None,
            evaluations=tuple(
                {"number": e.number, "step": e.step, "values": list(e.values)}
                for e in log.evaluations
                if e.step <= step
            ),
            micro_batch_divisor=2**log.out_of_memory if self._given.splits_batches else 1,
            seed=own if asked.seed is None else asked.seed,
        )

    def _finish(self, event: Finished, *, logged: bool = False) -> None:
        """Decide what a trial's end means: another attempt, its ending, or the end of the study."""
        log = self._log(event.trial)
        if event.reason is Reason.disk_full:
            raise StudyFailed(f"{event.cause} (trial {event.trial}); free some and run the same command")
        if self.killing and event.ending == Ending.failed and not logged:
            event = replace(event, ending=Ending.stopped)
        if not logged:
            log.append(event)
        self._courier.poke()
        self._watch.on_event(event)
        if event.ending == Ending.stopped:
            if self.stopping or not self._population.holds(event.trial, log.evaluations):
                self._search.tell(event, attempts=log.attempts)
            return
        if self._tries_again(event, log):
            self._again.append(self._spec(self._asked[event.trial]))
            return
        total = replace(event, seconds=log.seconds)
        self._trial_seconds += total.seconds
        self._search.tell(total, attempts=log.attempts, facts=self._facts(log))
        row = self._search.row(event.trial)
        self._keep(row)
        self._spent.save()
        self._watch.on_trial_end(row)
        self._courier.poke()
        self._logs.pop(event.trial).close()
        self._asked.pop(event.trial)
        self._count_alike(event)

    def _tries_again(self, event: Finished, log: TrialLog) -> bool:
        retries = self._study.retries
        if event.ending == Ending.infeasible:
            name, given = "per_device_train_batch_size", self._asked[event.trial].hyperparameters
            batch = int(given.get(name, self._study.training.get(name, 8)))
            splits = self._given.splits_batches and batch % 2**log.out_of_memory == 0
            return splits and log.out_of_memory <= retries.out_of_memory
        if event.reason is Reason.lost:
            return log.losses <= LOSSES
        if event.ending == Ending.failed and event.reason is not Reason.deadline:
            return log.crashes <= retries.crash
        return False

    def _facts(self, log: TrialLog) -> Mapping[str, Any]:
        started = log.started
        return {} if started is None else {"unproved": list(started.unproved), "proved": list(started.proved)}

    def _keep(self, row: Trial) -> None:
        """Hold the shelf to its rule after a trial ended, and let the tracker follow."""
        self._shelf.ended(row.number, keeps_best=row.ending.ranks)
        self._drop(self._shelf.surplus(self._ranked()))
        if row.ending.ranks and os.path.lexists(self._place.trial(row.number) / "best"):
            self._courier.keep(row.number)

    def _ranked(self) -> list[int]:
        return [trial.number for trial in self._search.ranked()]

    def _drop(self, numbers: list[int]) -> None:
        for number in numbers:
            self._courier.drop(number)
            self._shelf.ended(number, keeps_best=False)

    def _count_alike(self, event: Finished) -> None:
        if event.ending != Ending.failed:
            self._alike = ("", 0)
            return
        cause, count = self._alike
        self._alike = (event.cause, count + 1 if event.cause == cause else 1)
        if self._alike[1] >= ALIKE:
            console = self._place.trial(event.trial) / "console.log"
            raise StudyFailed(f"{ALIKE} trials in a row failed alike: {event.cause} (see {console})")
