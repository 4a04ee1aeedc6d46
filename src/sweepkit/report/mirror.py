"""The trials as an Optuna study in memory, which Optuna can judge and draw."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import optuna
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweepkit.report.evidence import Evidence, configuration
from sweepkit.search.samplers import distribution, quiet_optuna
from sweepkit.study.objective import Direction
from sweepkit.study.parameters import Scalar
from sweepkit.study.samplers import make_pruner
from sweepkit.study.space import Dimension
from sweepkit.trial.trial import Ending, Trial

STATES = {
    Ending.complete: TrialState.COMPLETE,
    Ending.pruned: TrialState.PRUNED,
    Ending.running: TrialState.RUNNING,
    Ending.stopped: TrialState.RUNNING,
    Ending.waiting: TrialState.WAITING,
}
"""Ending → Optuna's state; the others count as failed, so that no penalty value is taken for a measured one."""


def optuna_study(evidence: Evidence) -> optuna.Study:
    """Return an Optuna study with these trials, under their own numbers, its parameters named by their dimensions.

    Dimensions that only ever had one value are left out: there is nothing to learn from them or to draw.
    """
    goals = evidence.study.objective.goals
    known = {row.number: configuration(evidence.study, row) for row in evidence.rows}
    seen: dict[str, set[object]] = {}
    for each in known.values():
        for key, (_, label) in each.items():
            seen.setdefault(key, set()).add(label)
    with quiet_optuna():
        made = empty(evidence.study.name, [goal.direction for goal in goals])
        made.set_metric_names([goal.metric for goal in goals])
        for number in range(max(known, default=-1) + 1):
            row = next((row for row in evidence.rows if row.number == number), None)
            if row is None:
                made.add_trial(create_trial(state=TrialState.FAIL))
                continue
            chosen = {key: pair for key, pair in known[number].items() if len(seen[key]) > 1}
            made.add_trial(_trial(row, len(goals), chosen))
    return made


def empty(name: str, directions: Sequence[Direction]) -> optuna.Study:
    """Return an Optuna study in memory, made without a line in Optuna's log."""
    loud = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(
            study_name=name, directions=list(directions), sampler=RandomSampler(), pruner=NopPruner()
        )
    finally:
        optuna.logging.set_verbosity(loud)


def _trial(row: Trial, goals: int, chosen: Mapping[str, tuple[Dimension, Scalar]]) -> FrozenTrial:
    state = STATES.get(row.ending, TrialState.FAIL)
    able = len(row.values) == goals and all(map(math.isfinite, row.values))
    if state == TrialState.COMPLETE and not able:
        state = TrialState.FAIL
    return create_trial(
        state=state,
        values=list(row.values) if able and state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
        params={key: label for key, (_, label) in chosen.items()},
        distributions={key: distribution(dimension.parameter) for key, (dimension, _) in chosen.items()},
        intermediate_values=dict(row.intermediate),
    )


def pruned_at(evidence: Evidence, row: Trial) -> int | None:
    """Return the evaluation at which the pruner stops ``row`` when it competes with all other trials, None for never.

    A trial that came early met no competition. All trials are replayed in their order, ``row`` last.
    """
    spec = evidence.study.pruner
    ended = {each.number: each for each in evidence.rows if each.ending in (Ending.complete, Ending.pruned)}
    with quiet_optuna():
        study = empty(evidence.study.name, [evidence.goal.direction])
        trials = [study.ask() for _ in range(max(ended) + 1)]  # Hyperband's brackets go by name and number
        for number in [*(number for number in sorted(ended) if number != row.number), row.number]:
            for step, value in ended[number].intermediate.items():
                trials[number].report(value, step)
                study.pruner = make_pruner(spec.type, spec.options)
                if trials[number].should_prune() and number == row.number:
                    return step
            _tell(study, trials[number], ended[number])
    return None


def _tell(study: optuna.Study, trial: optuna.Trial, row: Trial) -> None:
    reached = list(row.intermediate.values())
    if row.ending is Ending.pruned:
        study.tell(trial, state=TrialState.PRUNED)
    elif reached:
        study.tell(trial, reached[-1])
    else:
        study.tell(trial, state=TrialState.FAIL)


def importances(study: optuna.Study, goal: int = 0) -> dict[str, float]:
    """Return each dimension's share (of 1) in what sets good trials apart in a goal, the largest first.

    PED-ANOVA (Watanabe et al. 2023, https://arxiv.org/abs/2304.10255), Optuna's default, which knows conditional
    parameters; empty while there are too few trials to compare.
    """
    several = len(study.directions) > 1
    # Of one goal among several Optuna is handed the values alone, and takes the lowest to be the best.
    sign = -1.0 if study.directions[goal] == StudyDirection.MAXIMIZE else 1.0
    try:
        with quiet_optuna():
            warnings.filterwarnings("ignore", category=UserWarning, module="optuna")  # says so, and that trials are few
            found = optuna.importance.get_param_importances(
                study, target=(lambda trial: sign * float(trial.values[goal])) if several else None
            )
    except (ValueError, RuntimeError):
        return {}
    if not any(found.values()):
        return {}
    return {name: float(share) for name, share in found.items() if math.isfinite(share)}
