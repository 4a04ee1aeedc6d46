"""Sampler, pruner and budget: options by Optuna's own names, and what cannot work together. Knows no evaluations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sweepkit.check.fields import Field
from sweepkit.check.fields.searchers import PRUNERS, pruner_options, sampler_options
from sweepkit.check.rules.values import mismatch
from sweepkit.study.errors import Problem, nearest
from sweepkit.study.parameters import Choice, Int
from sweepkit.study.space import dimensions
from sweepkit.study.study import StudyData

_LIMITS: Mapping[str, tuple[float, float]] = {
    # As the constructors of Optuna 5 check them; they would only do so when the study already runs.
    "n_startup_trials": (0, float("inf")),
    "n_ei_candidates": (1, float("inf")),
    "population_size": (2, float("inf")),
    "mutation_prob": (0, 1),
    "crossover_prob": (0, 1),
    "swapping_prob": (0, 1),
    "popsize": (2, float("inf")),
    "percentile": (0, 100),
    "n_warmup_steps": (0, float("inf")),
    "interval_steps": (1, float("inf")),
    "n_min_trials": (1, float("inf")),
    "min_resource": (1, float("inf")),
    "max_resource": (1, float("inf")),
    "reduction_factor": (2, float("inf")),
    "min_early_stopping_rate": (0, float("inf")),
    "bootstrap_count": (0, float("inf")),
    "patience": (0, float("inf")),
    "min_delta": (0, float("inf")),
    "p_threshold": (0, 1),
    "n_startup_steps": (0, float("inf")),
    "perturbation_interval": (1, float("inf")),
    "burn_in_period": (0, float("inf")),
    "quantile_fraction": (0, 0.5),
    "resample_probability": (0, 1),
}


def check_searching(study: StudyData) -> list[Problem]:
    """Return what is wrong with the sampler, the pruner's options, the budget and the goals together."""
    return [*_sampler(study), *_pruner(study), *_budget(study)]


def _options(path: str, kind: str, given: Mapping[str, Any], known: Mapping[str, Field]) -> Iterator[Problem]:
    for name, value in given.items():
        if name not in known:
            listed = f"; its options are {', '.join(known)}" if known else "; it has none"
            yield Problem(f"{path}.{name}", f"{kind} has no such option{nearest(name, known) or listed}")
            continue
        wrong = mismatch(name, known[name], value)
        low, high = _LIMITS.get(name, (float("-inf"), float("inf")))
        if not wrong and isinstance(value, (int, float)) and not low <= value <= high:
            wrong = (
                f"expected {low:g} or more, got {value}"
                if high == float("inf")
                else f"expected {low:g} to {high:g}, got {value}"
            )
        if wrong:
            yield Problem(f"{path}.{name}", wrong)
    for name, field in known.items():
        if field.required and name not in given:
            yield Problem(path, f"{kind} needs the option {name}")


def _sampler(study: StudyData) -> Iterator[Problem]:
    kind, given = study.sampler.type, study.sampler.options
    yield from _options("sampler", kind, given, sampler_options(kind))
    if kind == "tpe" and given.get("group") is True and given.get("multivariate") is False:
        yield Problem("sampler.group", "group needs multivariate; leave multivariate: false out")
    if kind == "cmaes":
        on = [name for name in ("use_separable_cma", "with_margin", "lr_adapt") if given.get(name) is True]
        if len(on) > 1:
            yield Problem("sampler", f"{' and '.join(on)} exclude each other")
        if len(study.objective.goals) > 1:
            yield Problem("sampler.type", "cmaes knows one metric only; for several take nsga2, tpe or gp")
        numeric = [
            d for d in dimensions(study.space).values() if not isinstance(d.parameter, Choice) and not d.conditions
        ]
        if study.space and len(numeric) < 2:
            yield Problem(
                "sampler.type",
                "cmaes needs at least two parameters with low and high outside of branches "
                f"(the others are drawn at random), got {', '.join(d.name for d in numeric) or 'none'}; tpe takes any",
            )
    if kind == "grid":
        for dimension in dimensions(study.space).values():
            parameter = dimension.parameter
            if not isinstance(parameter, Choice) and (parameter.log or parameter.step is None):
                yield Problem(dimension.path, "the grid sampler needs choices here, or a step without log")


def _pruner(study: StudyData) -> Iterator[Problem]:
    kind, given = study.pruner.type, study.pruner.options
    if kind in PRUNERS or kind == "none" or study.pruner.population:
        yield from pruner_problems("pruner", kind, given)
    if kind != "none" and study.objective.metrics is not None and study.objective.prune_on is None:
        names = ", ".join(goal.metric for goal in study.objective.goals)
        yield Problem("objective.prune_on", f"a pruner looks at one metric; name it with prune_on, one of {names}")
    if kind == "none" and study.objective.prune_on is not None:
        yield Problem("objective.prune_on", "there is no pruner that could look at it; add pruner or leave it out")


def pruner_problems(path: str, kind: str, given: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with a pruner's options, the wrapped pruner of ``patient`` included."""
    yield from _options(path, kind, given, pruner_options(kind))
    if kind == "threshold":
        lower, upper = given.get("lower"), given.get("upper")
        if lower is None and upper is None:
            yield Problem(path, "threshold needs lower, upper or both")
        elif isinstance(lower, (int, float)) and isinstance(upper, (int, float)) and lower > upper:
            yield Problem(path, f"lower must not be above upper, got lower={lower} and upper={upper}")
    extent = {"asha": "min_resource", "hyperband": "max_resource"}.get(kind)
    count = given.get("bootstrap_count", 0)
    if extent and isinstance(count, int) and count > 0 and given.get(extent, "auto") == "auto":
        yield Problem(f"{path}.bootstrap_count", f"needs {extent} as a number, got auto")
    inner = given.get("wrapped_pruner")
    inner = {"type": inner} if isinstance(inner, str) else inner
    if kind == "patient" and isinstance(inner, Mapping):
        wrapped = inner.get("type")
        if wrapped not in PRUNERS or wrapped == "patient":
            others = [name for name in PRUNERS if name != "patient"]
            yield Problem(f"{path}.wrapped_pruner", f"type is one of {', '.join(others)}, got {wrapped}")
        else:
            options = {name: value for name, value in inner.items() if name != "type"}
            yield from pruner_problems(f"{path}.wrapped_pruner", str(wrapped), options)


def _budget(study: StudyData) -> Iterator[Problem]:
    budget = study.budget
    ends = (budget.trials, budget.hours, budget.gpu_hours, budget.target)
    if not study.space:
        if study.baseline is None and not study.enqueue:
            yield Problem("space", "is empty; say what may vary (name → low and high, or choices)")
    elif all(end is None for end in ends) and study.sampler.type != "grid":
        yield Problem("budget", "has no end; give trials, hours, gpu_hours or target")
    if budget.target is not None and study.objective.metrics is not None:
        yield Problem("budget.target", "belongs to studies with one metric; leave it out")


def grid_size(study: StudyData) -> int | None:
    """Return how many combinations an unconditional space of choices and steps has, None where it cannot be counted."""
    size = 1
    for dimension in dimensions(study.space).values():
        parameter = dimension.parameter
        if dimension.conditions or (isinstance(parameter, Choice) and parameter.branches):
            return None
        if isinstance(parameter, Choice):
            size *= len(parameter.choices)
        elif isinstance(parameter, Int):
            size *= (parameter.high - parameter.low) // parameter.step + 1
        elif parameter.step is not None:
            size *= int((parameter.high - parameter.low) / parameter.step + 1e-9) + 1
        else:
            return None
    return size
