"""Population-based training: what its members can change while they train, and what it cannot go together with."""

from __future__ import annotations

from collections.abc import Iterator

from sweepkit.study.backends import backends_with
from sweepkit.study.errors import Problem
from sweepkit.study.parameters import Choice, Expression, Float
from sweepkit.study.study import StudyData

PERTURBABLE = ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm")
"""What a trial that goes on from a checkpoint can train with anew: what the optimizer and its steps read each time."""


def check_population(study: StudyData) -> list[Problem]:
    """Return what a population cannot be trained with; nothing for a study that has none."""
    return list(_problems(study)) if study.pruner.population else []


def _problems(study: StudyData) -> Iterator[Problem]:
    kind = study.pruner.type
    if not study.backend.kind.scheduler:
        yield Problem(
            "pruner.type", f"{kind} needs backend.type {backends_with('scheduler')}, got {study.backend.type}"
        )
    factors = study.pruner.options.get("perturbation_factors")
    if isinstance(factors, list) and not (len(factors) == 2 and all(_positive(factor) for factor in factors)):
        yield Problem("pruner.perturbation_factors", f"expected two numbers above 0, such as [1.2, 0.8], got {factors}")
    for name, parameter in study.space.items():
        path = f"space.{name}"
        if name not in PERTURBABLE:
            yield Problem(
                path,
                f"cannot change while a trial trains; {kind} searches {', '.join(PERTURBABLE)}; fix it in training",
            )
        elif isinstance(parameter, Expression):
            yield Problem(path, f"{kind} changes values one by one; give it low and high of its own")
        elif isinstance(parameter, Choice) and (kind == "pb2" or not all(map(_number, parameter.choices))):
            plain = "low and high" if kind == "pb2" else "low and high, or a list of numbers"
            yield Problem(path, f"{kind} needs {plain} here")
        elif not isinstance(parameter, (Float, Choice)):
            yield Problem(path, f"{kind} needs low and high here")
    trials = study.budget.trials
    if trials is None or trials < 2:
        found = "got none" if trials is None else f"got {trials}"
        yield Problem("budget.trials", f"{kind} trains so many members side by side; expected at least 2, {found}")
    if study.checkpoints.every != "evaluation":
        yield Problem("checkpoints.every", f"members of {kind} go on from checkpoints; expected evaluation, got never")
    if study.storage != "journal":
        yield Problem("storage", f"one driver has all members of {kind}; expected journal, got a storage URL")
    if study.constraints:
        yield Problem("constraints", f"{kind} changes values without looking at constraints; leave them out")
    if study.confirm is not None:
        yield Problem("confirm", f"trains with fixed values, and what {kind} finds is a schedule; leave it out")


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
