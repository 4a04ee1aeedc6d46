"""Runs one study on a virtual clock: the real session, search, samplers and pruners; a trial is a look-up of its curve."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial

from quality.tasks import Task, TaskSet
from sweepkit.backends.virtual import Known, Lap, VirtualBackend
from sweepkit.driver.clock import Clock
from sweepkit.driver.earlier import Source, source_of, take
from sweepkit.driver.session import Setup, StudySession
from sweepkit.report.answer import Answer
from sweepkit.report.watch import Watcher
from sweepkit.search.proposer import Proposer
from sweepkit.search.samplers import Nearby
from sweepkit.search.search import Search
from sweepkit.study.configurations import Configuration
from sweepkit.study.study import StudyData
from sweepkit.trackers import tracker_of
from sweepkit.trackers.courier import Courier
from sweepkit.trial.trial import Ending, Reason, TrialSpec

MEMORY = Path("/dev/shm")
CHOSEN_FROM = 200
"""Unused configurations of a table that a proposal is chosen among."""


@dataclass(frozen=True)
class Terms:
    """Under what terms the strategies are compared; costs are in evaluations."""

    budget: float = 200
    workers: int = 4
    start_cost: float = 0.0
    """Of every start of a process, also of one that goes on with a paused trial."""
    noise: float = 0.0
    """Standard deviation of a loss that is searched by, as a share of the task's median minus its best."""
    baseline: bool = True
    known_end: bool = False
    """Whether the budget is one of hours, so that a strategy knows when it ends."""
    start_from: str = ""
    """``others``: an earlier study of each other task, 40 trainings long; ``shuffled``: their ranks are mixed up."""


@dataclass
class Course:
    """What a run came to: the cost at which each trial was complete, with its final loss, and how many were started."""

    complete: list[tuple[float, float]] = field(default_factory=list)
    trials: int = 0
    repeated: int = 0
    """Evaluations that were made again."""
    source: Source | None = None
    """What later studies take from it."""

    def regret(self, task: Task, cost: float) -> float:
        """Return the regret of the best complete trial at this cost; 1 before the first."""
        known = [loss for spent, loss in self.complete if spent <= cost]
        return task.regret(min(known)) if known else 1.0

    def cost_to(self, task: Task, regret: float) -> float:
        """Return the cost at which a complete trial first had this regret; infinite if none had."""
        return min((spent for spent, loss in self.complete if task.regret(loss) <= regret), default=math.inf)


class _Curves:
    """What the configurations of a task do on the virtual clock, an evaluation in a second."""

    def __init__(self, task: Task, terms: Terms, seed: int) -> None:
        self._task = task
        self._terms = terms
        self._seed = seed

    def look_up(self, spec: TrialSpec) -> Known:
        """Return a trial's course, with the noise of the terms; the first loss that is not finite ends it."""
        curve = self._task.curve(spec.hyperparameters)
        finite = next((place for place, loss in enumerate(curve) if not math.isfinite(loss)), len(curve))
        laps = [Lap(1.0, {"loss": loss}, (loss,)) for loss in self._noisy(spec.number, curve[:finite])]
        if finite == len(curve):
            return Known(laps, self._terms.start_cost)
        diverged = {"ending": Ending.diverged, "reason": Reason.not_finite, "cause": "the loss is not finite"}
        return Known(laps, self._terms.start_cost, 1.0, diverged)

    def _noisy(self, number: int, losses: Sequence[float]) -> Sequence[float]:
        if not self._terms.noise:
            return losses
        best, median = self._task.scale
        chances = (
            np.random.default_rng([self._seed, number, at]).standard_normal() for at in range(1, len(losses) + 1)
        )
        return [
            loss + self._terms.noise * (median - best) * chance for loss, chance in zip(losses, chances, strict=True)
        ]


class _VirtualClock(Clock):
    """The time that passed on the virtual clock."""

    def __init__(self, backend: VirtualBackend) -> None:
        self._backend = backend

    @property
    def seconds(self) -> float:
        return self._backend.now


