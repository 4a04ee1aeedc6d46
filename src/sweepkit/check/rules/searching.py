"""Rules of sampler, budget and goals. Options are judged by the signature and the constructor of Optuna's own class."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sweepkit.check.fields.describe import Field, parameters_of
from sweepkit.check.rules.values import mismatch
from sweepkit.study.errors import InputError, Problem, nearest
from sweepkit.study.parameters import Choice, Int
from sweepkit.study.paths import STUDY
from sweepkit.study.samplers import WINDOW, Sampler, Together
from sweepkit.study.space import dimensions
from sweepkit.study.study import AUTO, MLFLOW, StudyData

_SET_BY_SWEEPKIT = frozenset({"seed", "search_space", "source_trials"})
_WITHOUT_EFFECT = frozenset({"restart_strategy", "inc_popsize"})  # optuna 5: CmaEsSampler warns and ignores them
_LEAST = {"n_startup_trials": 0, "n_ei_candidates": 1, "popsize": 2, WINDOW: 250}
"""Lower limits that Optuna's constructors do not check."""

FEWEST_SEEDS = 3
"""Seeds from which on a confirmation may be judged."""

Make = Callable[[Mapping[str, Any]], object]
"""Constructs a sampler or a pruner from its options; raises ValueError or TypeError."""


def check_searching(study: StudyData) -> list[Problem]:
    """Return what is wrong with the sampler, the budget, the goals and the confirmation."""
    return [*_sampler(study), *_budget(study), *_confirmation(study), *_start_from(study)]


def options_of(cls: type | None) -> dict[str, Field]:
    """Return the options of an Optuna class that a study file can write."""
    return {
        name: field
        for name, field in (parameters_of(cls) if cls is not None else {}).items()
        if name not in _SET_BY_SWEEPKIT | _WITHOUT_EFFECT and field.kinds - {"none"}
    }


def sampler_options(row: Sampler) -> dict[str, Field]:
    """Return the options of a sampler with their defaults here. Raises InputError for a class that cannot be imported."""
    known = {
        name: replace(field, default=row.defaults.get(name, field.default))
        for name, field in options_of(row.cls()).items()
    }
    if row.window:
        about = "Trials that it sees beside the best ones, the newest."
        known[WINDOW] = Field(WINDOW, frozenset({"int"}), row.window, meaning=about)
    return known


def option_problems(
    path: str, kind: str, given: Mapping[str, Any], known: Mapping[str, Field], make: Make
) -> Iterator[Problem]:
    """Yield unknown, missing and wrongly typed options, then what the constructor refuses, option by option."""
    good: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            listed = f"; its options are {', '.join(known)}" if known else "; it has none"
            yield Problem(f"{path}.{name}", f"{kind} has no such option{nearest(name, known) or listed}")
        elif wrong := mismatch(name, known[name], value):
            yield Problem(f"{path}.{name}", wrong)
        elif isinstance(value, int) and value < _LEAST.get(name, value):
            yield Problem(f"{path}.{name}", f"expected {_LEAST[name]} or more, got {value}")
        else:
            good[name] = value
    missing = [name for name, field in known.items() if field.required and name not in given]
    for name in missing:
        yield Problem(path, f"{kind} needs the option {name}")
    while not missing and (refusal := _refusal(make, good)):
        blamed = next((name for name in good if _refusal(make, _without(good, name)) != refusal), None)
        yield Problem(f"{path}.{blamed}" if blamed else path, refusal)
        if blamed is None:
            break
        missing = [blamed] if known[blamed].required else []
        good.pop(blamed)


def _without(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != name}


def _refusal(make: Make, options: Mapping[str, Any]) -> str:
    try:
        make(options)
    except (TypeError, ValueError) as error:
        return clause(error)
    return ""


def clause(error: Exception) -> str:
    """Return Optuna's message as a clause: no backticks, no capital, no full stop."""
    text = str(error).replace("`", "").strip().removesuffix(".")
    return text[:1].lower() + text[1:] if text.partition(" ")[0].isalpha() else text


