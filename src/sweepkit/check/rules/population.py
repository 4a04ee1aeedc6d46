"""Rules of population-based training: its options, what members can change while they train, what it cannot go with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from sweepkit.check.fields import Field
from sweepkit.check.rules.searching import option_problems
from sweepkit.study.errors import MissingExtra, Problem
from sweepkit.study.names import parts
from sweepkit.study.parameters import Choice, Expression, Float, Int
from sweepkit.study.samplers import PRUNERS
from sweepkit.study.study import StudyData

PERTURBABLE = (
    *("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm"),
    "neftune_noise_alpha",
)
"""What a trial that resumes from a checkpoint can change: what is read at every step."""
BATCHES = ("per_device_train_batch_size", "gradient_accumulation_steps")
"""What it can change as well where its length and its evaluations are counted in steps."""

_WHOLE, _NUMBER, _LIST = frozenset({"int"}), frozenset({"int", "float"}), frozenset({"list"})


def _known(*options: tuple[str, frozenset[str], Any, str]) -> dict[str, Field]:
    return {name: Field(name, kinds, default, meaning=meaning) for name, kinds, default, meaning in options}


_SHARED = _known(
    ("perturbation_interval", _WHOLE, 1, "Evaluations between decisions."),
    ("quantile_fraction", _NUMBER, 0.25, "Fraction of the members that copy the weights of as many of the best."),
)
OPTIONS: Mapping[str, Mapping[str, Field]] = {
    "pbt": _SHARED
    | _known(
        ("burn_in_period", _WHOLE, 0, "Evaluations before the first decision."),
        ("resample_probability", _NUMBER, 0.25, "How often a value is drawn anew instead of being multiplied."),
        ("perturbation_factors", _LIST, [1.2, 0.8], "What a value is multiplied by, one of the two at random."),
        ("fixed", _LIST, [], "Names of the space that each member keeps as they were drawn."),
    ),
    "pb2": _SHARED,
}
"""Options of Ray Tune's schedulers, in evaluations, and ``fixed``: what each member keeps as it was sampled."""
_LIMITS: Mapping[str, tuple[float, float]] = {
    "perturbation_interval": (1, float("inf")),
    "burn_in_period": (0, float("inf")),
    "quantile_fraction": (0, 0.5),
    "resample_probability": (0, 1),
}


def check_population(study: StudyData, evaluations: int | None) -> tuple[list[Problem], list[Problem]]:
    """Return what a population cannot be trained with, and why it would never change; nothing for a study without one."""
    if not PRUNERS[study.pruner.type].population:
        return [], []
    return [*_options(study), *_space(study), *_sections(study)], [*_first_decision(study, evaluations)]


def _options(study: StudyData) -> Iterator[Problem]:
    kind, given = study.pruner.type, study.pruner.options
    known = OPTIONS[kind]
    yield from option_problems("pruner", kind, given, known, dict)
    for name, value in given.items():
        low, high = _LIMITS.get(name, (float("-inf"), float("inf")))
        if name in known and _is_number(value) and not low <= value <= high:
            expected = f"{low:g} or more" if high == float("inf") else f"{low:g} to {high:g}"
            yield Problem(f"pruner.{name}", f"expected {expected}, got {value}")
    factors = given.get("perturbation_factors")
    if isinstance(factors, list) and not (len(factors) == 2 and all(_is_number(f) and f > 0 for f in factors)):
        message = f"expected two numbers above 0, such as [1.2, 0.8], got {factors}"
        yield Problem("pruner.perturbation_factors", message)


def _first_decision(study: StudyData, evaluations: int | None) -> Iterator[Problem]:
    kind, given, known = study.pruner.type, study.pruner.options, OPTIONS[study.pruner.type]
    decided_by = [name for name in ("perturbation_interval", "burn_in_period") if name in known]
    options = {name: given.get(name, known[name].default) for name in decided_by}
    if evaluations is None or not all(map(_is_number, options.values())) or max(options.values()) < evaluations:
        return
    written = next((f"pruner.{name}" for name in decided_by if name in given), "pruner")
    values = ", ".join(f"{name}={value}" for name, value in options.items())
    yield Problem(
        written,
        f"{kind} could never change what trials train with: with {values} it first decides at evaluation "
        f"{max(options.values())}, and a trial makes {evaluations}; evaluate more often or let it decide sooner",
    )


