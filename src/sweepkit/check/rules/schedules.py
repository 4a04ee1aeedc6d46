"""Rules of the evaluation schedule: the objective needs evaluations, and a pruner as many of every trial."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from sweepkit.check.rules.formulas import draws
from sweepkit.study.errors import Problem, nearest
from sweepkit.study.formulas import names_in
from sweepkit.study.objective import COSTS
from sweepkit.study.parameters import Expression
from sweepkit.study.schedule import evaluations
from sweepkit.study.space import visit
from sweepkit.study.study import StudyData
from sweepkit.tasks.metrics import BUNDLED

_SCHEDULE = (
    "eval_strategy",
    "eval_steps",
    "eval_delay",
    "logging_steps",
    "max_steps",
    "num_train_epochs",
)
_STEPS_OF_AN_EPOCH = ("per_device_train_batch_size", "gradient_accumulation_steps", "dataloader_drop_last")
_FIXED = "fix it, or evaluate at fractions of the schedule (training: eval_strategy: steps, eval_steps: 0.2)"


def check_schedule(study: StudyData, known: Mapping[str, Any]) -> tuple[list[Problem], int | None]:
    """Return what is wrong with when trials evaluate, and the most evaluations of a trial, None where that is unknown."""
    if study.training.get("eval_strategy") == "no":
        message = "no leaves the objective without a value; choose epoch or steps"
        return [Problem("training.eval_strategy", message)], None
    problems = list(_unused_steps(study, known))
    try:
        relevant = _relevant(study)
        drawn = draws(study, {name: value for name, value in known.items() if name in relevant})
        counts = {evaluations(values) for values in drawn}
    except (ValueError, TypeError, ArithmeticError):
        return problems, None  # an expression or a value that has its own problem
    most = None if None in counts else max(count for count in counts if count is not None)
    mean_of = study.objective.mean_of
    if most == 0:
        return [*problems, Problem("training", "a trial would never be evaluated; check eval_delay")], None
    if most is not None and mean_of is not None and mean_of > most:
        message = f"expected a mean of at most {most}, the evaluations of a trial, got mean({mean_of})"
        problems.append(Problem("objective.value", message))
    if study.pruner.title != "none" and (uneven := list(_uneven(study, drawn))):
        return problems + uneven, None
    return problems, most


def _relevant(study: StudyData) -> set[str]:
    """Return the names that decide how often a trial evaluates, those in expressions included."""
    found = {*_SCHEDULE, *_STEPS_OF_AN_EPOCH}
    for place in visit(study.space):
        if isinstance(place.parameter, Expression):
            found |= names_in(place.parameter.expression)
    return found


def _unused_steps(study: StudyData, known: Mapping[str, Any]) -> Iterator[Problem]:
    searched = {place.name: place.path for place in visit(study.space)}
    if "eval_strategy" in searched or known.get("eval_strategy") != "epoch":
        return
    path = "training.eval_steps" if "eval_steps" in study.training else searched.get("eval_steps")
    if path:
        yield Problem(path, "has no effect while eval_strategy is epoch; add eval_strategy: steps to training")


def _uneven(study: StudyData, drawn: list[dict[str, Any]]) -> Iterator[Problem]:
    """Trials are compared by the number of the evaluation, so all must make equally many at the same fractions."""
    by_data = ("num_train_epochs", "max_steps", "eval_steps", *_STEPS_OF_AN_EPOCH)

    def plan(values: Mapping[str, Any]) -> tuple[Any, ...]:
        count = evaluations(values)
        return (count,) if count is not None else (None, *(repr(values.get(name)) for name in by_data))

    if len({plan(values) for values in drawn}) == 1:
        return
    known = {count for count in (evaluations(values) for values in drawn) if count is not None}
    spread = f" ({min(known)} to {max(known)})" if len(known) > 1 else ""
    reported = set()
    for place in visit(study.space):
        varies = len({repr(values.get(place.name)) for values in drawn}) > 1
        relevant = place.name in _SCHEDULE or (place.name in _STEPS_OF_AN_EPOCH and not known)
        if varies and relevant and place.name not in reported:
            reported.add(place.name)
            yield Problem(
                place.path,
                f"searching it gives trials different numbers of evaluations{spread}, by which the "
                f"{study.pruner.title} pruner compares them; {_FIXED}",
            )


def check_metrics(study: StudyData, reported: frozenset[str] | None) -> list[Problem]:
    """Return the objective's metrics that the task will never report."""
    if reported is None:
        return []
    several = study.objective.metrics is not None
    names = sorted(reported - {"eval_runtime", "eval_samples_per_second", "eval_steps_per_second"})
    return [
        Problem(
            f"objective.metrics[{index}].metric" if several else "objective.metric",
            f"the task reports {', '.join(names)}, got {goal.metric}{_meant(goal.metric, reported)}",
        )
        for index, goal in enumerate(study.objective.goals)
        if goal.metric not in (*reported, *COSTS)
    ]


def _meant(metric: str, reported: frozenset[str]) -> str:
    leaf = re.split(r"[/_ ]", metric.lower(), maxsplit=1)[-1]
    for name in (f"eval_{metric}", f"eval_{leaf}"):
        if name in reported:
            return f"; did you mean {name}?"
    bundled = next((name for name in (metric.removeprefix("eval_"), leaf) if name in BUNDLED), None)
    return f"; add {bundled} to task.metrics" if bundled else nearest(metric, [*reported, *COSTS])
