"""Drives one study's trials, the same way on every backend: what starts next, what an event means, when to stop.

Every event goes to the trial's log, the search, the tracker and the watcher.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sweepkit.backends import Scheduler
from sweepkit.backends.checkpoints import Checkpoints
from sweepkit.driver.clock import Clock
from sweepkit.driver.limits import Limits
from sweepkit.driver.population import Population
from sweepkit.driver.retention import Retention
from sweepkit.report.watch import Watcher
from sweepkit.search.search import Search
from sweepkit.search.strategy import TimeLeft
from sweepkit.study.errors import FULL_DISK, StudyFailed
from sweepkit.study.files import cause_kind
from sweepkit.study.paths import CONSOLE
from sweepkit.study.study import StudyData
from sweepkit.trackers import tracker_of
from sweepkit.trackers.courier import Courier
from sweepkit.trial.events import Checkpointed, Evaluated, Event, Finished, Started
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Ending, Reason, Trial, TrialSpec

SAME_FAILURES = 3
"""Trials in a row that fail with the same cause before the study stops."""

LOSSES = 20
"""Restarts of a trial whose machine was lost; these do not count as the trial's own crashes."""

ABANDONED = 5
"""Consecutive starts without progress, each ended by the driver's death, after which a trial fails.

Drivers also die for other reasons, such as preemption; at random moments that rarely happens to one trial so often.
"""