def _space(study: StudyData) -> Iterator[Problem]:
    kind = study.pruner.type
    fixed = study.pruner.options.get("fixed", []) if kind == "pbt" else []
    fixed = fixed if isinstance(fixed, list) else []
    for name in fixed:
        if name not in study.space or parts(str(name))[0] or not _plain(study.space[name]):
            message = f"expected names of training arguments in the space, with low and high or a list, got {name}"
            yield Problem("pruner.fixed", message)
    changed = {name: parameter for name, parameter in study.space.items() if name not in fixed}
    if fixed and not changed:
        yield Problem("pruner.fixed", f"names every parameter of the space; {kind} would have nothing to change")
    for name, parameter in changed.items():
        path = f"space.{name}"
        if why := _unchanging(name, study):
            keep = (
                "; or list it in pruner.fixed: each member keeps its own" if kind == "pbt" and "." not in name else ""
            )
            yield Problem(path, f"{why}; {kind} changes {_CHANGES}; fix it in training{keep}")
        elif isinstance(parameter, Expression):
            yield Problem(path, f"{kind} perturbs each value on its own; give it low and high")
        elif not _perturbed(parameter, kind):
            lists = ", or a list of numbers" if kind == "pbt" and isinstance(parameter, Choice) else ""
            yield Problem(path, f"{kind} needs low and high{lists} here")


def _unchanging(name: str, study: StudyData) -> str:
    """Return why a parameter cannot change from one evaluation to the next; empty where it can."""
    namespace, (field, *inside) = parts(name)
    if namespace in ("model", "peft") and re.search(r"drop(out|_path)?|pdrop", field) and not inside:
        return ""  # in force anew whenever a trial resumes, and no weight depends on it
    if name in BATCHES:
        steps = study.training.get("max_steps", -1) > 0 and study.training.get("eval_strategy") == "steps"
        return "" if steps else "changes the steps of an epoch: set training.max_steps and eval_strategy: steps"
    return "" if name in PERTURBABLE else "cannot change while a trial trains"


def _perturbed(parameter: Any, kind: str) -> bool:
    """Whether the scheduler can change a value of this parameter."""
    if kind == "pb2":
        return isinstance(parameter, Float)
    numbers = isinstance(parameter, Choice) and all(map(_is_number, parameter.choices))
    return numbers or isinstance(parameter, (Float, Int))


_CHANGES = f"{', '.join((*PERTURBABLE, *BATCHES))}, and dropout of model.* and peft.*"


def _plain(parameter: Any) -> bool:
    return isinstance(parameter, (Float, Int)) or (isinstance(parameter, Choice) and not parameter.branches)


def _sections(study: StudyData) -> Iterator[Problem]:
    kind, trials = study.pruner.type, study.budget.trials
    if study.pruner.kind.needs and find_spec(study.pruner.kind.needs) is None:
        yield Problem("pruner.type", str(MissingExtra(study.pruner.kind.meaning, study.pruner.kind.needs)))
    if trials is None or trials < 2:
        found = "none" if trials is None else trials
        yield Problem("budget.trials", f"is the size of the population of {kind}; expected at least 2, got {found}")
    if study.checkpoints.every != "evaluation":
        yield Problem("checkpoints.every", f"members of {kind} resume from checkpoints; expected evaluation, got never")
    if study.storage != "journal":
        yield Problem("storage", f"one driver trains all members of {kind}; expected journal, got a storage URL")
    if study.constraints:
        yield Problem("constraints", f"{kind} perturbs values regardless of constraints; leave them out")
    if study.confirm is not None:
        yield Problem("confirm", f"trains with fixed values, but {kind} finds a schedule; leave it out")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
