"""Plays a study through with made-up trials that take what measured ones took. Knows no process.

What a pruner will do is not known before; it is played through: the study's own pruner sees made-up trials whose values
differ from trial to trial and, by a third of that, from one evaluation to the next. A sampler that learns is taken to
propose, once it has begun to, the better of two.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from sweepkit.study.study import StudyData
from sweepkit.trial.measured import Measured

PLAYED = 10
"""So many made-up studies are averaged,"""
PLAYED_TRIALS = 60
"""and a longer one is taken to go on as its first trials did."""
JITTER = 0.3
"""Standard deviation between a trial's evaluations, of that between trials."""


@dataclass(frozen=True)
class Played:
    """Averages of made-up studies."""

    seconds: float
    trial_seconds: float
    evaluations: float


def trials_of(study: StudyData) -> int | None:
    """Return how many trials the search will have, None where nothing says."""
    from sweepkit.search.samplers import combinations

    given = study.budget.trials
    if not study.sampler.kind.enumerates:
        return given
    grid = len(combinations(study))
    return grid if given is None else min(grid, given)


def makespan(seconds: Sequence[float], runs: int, slots: int) -> float:
    """Return how long ``runs`` runs take on slots, each as long as one of ``seconds``, taken in turns.

    >>> makespan([2.0], 5, 2)
    6.0
    """
    free = [0.0] * slots
    for number in range(runs):
        heapq.heapreplace(free, free[0] + seconds[number % len(seconds)])
    return max(free)


def play(study: StudyData, measured: Sequence[Measured], trials: int, slots: int) -> Played:
    """Return averages of made-up studies of so many trials on slots, judged by the study's own pruner."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    count = min(trials, PLAYED_TRIALS)
    games = [_game(study, measured, count, slots, random.Random(number)) for number in range(PLAYED)]
    seconds, trial_seconds, evaluations = (fmean(numbers) for numbers in zip(*games, strict=True))
    return Played(seconds + (trials - count) * trial_seconds / slots, trial_seconds, evaluations)


def _game(
    study: StudyData, measured: Sequence[Measured], trials: int, slots: int, dice: random.Random
) -> tuple[float, float, float]:
    """Play one study; return its seconds, and a trial's seconds and evaluations on average."""
    import optuna

    pruner = _pruner(study)
    random_ones = study.sampler.options.get("n_startup_trials", 10)
    learning_from = random_ones if study.sampler.kind.learns else trials
    # Prune by Optuna's own rules, in its own order: what a trial is judged by are the trials before it and beside it.
    game = optuna.create_study(storage=optuna.storages.InMemoryStorage(), direction="maximize", pruner=pruner)
    spent, evaluated = 0.0, 0
    waiting: list[tuple[float, int]] = []
    running: dict[int, tuple[Any, Measured, float, float, int]] = {}
    started, now = 0, 0.0

    def start() -> None:
        nonlocal started
        one = measured[started % len(measured)] if started < len(measured) else dice.choice(measured)
        skill = max(dice.gauss(0, 1) for _ in range(1 if started < learning_from else 2))
        running[started] = (game.ask(), one, skill, now, 1)
        heapq.heappush(waiting, (now + one.until(1), started))
        started += 1

    for _ in range(min(slots, trials)):
        start()
    while waiting:
        now, number = heapq.heappop(waiting)
        trial, one, skill, begun, evaluation = running[number]
        value = skill + dice.gauss(0, JITTER)
        trial.report(value, evaluation)
        evaluated += 1
        pruned = evaluation < one.evaluations and trial.should_prune()
        if evaluation < one.evaluations and not pruned:
            running[number] = (trial, one, skill, begun, evaluation + 1)
            heapq.heappush(waiting, (begun + one.until(evaluation + 1), number))
            continue
        state = optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE
        game.tell(trial, None if pruned else value, state=state)
        spent += one.until(evaluation)
        if started < trials:
            start()
    return now, spent / trials, evaluated / trials


def _pruner(study: StudyData) -> Any:
    """The study's pruner, or none where what it does depends on the metric's own scale."""
    import optuna

    from sweepkit.study.samplers import make_pruner

    scale = study.pruner.type in ("threshold", "wilcoxon", "patient")
    return optuna.pruners.NopPruner() if scale else make_pruner(study.pruner.type, study.pruner.options)