def _sampler(study: StudyData) -> Iterator[Problem]:
    kind, given = study.sampler.title, study.sampler.options
    row, space = study.sampler.kind, dimensions(study.space).values()
    try:
        cls, known = row.cls(), sampler_options(row)
    except InputError as error:
        yield Problem("sampler.path", str(error))
        return

    def make(options: Mapping[str, Any]) -> object:
        return None if cls is None else replace(row, ignored=frozenset()).make(options, 0)

    problems = list(option_problems("sampler", kind, given, known, make))
    yield from problems
    if cls is not None and not problems and (refusal := _refusal_of_goals(study, make(given))):
        yield Problem("sampler.type", refusal)
    if row.together is Together.numbers and space:
        numeric = [d.name for d in space if not isinstance(d.parameter, Choice) and not d.conditions]
        if len(numeric) < 2:
            yield Problem(
                "sampler.type",
                f"{kind} needs at least two parameters with low and high outside of branches (it samples the others at "
                f"random), got {', '.join(numeric) or 'none'}; tpe takes any",
            )
    if row.enumerates:
        for dimension in space:
            parameter = dimension.parameter
            if not isinstance(parameter, Choice) and (parameter.log or parameter.step is None):
                yield Problem(dimension.path, f"the {kind} sampler needs choices here, or a step without log")


def _refusal_of_goals(study: StudyData, sampler: Any) -> str:
    """Return what the sampler says when it is asked for a value in a study with these goals."""
    import optuna

    if len(study.objective.goals) == 1:
        return ""
    directions = [goal.direction for goal in study.objective.goals]
    with silence():
        made_up = optuna.create_study(directions=directions, sampler=sampler)
        try:
            made_up.ask({"x": optuna.distributions.FloatDistribution(0.0, 1.0)})
        except ValueError as error:
            return f"{clause(error)}; choose another, such as tpe"
    return ""


@contextmanager
def silence() -> Iterator[None]:
    """Keep Optuna's log lines and warnings about made-up studies from the user."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(level)


def _budget(study: StudyData) -> Iterator[Problem]:
    budget = study.budget
    ends = (budget.trials, budget.hours, budget.gpu_hours, budget.target)
    if not study.space:
        if study.baseline is None and not study.enqueue:
            yield Problem("space", "is empty; say what may vary (name → low and high, or choices)")
    elif all(end is None for end in ends) and not study.sampler.kind.enumerates:
        yield Problem("budget", "has no end; give trials, hours, gpu_hours or target")
    if budget.target is not None and study.objective.metrics is not None:
        yield Problem("budget.target", "belongs to studies with one metric; leave it out")
    if budget.worth is not None and not study.pruner.kind.pauses:
        yield Problem(
            "budget.worth", "only search: auto estimates the improvement per hour; leave it out, or set search: auto"
        )


def _confirmation(study: StudyData) -> Iterator[Problem]:
    if study.confirm is not None and study.confirm.seeds < FEWEST_SEEDS:
        got = f"expected {FEWEST_SEEDS} or more, got {study.confirm.seeds}"
        yield Problem("confirm.seeds", f"{got}; fewer seeds do not show how much they differ")


def _start_from(study: StudyData) -> Iterator[Problem]:
    """Yield the studies that did not run here; of a study that began, what it takes was decided."""
    if study.place.study_json.exists():
        return
    for index, name in enumerate(study.start_from):
        if name == study.name:
            yield Problem(f"start_from[{index}]", "is this study itself")
        elif name != AUTO and not name.startswith(MLFLOW) and not (study.place.runs / name / STUDY).exists():
            ran = sorted(path.parent.name for path in study.place.runs.glob(f"[!.]*/{STUDY}"))
            known = f" ({', '.join(ran)} did)" if ran else ""
            hint = nearest(name, [*ran, AUTO])
            yield Problem(f"start_from[{index}]", f"no study {name} ran in {study.place.root}{hint or known}")


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