DONE = "all trials of the budget are done"


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What the trials of a run have in common."""

    gpus: float = 0.0
    """GPUs of one trial; a shared GPU counts by its share."""
    slots: int = 0
    """Trials at a time; 0 where slots come and go (a cluster)."""
    splits_batches: bool = False
    """Whether a trial that ran out of memory may be retried with a smaller micro-batch."""
    model_bytes: float = 0.0
    """Size of a model on disk; 0 when unknown."""
    scheduler: Scheduler | None = None
    """Decides at the meetings of population-based training; None without a population."""


class StudySession:
    """The session of one study; implements :class:`sweepkit.backends.Session`."""

    def __init__(self, study: StudyData, search: Search, *, courier: Courier, watch: Watcher, setup: Setup) -> None:
        self._study = study
        self._place = search.place
        self._search = search
        self._courier = courier
        self._watch = watch
        self._setup = setup
        limit = study.budget.disk_gb
        self._checkpoints = Checkpoints(
            self._place,
            limit_bytes=limit * 1e9 if limit else None,
            paused_bytes=study.checkpoints.paused_gb and study.checkpoints.paused_gb * 1e9,
            model_bytes=setup.model_bytes,
            pinned=tracker_of(study, place=self._place).registered(),
        )
        self._retention = Retention(study, search, self._checkpoints, courier=courier, watch=watch)
        self._population = Population(study, search, self._checkpoints, setup.scheduler if search.proposes else None)
        self._clock = Clock(study.place, slots=setup.slots)
        self._limits = self._limits_by(self._clock)
        self._since: dict[int, float] = {}
        """Trial → when it started or was last evaluated."""
        self._pausing: set[int] = set()
        """Trials that were told to stop, as they pause."""
        self._logs: dict[int, TrialLog] = {}
        self._trials: dict[int, Trial] = {}
        self._retries: list[TrialSpec] = []
        self._same_failures: tuple[str, int] = ("", 0)
        self._budget_reached_at: float | None = None
        self._reason = ""
        self.killing = False
        self._interrupted = self._announced = False
        self._left = self._take_over()

    @property
    def stopping(self) -> bool:
        """Whether running trials should checkpoint and stop."""
        reached = self._budget_reached_at
        grace = self._study.budget.grace_minutes * 60
        return self._interrupted or (reached is not None and time.monotonic() - reached >= grace)

    @property
    def interrupted(self) -> bool:
        """Whether the study was asked to stop."""
        return self._interrupted

    @property
    def reason(self) -> str:
        """Why nothing more is started, in words; empty while trials are."""
        return "interrupted" if self._interrupted else self._reason

    def interrupt(self) -> None:
        """Stop the study. First call: running trials checkpoint and stop; second: they end at once."""
        self.killing = self._interrupted
        self._interrupted = True

    def next(self) -> TrialSpec | None:
        """Return the next trial to start: a retry, one an earlier driver left, or a new one; None when there is none now."""
        if self._interrupted or self._budget_reached():
            return None
        if self._retries:
            return self._retries.pop(0)
        while True:
            while self._left:
                spec = self._resume(self._left.pop(0))
                if spec is not None:
                    return spec
            trial = self._search.ask(time=self._time_left())
            for note in self._search.news():
                self._watch.on_note(note)
            if trial is not None:
                if trial.intermediate:
                    self._look(trial)
                    self._limits.reopen(self._log(trial.number).seconds)
                return self._spec(trial)
            self._left = self._take_over()  # of a driver that died meanwhile
            if self._left:
                continue
            if self._population.complete(self._trials):
                self._retries = [self._spec(self._trials[number]) for number in self._population.meet()]
                return self._retries.pop(0)
            exhausted = "every configuration of the space was tried" if self._search.exhausted else ""
            late = self._limits.too_short() if self._search.late else ""
            self._reason = self._search.enough or self._reason or exhausted or late or DONE
            return None

    def handle(self, event: Event) -> str | None:
        """Process an event; return the answer to an evaluation: ``continue``, ``lean``, ``prune`` or ``stop``.

        ``lean``: continue, but do not write the resumable checkpoint, for which there is no room.
        """
        if isinstance(event, Finished):
            self._finish(event)
            return None
        self._log(event.trial).append(event)
        self._watch.on_event(event)
        self._courier.poke()
        if isinstance(event, Checkpointed):
            self._checkpoints.wrote(event.trial, event.role, Path(event.path))
        since = self._since.get(event.trial)
        if isinstance(event, (Started, Evaluated)):
            self._since[event.trial] = event.at
        if not isinstance(event, Evaluated):
            return None
        took = None if since is None else event.at - since
        word = self._search.report(event, seconds=took, time=self._time_left())
        if word == "prune" or self._crowded(event, pauses=word == "pause"):
            return "prune"
        resumable = self._retention.before_writing(event.trial)
        if word == "pause":
            self._pausing.add(event.trial)
        if word == "pause" or self.stopping or self._population.meets(event.number):
            return "stop"
        return "continue" if resumable else "lean"

    def tick(self) -> float:
        """Check the budgets and save the time spent; return the seconds after which to call again at the latest."""
        if self._interrupted and not self._announced:  # here and not in interrupt(): a signal handler must not print
            self._announced = True
            self._watch.on_note("stopping: running trials checkpoint first; Ctrl-C again ends them at once")
        self._budget_reached()
        self._clock.save(at_least_every=10.0)
        return 1.0

    def close(self) -> None:
        """Store members that still wait as stopped, and save the time spent; a full disk only costs the last seconds."""
        try:
            for log in map(self._log, self._population.waiting):
                if log.finished:
                    self._search.tell(replace(log.finished, seconds=log.seconds), attempts=log.attempts)
            self._clock.save()
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise

    def end_paused(self) -> None:
        """Prune what is still paused, as the study ends; not while another driver's trials may let some go on."""
        if not self._search.elsewhere:
            for number in self._search.paused_trials():
                self._prune(number, f"was not continued: {self.reason}")

    def _crowded(self, event: Evaluated, *, pauses: bool) -> bool:
        """Prune paused trials for whose checkpoints there is no room; return whether it is this one's turn."""
        while crowded := self._retention.choose_to_end(event.trial, pauses=pauses):
            number, why = crowded
            if number == event.trial:
                self._search.decide(event, "prune", why)
                return True
            self._prune(number, why)
        return False

    def _prune(self, number: int, why: str) -> None:
        """Prune a paused trial, unless another driver lets it go on."""
        if trial := self._search.close_paused(number, why):
            log = self._log(number)
            self._trials[number] = trial
            self._limits.reopen(log.seconds)
            step = log.evaluations[-1].step if log.evaluations else 0
            self._end(number, Ending.pruned, cause=why, step=step, values=trial.values)

    def _log(self, number: int) -> TrialLog:
        if number not in self._logs:
            self._logs[number] = TrialLog(self._place.trial(number))
        return self._logs[number]

    def _time_left(self) -> TimeLeft | None:
        """Return what the budgets leave; once one is used up, whichever, what runs has the grace alone."""
        if self._budget_reached_at is None:
            return self._limits.left(self._search.courses.training_seconds)
        grace = self._study.budget.grace_minutes * 60
        return TimeLeft(0.0, max(0.0, grace - (time.monotonic() - self._budget_reached_at)))

    def _limits_by(self, clock: Clock) -> Limits:
        """Return the limits of time by this clock, with what ran before."""
        study = self._study if self._search.proposes else self._study.model_copy(update={"confirm": None})

        def running() -> float:
            return sum(log.seconds for log in self._logs.values())

        limits = Limits(study, clock, running, slots=self._setup.slots, gpus=self._setup.gpus)
        for row in self._search.trials():
            if row.ending.counts or row.ending is Ending.paused:
                limits.end(row.seconds or 0.0, row.ending)
        return limits

    def _budget_reached(self) -> bool:
        """Whether a budget other than the number of trials is used up; announces it once."""
        if self._budget_reached_at is None and (limit := self._used_up()):
            self._budget_reached_at, self._reason = time.monotonic(), limit
            self._watch.on_note(limit)
        return self._budget_reached_at is not None

    def _used_up(self) -> str:
        """Return in words which budget is used up; empty while none is."""
        if used_up := self._limits.used_up(self._search.courses.training_seconds):
            return used_up
        target = self._retention.answer().target if self._study.budget.target is not None else None
        return f"budget.target: trial {target.number} reached {target.value:g}" if target else ""

    def _take_over(self) -> list[Trial]:
        """Return the trials that dead drivers left unfinished; reading their logs counts the GPU time they used."""
        left = self._search.take_over()
        for trial in left:
            self._look(trial)
        return left

    def _look(self, trial: Trial) -> None:
        """Look whether a trial that ran before can go on, and say so where it starts over."""
        self._checkpoints.folder(trial.number)
        if lost := self._log(trial.number).lost(trial.intermediate):
            self._watch.on_note(f"trial {trial.number} starts over: {lost}")
            self._checkpoints.forget(trial.number)

    def _resume(self, trial: Trial) -> TrialSpec | None:
        """Return the next attempt of a trial that a dead driver left; None where it turns out to have ended, or waits."""
        self._trials[trial.number] = trial
        log = self._log(trial.number)
        evaluations = log.evaluations
        if log.abandoned >= ABANDONED:
            cause = f"its driver died {log.abandoned} times while it ran, without any progress in between"
            self._end(trial.number, Ending.failed, reason=Reason.driver_lost, cause=cause)
            return None
        if log.finished and log.finished.ending not in (Ending.stopped, Ending.paused):
            self._finish(log.finished, logged=True)
            return self._retries.pop() if self._retries and self._retries[-1].number == trial.number else None
        if evaluations and (word := self._search.report(last := evaluations[-1], time=self._time_left())) != "continue":
            ending = Ending.pruned if word == "prune" else Ending.paused
            self._end(trial.number, ending, step=last.step, values=self._search.value_so_far(last))
            return None
        return None if self._population.holds(trial.number, evaluations) else self._spec(trial)

    def _end(self, number: int, ending: Ending, **facts: Any) -> None:
        """End a trial that does not run, without starting it again."""
        seconds = self._log(number).open_seconds
        self._finish(Finished(trial=number, at=time.time(), ending=ending, seconds=seconds, **facts))

    def _spec(self, trial: Trial) -> TrialSpec:
        """Return the spec of a trial's next attempt, which resumes from its last complete checkpoint if it has one."""
        self._trials[trial.number] = trial
        folder = self._checkpoints.folder(trial.number)
        folder.mkdir(parents=True, exist_ok=True)
        log = self._log(trial.number)
        self._checkpoints.recover(trial.number)
        checkpoint, step = self._checkpoints.resumable(trial.number)
        hyperparameters = dict(trial.params)
        for change in self._population.schedule(trial.number):
            if change.step > step:
                gone = f"trial {trial.number}: the checkpoint that its schedule continues from (step {change.step}) is gone"
                raise StudyFailed(f"{gone}; a population cannot continue without it: start over with --fresh")
            hyperparameters |= change.hyperparameters
            if log.append(change):
                self._watch.on_event(change)
        own = self._study.seed + trial.number if self._study.seed_per_trial else None
        return TrialSpec(
            number=trial.number,
            hyperparameters=hyperparameters,
            drawn=dict(trial.drawn),
            directory=str(folder),
            attempt=log.attempts + 1,
            resume_from=str(checkpoint) if checkpoint else None,
            evaluations=tuple(
                {"number": e.number, "step": e.step, "values": list(e.values)}
                for e in log.evaluations
                if e.step <= step
            ),
            micro_batch_divisor=2**log.out_of_memory if self._setup.splits_batches else 1,
            seed=own if trial.seed is None else trial.seed,
        )

    def _finish(self, event: Finished, *, logged: bool = False) -> None:
        """Decide what follows an attempt's end: a retry, the trial's ending, or the end of the study."""
        log = self._log(event.trial)
        if event.reason is Reason.disk_full:
            raise StudyFailed(f"{event.cause} (trial {event.trial}); free some space and run the same command")
        if self.killing and event.ending == Ending.failed and not logged:
            event = replace(event, ending=Ending.stopped)
        if event.trial in self._pausing and event.ending == Ending.stopped:
            event = replace(event, ending=Ending.paused)
        self._pausing.discard(event.trial)
        since = self._since.pop(event.trial, None)
        if not logged:
            log.append(event)
        self._courier.poke()
        self._watch.on_event(event)
        total = replace(event, seconds=log.seconds)
        if event.ending == Ending.stopped:
            if self.stopping or not self._population.holds(event.trial, log.evaluations):
                self._search.tell(total, attempts=log.attempts)
            return
        if self._retries_left(event, log):
            self._retries.append(self._spec(self._trials[event.trial]))
            return
        self._limits.end(total.seconds, Ending(total.ending))
        facts: dict[str, Any] = {}
        if started := log.started:
            facts |= {"unproved": list(started.unproved), "proved": list(started.proved)}
            if since is not None:
                facts["start_seconds"] = max(0.0, event.seconds - (event.at - started.at))
        self._search.tell(total, attempts=log.attempts, facts=facts)
        row = self._search.row(event.trial)
        self._retention.end(row)
        self._watch.on_trial_end(row)
        self._courier.poke()
        self._logs.pop(event.trial).close()
        self._trials.pop(event.trial)
        self._count_failure(event)

    def _retries_left(self, event: Finished, log: TrialLog) -> bool:
        """Whether the trial gets another attempt; a smaller micro-batch has to divide the batch size."""
        retries = self._study.retries
        if event.ending == Ending.infeasible and event.neighbours:
            self._watch.on_note(f"trial {event.trial} is retried with fewer trials beside it on its GPU: {event.cause}")
            return True
        if event.ending == Ending.infeasible:
            name, searched = "per_device_train_batch_size", self._trials[event.trial].params
            batch = int(searched.get(name, self._study.training.get(name, 8)))
            splits = self._setup.splits_batches and batch % 2**log.out_of_memory == 0
            return splits and log.out_of_memory <= retries.out_of_memory
        if event.reason is Reason.lost:
            return log.losses <= LOSSES
        if event.ending == Ending.failed and event.reason not in (Reason.deadline, Reason.driver_lost):
            return log.crashes <= retries.crash
        return False

    def _count_failure(self, event: Finished) -> None:
        """Stop the study when trials keep failing with the same cause, numbers in it aside."""
        if event.ending != Ending.failed:
            self._same_failures = ("", 0)
            return
        kind, count = cause_kind(event.cause), self._same_failures[1]
        self._same_failures = (kind, count + 1 if kind == self._same_failures[0] else 1)
        if self._same_failures[1] >= SAME_FAILURES:
            times, console = f"{SAME_FAILURES} trials in a row", self._place.trial(event.trial) / CONSOLE
            raise StudyFailed(f"{times} failed with the same cause: {event.cause} (see {console})")
