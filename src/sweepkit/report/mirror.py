"""What Optuna says of a study's trials, copied into a study in memory: importances, and whom the pruner would stop."""

from __future__ import annotations

import math
import warnings

import optuna
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from optuna.trial import TrialState, create_trial

from sweepkit.report.evidence import Evidence, configuration
from sweepkit.search.samplers import distribution, quiet_optuna
from sweepkit.study.objective import Goal
from sweepkit.study.samplers import make_pruner
from sweepkit.trial.trial import Ending, Trial


def importances(evidence: Evidence, goal: int = 0) -> dict[str, float]:
    """Return each dimension's share (of 1) in what sets good complete trials apart in a goal, the largest first.

    PED-ANOVA (Watanabe et al. 2023, https://arxiv.org/abs/2304.10255), Optuna's default, which knows conditional
    parameters; empty while there are too few trials to compare. Dimensions that only ever had one value are left out.
    """
    rows = sorted(evidence.ranked, key=lambda row: row.number)
    chosen = [configuration(evidence.study, row) for row in rows]
    seen: dict[str, set[object]] = {}
    for each in chosen:
        for key, (_, label) in each.items():
            seen.setdefault(key, set()).add(label)
    with quiet_optuna():
        study = _empty(evidence.study.name, evidence.study.objective.goals[goal])
        for row, each in zip(rows, chosen, strict=True):
            varied = {key: pair for key, pair in each.items() if len(seen[key]) > 1}
            domains = {key: distribution(dimension.parameter) for key, (dimension, _) in varied.items()}
            params = {key: label for key, (_, label) in varied.items()}
            study.add_trial(create_trial(value=row.values[goal], params=params, distributions=domains))
        warnings.filterwarnings("ignore", category=UserWarning, module="optuna")  # experimental; few trials
        try:
            found = optuna.importance.get_param_importances(study)
        except (ValueError, RuntimeError):
            return {}
    return {name: float(share) for name, share in found.items() if math.isfinite(share)} if any(found.values()) else {}


def pruned_at(evidence: Evidence, row: Trial) -> int | None:
    """Return the evaluation at which the pruner stops ``row`` when it competes with all other trials, None for never.

    A trial that came early met no competition. All trials are replayed in their order, ``row`` last. As in a run, it is not
    pruned at its final evaluation.
    """
    spec = evidence.study.pruner
    ended = {each.number: each for each in evidence.rows if each.ending in (Ending.complete, Ending.pruned)}
    with quiet_optuna():
        study = _empty(evidence.study.name, evidence.goal)
        trials = [study.ask() for _ in range(max(ended) + 1)]  # Hyperband's brackets go by name and number
        for number in [*(number for number in sorted(ended) if number != row.number), row.number]:
            reached = evidence.study.objective.course(ended[number].intermediate)
            for step, value in reached.items():
                trials[number].report(value, step)
                study.pruner = make_pruner(spec.kind, spec.options)
                if trials[number].should_prune() and number == row.number and step < max(row.intermediate):
                    return step
            if ended[number].ending is Ending.pruned or not reached:
                state = TrialState.PRUNED if ended[number].ending is Ending.pruned else TrialState.FAIL
                study.tell(trials[number], state=state)
            else:
                study.tell(trials[number], list(reached.values())[-1])
    return None


def _empty(name: str, goal: Goal) -> optuna.Study:
    """Return an Optuna study in memory, made without a line in Optuna's log."""
    loud = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(
            study_name=name, direction=goal.direction, sampler=RandomSampler(), pruner=NopPruner()
        )
    finally:
        optuna.logging.set_verbosity(loud)
