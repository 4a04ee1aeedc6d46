"""Trials that pause and go on, as the session decides it. No process is started: trials are played by their events."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from optuna.storages import InMemoryStorage

from making import toy_study
from sweepkit.check import check
from sweepkit.driver.session import Setup, StudySession
from sweepkit.report.watch import Watcher
from sweepkit.search.proposer import Proposer
from sweepkit.search.search import Search
from sweepkit.trackers import tracker_of
from sweepkit.trackers.courier import Courier
from sweepkit.trial.events import Checkpointed, Evaluated, Event, Finished, Started
from sweepkit.trial.trial import Ending, Trial, TrialSpec
from toy_tasks import score

EVALUATIONS = 9
SPACE = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
HALVING = {"type": "asha", "promote": True, "reduction_factor": 3}


class Killed(Exception):
    """The driver dies here."""


class Play:
    """A study whose trials are played one at a time; each event may be the driver's last."""

    def __init__(self, project: Path, dies: Callable[[], bool] = lambda: False, **keys: Any) -> None:
        whole = {"space": SPACE, "pruner": HALVING, "budget": {"trials": 12}, **keys}
        self.study = toy_study(project, training={"num_train_epochs": EVALUATIONS}, **whole)
        self._known = check(self.study).known
        self._storage = InMemoryStorage()
        self._dies = dies
        self.steps: list[tuple[int, int, int]] = []
        """Trial, the evaluation that a process of it began after, and the one it ended with."""
        self.open()

    def open(self) -> None:
        """A new driver comes."""
        self.study.place.folder.mkdir(parents=True, exist_ok=True)
        self.search = Search(self.study, self._storage, Proposer(self.study, self._known))
        courier = Courier(tracker_of(self.study), warn=print)
        self.session = StudySession(self.study, self.search, courier=courier, watch=Watcher(), setup=Setup(slots=1))

    def handle(self, event: Event) -> str | None:
        if self._dies():
            raise Killed
        return self.session.handle(event)

    def play(self, spec: TrialSpec) -> None:
        """Train until the answer ends it."""
        first = done = len(spec.evaluations)
        number, rate, values = spec.number, spec.hyperparameters["learning_rate"], []
        self.handle(Started(trial=number, at=10.0 * done + 2, attempt=spec.attempt, resumed=done))
        answer: str | None = "continue"
        while done < EVALUATIONS and answer in ("continue", "lean"):
            done += 1
            values.append(score(rate, progress=done / EVALUATIONS))
            event = Evaluated(
                trial=number,
                at=10.0 * done + 2,
                number=done,
                step=done,
                epoch=float(done),
                metrics={"eval_score": values[-1]},
                values=(values[-1],),
                final=done == EVALUATIONS,
            )
            answer = self.handle(event)
            if answer in ("continue", "stop"):
                last = self.study.place.trial(number) / "last" / f"checkpoint-{done}"
                last.mkdir(parents=True, exist_ok=True)
                for other in set(last.parent.iterdir()) - {last}:
                    other.rmdir()
                self.handle(Checkpointed(trial=number, at=10.0 * done + 3, step=done, role="last", path=str(last)))
        ending = {"prune": Ending.pruned, "stop": Ending.stopped}.get(answer or "", Ending.complete)
        self.steps.append((number, first, done))
        seconds = 10.0 * (done - first) + 5
        values = values if ending is Ending.complete else []
        self.handle(Finished(trial=number, at=10.0 * done + 4, ending=ending, seconds=seconds, values=tuple(values[-1:])))

    def run(self) -> list[Trial]:
        """Run the study to its end, with a new driver after each death; return the rows."""
        while True:
            try:
                while (spec := self.session.next()) is not None:
                    self.play(spec)
                self.session.end_paused()
                return self.search.trials()
            except Killed:
                self.open()


def essence(rows: list[Trial]) -> list[tuple[Any, ...]]:
    return [(row.number, row.ending, row.params, row.values, row.decisions, row.cause) for row in rows]


def test_trials_pause_at_rungs_and_the_best_of_each_go_on(project: Path) -> None:
    play = Play(project)
    rows = play.run()
    print(*play.steps, sep="\n")
    for row in rows:
        print(row.number, row.ending, row.value, row.cause, row.decisions)



def test_decisions_do_not_depend_on_when_drivers_die(project: Path, tmp_path: Path) -> None:
    straight = essence(Play(project, name="straight").run())
    for seed in range(5):
        dice = Random(seed)
        play = Play(project, lambda: dice.random() < 0.1, name=f"killed-{seed}")
        assert essence(play.run()) == straight