class TableProposer(Proposer):
    """Proposes measured configurations only, none twice: each time among 200 of them, the same for every strategy.

    A strategy that chooses among given configurations chooses among these; of a sampler that makes up its own, it is the
    nearest one.
    """

    def __init__(self, study: StudyData, known: Mapping[str, Any], task: TaskSet, seed: int) -> None:
        super().__init__(study, known)
        self._task = task
        self._seed = seed
        self._offered: dict[int, list[int]] = {}
        self._turn = 0

    def sample(
        self, sampler: BaseSampler, study: optuna.Study, trial: FrozenTrial, fixed: Mapping[str, Any]
    ) -> Configuration | None:
        """Return the configuration nearest to the sampler's proposal; a random one for a random sampler."""
        if fixed:
            return super().sample(sampler, study, trial, fixed)
        offered = self.offered(study, trial.number)
        if isinstance(sampler, (Nearby, RandomSampler)):
            row = offered[self._turn % len(offered)]
            self._turn += 1
        else:
            proposed = super().sample(sampler, study, trial, fixed)
            assert proposed is not None
            place = self._task.shares([proposed.params])[0]
            row = min(offered, key=lambda each: float(np.linalg.norm(self._task.places[each] - place)))
        return Configuration(self._task.points[row], self._task.points[row])

    def offered(self, study: optuna.Study, number: int) -> Sequence[int]:
        """Return the rows to choose trial ``number`` from."""
        if number not in self._offered:
            used = {tuple(each.params.values()) for each in study.get_trials(deepcopy=False)}
            rows = np.random.default_rng([self._seed, number]).permutation(len(self._task.points))
            free = [int(row) for row in rows if tuple(self._task.points[row].values()) not in used]
            self._offered, self._turn = {number: free[:CHOSEN_FROM]}, 0
        return self._offered[number]


def run(task: Task, strategy: Mapping[str, Any], terms: Terms, seed: int, sources: Sequence[Source] = ()) -> Course:
    """Search one task with one strategy (``sampler``, ``pruner``) from a seed, after these earlier studies."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        whole = {
            "name": "virtual",
            "task": {"path": "virtual.py:Curves"},
            "objective": {"metric": "loss", "direction": "minimize", "value": "last"},
            "space": task.space,
            "tracking": {"uri": "none"},
            **({"baseline": task.baseline} if terms.baseline else {}),
            **strategy,
        }
        if terms.known_end:
            whole["budget"] = {
                "hours": terms.budget / terms.workers / 3600,
                "grace_minutes": 0,
                **whole.get("budget", {}),
            }
        study = StudyData.model_validate(whole).at(Path(folder))
        study = study.model_copy(update={"sampler": study.sampler.model_copy(update={"seed": seed})}).at(Path(folder))
        study.place.folder.mkdir(parents=True)
        known = {"eval_strategy": "epoch", "num_train_epochs": task.evaluations}
        table = None if task.fitted or not isinstance(task, TaskSet) else task
        proposer = TableProposer(study, known, table, seed) if table else Proposer(study, known)
        search = Search(study, InMemoryStorage(), proposer)
        if sources:
            search.start_from(lambda: take(study, known, sources, lambda text: None))
        backend = VirtualBackend(terms.workers, _Curves(task, terms, seed).look_up, limit=terms.budget)
        courier = Courier(tracker_of(study), warn=print)
        session = StudySession(study, search, courier=courier, watch=Watcher(), setup=Setup(slots=terms.workers))
        session._limits = session._limits_by(_VirtualClock(backend))
        backend.drive(session)
        rows = search.trials()
        complete = [
            (spent, task.curve(rows[number].params)[-1])
            for spent, number, ending in backend.ended
            if ending is Ending.complete
        ]
        return Course(complete, len(backend.reached), backend.repeated, source_of(Answer(study, rows), task.name))
