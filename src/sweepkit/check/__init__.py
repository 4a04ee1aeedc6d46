"""The static check of a study: every rule that can be held without running anything, all broken ones at once.

Knows no file and no line (``load`` adds those), and imports none of torch, transformers, optuna, ray or mlflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweepkit.check.rules.configurations import check_baseline, check_configuration
from sweepkit.check.rules.formulas import check_formulas
from sweepkit.check.rules.names import Consumers, consumers_of, known_values
from sweepkit.check.rules.population import check_population
from sweepkit.check.rules.schedules import check_metrics, check_schedule, evaluations
from sweepkit.check.rules.searching import check_searching
from sweepkit.check.rules.spaces import check_names
from sweepkit.check.rules.task import check_backend, check_task
from sweepkit.check.rules.values import mismatch, typed
from sweepkit.study.errors import Problem
from sweepkit.study.space import walk
from sweepkit.study.study import StudyData

__all__ = [
    "Consumers",
    "check",
    "check_configuration",
    "consumers_of",
    "evaluations",
    "known_values",
    "typed",
    "wrong_values",
]


def check(study: StudyData) -> list[Problem]:
    """Return every broken rule; none means that the study may start.

    Numbers are judged as :func:`typed` fits them to their fields, whether or not the study went through it.
    """
    consumers, problems = consumers_of(study)
    study = typed(study, consumers)
    known = known_values(study, consumers)
    problems += check_task(study, consumers)
    names = check_names(study, consumers)
    problems += names
    problems += check_formulas(study, consumers, known)
    problems += check_searching(study)
    problems += check_population(study)
    problems += check_schedule(study, known)
    if consumers.task is not None:
        problems += check_metrics(study, consumers.task.reported(study.task.options))
    problems += check_baseline(study, known)
    for index, values in enumerate(study.enqueue):
        problems += check_configuration(study, values, f"enqueue[{index}]")
    problems += check_backend(study)
    return list(dict.fromkeys(problems))


def wrong_values(study: StudyData, values: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with one trial's values, which may lie outside of the space: names and types alone."""
    consumers, _ = consumers_of(study)
    searched = {name for _, name, _ in walk(study.space)}
    problems = []
    for name, value in values.items():
        field, wrong = consumers.resolve(name)
        if field is not None:
            wrong = mismatch(name, field, value)
        if wrong and (field is not None or name not in searched):
            problems.append(Problem(name, wrong))
    return problems
