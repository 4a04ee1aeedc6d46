"""What the study's pruner would have done to a trial that came last. Knows trials' stored curves, and trains nothing."""

from __future__ import annotations

import optuna
from optuna.trial import FrozenTrial, TrialState

from sweepkit.report.evidence import Evidence
from sweepkit.report.mirror import empty, optuna_study
from sweepkit.search.samplers import knowingly
from sweepkit.study.samplers import make_pruner
from sweepkit.study.study import Direction
from sweepkit.trial.trial import Trial


def stopped_at(evidence: Evidence, row: Trial) -> int | None:
    """Return the evaluation at which the pruner would have stopped ``row``, had all other trials been there before it.

    A trial that came early met no competition; this is what it would have met later. The others' stored values are given
    to the pruner in the order they were tried, as far as they got. None: it would have been let through.
    """
    spec = evidence.study.pruner
    if spec.type == "none" or spec.population or not row.intermediate:
        return None
    with knowingly():
        study = optuna_study(evidence, fixed=True)
        replayed = empty(study.study_name, [_direction(evidence)])
        for trial in study.get_trials(deepcopy=False):
            replayed.add_trial(_begun(trial))
        ends = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
        for number in [*(number for number in ends if number != row.number), row.number]:
            end = ends[number]
            if end.state not in (TrialState.COMPLETE, TrialState.PRUNED):
                continue
            for step, value in end.intermediate_values.items():
                stop = _report(replayed, make_pruner(spec.type, spec.options), number, step, value)
                if number == row.number and stop:
                    return step
            last = list(end.intermediate_values.values())
            _end(replayed, number, end.state, last[-1] if last else None)
    return None


def _direction(evidence: Evidence) -> Direction:
    objective = evidence.study.objective
    return next((g.direction for g in objective.goals if g.metric == objective.prune_on), evidence.goal.direction)


def _begun(trial: FrozenTrial) -> FrozenTrial:
    if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
        return optuna.trial.create_trial(state=TrialState.FAIL)
    return optuna.trial.create_trial(
        state=TrialState.RUNNING, params=dict(trial.params), distributions=dict(trial.distributions)
    )


def _report(study: optuna.Study, pruner: optuna.pruners.BasePruner, number: int, step: int, value: float) -> bool:
    storage = study._storage
    trial_id = study.get_trials(deepcopy=False)[number]._trial_id
    storage.set_trial_intermediate_value(trial_id, step, value)
    return pruner.prune(study, storage.get_trial(trial_id))


def _end(study: optuna.Study, number: int, state: TrialState, value: float | None) -> None:
    trial_id = study.get_trials(deepcopy=False)[number]._trial_id
    if value is None:
        study._storage.set_trial_state_values(trial_id, TrialState.FAIL)
    else:
        study._storage.set_trial_state_values(trial_id, state, [value])
