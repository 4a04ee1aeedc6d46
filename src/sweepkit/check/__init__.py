"""The static check of a study: every rule that can be held without running anything, all broken ones at once.

Knows no file and no line (``load`` adds those), and imports none of torch, transformers, optuna, ray or mlflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweepkit.check.configurations import check_baseline, check_configuration
from sweepkit.check.consumers import Consumers, consumers_of, known_values
from sweepkit.check.formulas import check_formulas
from sweepkit.check.places import check_backend, check_task
from sweepkit.check.schedules import check_metrics, check_schedule, evaluations
from sweepkit.check.searching import check_searching
from sweepkit.check.spaces import check_names
from sweepkit.check.values import typed
from sweepkit.errors import Problem
from sweepkit.study import Study

__all__ = [
    "NOT_YET",
    "Consumers",
    "check",
    "check_configuration",
    "consumers_of",
    "evaluations",
    "known_values",
    "typed",
]

NOT_YET: Mapping[str, str] = {
    "pruner.type=pbt": "population-based training comes with the ray backend, which is not built yet",
    "pruner.type=pb2": "population-based bandits come with the ray backend, which is not built yet",
}
"""``path`` (any value) or ``path=value`` → what a study is told that asks for a feature not built yet."""


def check(study: Study) -> list[Problem]:
    """Return every broken rule; none means that the study may start.

    Numbers are judged as :func:`typed` fits them to their fields, whether or not the study went through it.
    """
    consumers, problems = consumers_of(study)
    study = typed(study, consumers)
    known = known_values(study, consumers)
    later = _not_yet(study)
    problems += check_task(study, consumers)
    names = check_names(study, consumers)
    problems += names
    problems += check_formulas(study, consumers, known)
    problems += check_searching(study)
    problems += check_schedule(study, known)
    if consumers.task is not None:
        problems += check_metrics(study, consumers.task.reported(study.task.options))
    problems += check_baseline(study, known)
    for index, values in enumerate(study.enqueue):
        problems += check_configuration(study, values, f"enqueue[{index}]")
    problems += check_backend(study)
    told = {problem.path for problem in later}
    return list(dict.fromkeys([*later, *(problem for problem in problems if problem.path not in told)]))


def _not_yet(study: Study) -> list[Problem]:
    found = []
    for key, message in NOT_YET.items():
        path, _, wanted = key.partition("=")
        value: Any = study
        for part in path.split("."):
            value = getattr(value, part, None)
        if value is not None and (not wanted or str(value) == wanted):
            found.append(Problem(path, message))
    return found
