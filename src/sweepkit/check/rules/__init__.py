"""The rules of the static check, one module for each part of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sweepkit.check.rules.adapters import check_adapters
from sweepkit.check.rules.formulas import check_formulas
from sweepkit.check.rules.names import check_names, consumers_of, convert_numbers, known_values
from sweepkit.check.rules.population import check_population
from sweepkit.check.rules.pruning import check_pruner
from sweepkit.check.rules.reporting import check_reporting
from sweepkit.check.rules.schedules import check_metrics, check_schedule
from sweepkit.check.rules.searching import check_searching
from sweepkit.check.rules.task import check_backend, check_task, find_shortages
from sweepkit.check.rules.values import check_misplaced, mismatch
from sweepkit.study.configurations import Configurations
from sweepkit.study.errors import Problem, StudyFileError
from sweepkit.study.space import visit
from sweepkit.study.study import StudyData


@dataclass(frozen=True)
class Checked:
    """A study that breaks no rule, its numbers cast to the types of their fields."""

    study: StudyData
    known: Mapping[str, Any]
    """Name → value that the study fixes, or the default of what consumes the name; see :func:`known_values`."""
    warnings: tuple[Problem, ...] = ()
    """What the study needs and this machine lacks, and what breaks no rule but is worth knowing."""
    idle: tuple[Problem, ...] = ()
    """Of its problems those by which its pruner is idle: an error in a study file, for a rehearsal (``--set``) a warning."""


def check(study: StudyData) -> Checked:
    """Return the checked study. Raises StudyFileError with every broken rule; that a pruner is idle is a warning."""
    problems, checked = examine(study)
    if wrong := [problem for problem in problems if problem not in checked.idle]:
        raise StudyFileError(wrong)
    return replace(checked, warnings=(*checked.warnings, *checked.idle))


def find_problems(study: StudyData) -> list[Problem]:
    """Return every broken rule; none means that the study may start."""
    return examine(study)[0]


def examine(study: StudyData) -> tuple[list[Problem], Checked]:
    """Return every broken rule, and the study as checked; where a rule is broken, only messages may use that."""
    consumers, problems = consumers_of(study)
    study = convert_numbers(study, consumers)
    known = known_values(study, consumers)
    problems += check_task(study, consumers)
    problems += check_names(study, consumers)
    problems += check_adapters(study, consumers)
    problems += check_formulas(study, consumers, known)
    problems += check_searching(study)
    wrong, most_evaluations = check_schedule(study, known)
    problems += wrong
    idle: list[Problem] = []
    for rule in (check_pruner, check_population):
        wrong, without_effect = rule(study, most_evaluations)
        problems += [*wrong, *without_effect]
        idle += without_effect
    if consumers.task is not None:
        problems += check_metrics(study, consumers.task.reported(study.task.options, study.home))
    configurations = Configurations(study, known)
    problems += configurations.baseline_problems()
    for index, values in enumerate(study.enqueue):
        problems += configurations.problems(values, f"enqueue[{index}]")
    problems += check_backend(study)
    problems += check_reporting(study)
    misplaced = {problem.path: problem for problem in check_misplaced(study)}
    problems = [misplaced.get(problem.path, problem) for problem in problems] + list(misplaced.values())
    notes = [] if problems else [Problem("baseline", note) for note in configurations.baseline_notes()]
    return list(dict.fromkeys(problems)), Checked(study, known, (*find_shortages(study), *notes), tuple(idle))


def wrong_values(study: StudyData, values: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with one trial's values, which may lie outside of the space: names and types alone."""
    consumers, _ = consumers_of(study)
    searched = {each.name for each in visit(study.space)}
    problems = []
    for name, value in values.items():
        field, wrong = consumers.resolve(name)
        if field is not None:
            wrong = mismatch(name, field, value)
        if wrong and (field is not None or name not in searched):
            problems.append(Problem(name, wrong))
    return problems
