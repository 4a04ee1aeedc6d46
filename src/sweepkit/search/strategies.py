"""Chooses the strategy of a study, and what no strategy may prune."""

from __future__ import annotations

import math
from collections.abc import Callable

from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from sweepkit.search.history import History
from sweepkit.search.promotion import Promotion
from sweepkit.search.proposer import Proposer
from sweepkit.search.pruning import Pruning
from sweepkit.search.read_only import ReadOnlyStorage
from sweepkit.search.rungs import STRATEGIES
from sweepkit.search.strategy import Seen, Strategy
from sweepkit.study.samplers import make_pruner, resolve_auto
from sweepkit.study.space import labels
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Ending


def strategy_of(
    study: StudyData,
    history: History,
    view: Callable[[FrozenTrial], ReadOnlyStorage],
    proposer: Proposer,
    pruner: BasePruner | None,
) -> Strategy:
    """Return the strategy of a study with this history; ``view`` is the storage as a pruner sees it that judges a trial.

    ``pruner`` replaces the study's own.
    """
    spec, goals, least = study.pruner, study.objective, study.confirm.top if study.confirm else 1
    if goals.metrics is not None and goals.prune_on is None:
        return Strategy()
    if pruner is None and spec.kind.pauses:
        from sweepkit.search.freeze_thaw import FreezeThaw  # half a second of SciPy, which others do without

        known = history.records.earlier()
        earlier = [(labels(study.space, values), score) for values, score in (known.ranked if known else ())]
        return FreezeThaw(proposer.distributions, least=least, worth=study.budget.worth, earlier=earlier)
    if pruner is None and spec.pauses:
        return Promotion(spec.options, least=least)
    if pruner is None and not spec.stops:
        return Strategy()

    if pruner is None and (cls := STRATEGIES.get(spec.kind.source)):
        return cls(spec.kind, spec.options, history.records, history, goals)

    def make(evaluations: int | None) -> BasePruner:
        return pruner or make_pruner(spec.kind, resolve_auto(spec.kind, spec.options, evaluations))

    return Pruning(history.records, view, make)


def wants_more(study: StudyData, seen: Seen, number: int, spent: int) -> bool:
    """Whether fewer trials than are to be confirmed, the baseline aside, would reach their end if this one were pruned.

    It runs, and could still be finished in time. ``spent`` trials of the budget were started.
    """
    if study.confirm is None:
        return False
    coming, rounds = (study.budget.trials or math.inf) - spent, min(seen.trainings, 1.0 + study.confirm.top)
    if min(coming, rounds) > study.confirm.top:
        return False  # without a look at all trials
    if not seen.may_finish(seen.courses[number], at=True):
        return False
    coming = min(coming, seen.standing.running * max(0, math.floor(rounds)))
    return seen.hopeful(Ending.running, Ending.paused) - 1 + coming < study.confirm.top
