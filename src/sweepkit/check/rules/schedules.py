"""How often a trial evaluates, and whether the objective and the pruner can work with that. Knows no data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sweepkit.check.fields.searchers import pruner_options
from sweepkit.check.rules.formulas import draws
from sweepkit.check.rules.searching import grid_size
from sweepkit.study.errors import Problem, nearest
from sweepkit.study.schedule import evaluations
from sweepkit.study.space import visit
from sweepkit.study.study import StudyData

_DECIDES = (
    "eval_strategy",
    "eval_steps",
    "eval_delay",
    "eval_on_start",
    "logging_steps",
    "max_steps",
    "num_train_epochs",
)
_STEPS_OF_AN_EPOCH = ("per_device_train_batch_size", "gradient_accumulation_steps", "dataloader_drop_last")
_FIXED = "fix it, or evaluate at fractions of the schedule (training: eval_strategy: steps, eval_steps: 0.2)"


def check_schedule(study: StudyData, known: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with the evaluations' cadence, the objective's rule and the pruner's chances."""
    if study.training.get("eval_strategy") == "no":
        return [Problem("training.eval_strategy", "no leaves the objective without a value; choose epoch or steps")]
    problems = list(_unused_steps(study, known))
    names = (*_DECIDES, *_STEPS_OF_AN_EPOCH)
    expressions = {name: known[name] for name in known if name in _named(study)}
    try:
        drawn = draws(study, {**{name: known[name] for name in names if name in known}, **expressions})
        counts = {evaluations(values) for values in drawn}
    except (ValueError, TypeError):
        return problems  # an expression or a value that is told of elsewhere
    if None not in counts:
        most = max(count for count in counts if count is not None)
        if most == 0:
            return [*problems, Problem("training", "a trial would make no evaluation at all; look at eval_delay")]
        mean_of = study.objective.mean_of
        if mean_of is not None and mean_of > most:
            problems.append(
                Problem(
                    "objective.value",
                    f"expected a mean of at most {most}, the evaluations of a trial, got mean({mean_of})",
                )
            )
    if study.pruner.type == "none":
        return problems
    uneven = list(_uneven(study, drawn))
    if uneven:
        return problems + uneven
    return problems + list(_never(study, None if None in counts else max(count or 0 for count in counts)))


def _named(study: StudyData) -> set[str]:
    return {name for name in _words(study) if name}


def _words(study: StudyData) -> Iterator[str]:
    from sweepkit.check.rules.formulas import read
    from sweepkit.study.parameters import Expression

    for place in visit(study.space):
        if isinstance(place.parameter, Expression):
            yield from read(place.path, place.parameter.expression, _Anything()).names


class _Anything(set[str]):
    def __contains__(self, _: object) -> bool:
        return True


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
        return (count,) if count is not None else (None, *(values.get(name) for name in by_data))

    if len({plan(values) for values in drawn}) == 1:
        return
    known = {count for count in (evaluations(values) for values in drawn) if count is not None}
    spread = f" ({min(known)} to {max(known)})" if len(known) > 1 else ""
    told = set()
    for place in visit(study.space):
        varies = len({repr(values.get(place.name)) for values in drawn}) > 1
        relevant = place.name in _DECIDES or (place.name in _STEPS_OF_AN_EPOCH and not known)
        if varies and relevant and place.name not in told:
            told.add(place.name)
            yield Problem(
                place.path,
                f"searching it gives trials different numbers of evaluations{spread}, by which the "
                f"{study.pruner.type} pruner compares them; {_FIXED}",
            )


def _never(study: StudyData, count: int | None) -> Iterator[Problem]:
    kind = study.pruner.type
    options = {name: field.default for name, field in pruner_options(kind).items()} | study.pruner.options
    trials = study.budget.trials
    if study.sampler.type == "grid" and (size := grid_size(study)) is not None:
        trials = min(trials or size, size)
    for name in ("n_startup_trials", "n_min_trials"):
        value = options.get(name)
        if trials is not None and isinstance(value, int) and value >= trials:
            yield Problem(
                f"pruner.{name}" if name in study.pruner.options else "pruner",
                f"{kind} could never stop a trial: {name} is {value} and there are {trials} trials",
            )
    if count is None or any(not isinstance(value, (int, float)) for value in _numbers(kind, options)):
        return
    first, why = _first_decision(kind, options)
    if first is not None and first >= count:
        name = next((key for key in why if key in study.pruner.options), "")
        what = "change what trials train with" if study.pruner.population else "stop a trial early"
        yield Problem(
            f"pruner.{name}" if name else "pruner",
            f"{kind} could never {what}: with {', '.join(f'{key}={options[key]}' for key in why)} it first "
            f"decides at evaluation {first}, and a trial makes {count}; evaluate more often or let it decide sooner",
        )


_DECIDED_BY: Mapping[str, tuple[str, ...]] = {
    "asha": ("min_resource", "reduction_factor", "min_early_stopping_rate"),
    "hyperband": ("min_resource",),
    "median": ("n_warmup_steps",),
    "percentile": ("n_warmup_steps",),
    "threshold": ("n_warmup_steps",),
    "patient": ("patience",),
    "wilcoxon": ("n_startup_steps", "p_threshold"),
    "pbt": ("perturbation_interval", "burn_in_period"),
    "pb2": ("perturbation_interval",),
}


def _numbers(kind: str, options: Mapping[str, Any]) -> list[Any]:
    return [options.get(name) for name in _DECIDED_BY.get(kind, ()) if options.get(name) != "auto"]


def _first_decision(kind: str, options: Mapping[str, Any]) -> tuple[int | None, tuple[str, ...]]:
    """Return the first evaluation (from 1) at which a pruner may stop a trial, and the options that decide it."""
    why = _DECIDED_BY.get(kind, ())
    if kind == "asha":
        # optuna: SuccessiveHalvingPruner; "auto" is a hundredth of the longest trial, at least 1
        least = 1 if options["min_resource"] == "auto" else options["min_resource"]
        rate = options["min_early_stopping_rate"]
        return least * options["reduction_factor"] ** rate, why if rate else why[:1]
    if kind == "hyperband":
        return options["min_resource"], why
    if kind in ("median", "percentile", "threshold"):
        return max(1, options["n_warmup_steps"]), why
    if kind in ("pbt", "pb2"):
        return max(options[name] for name in why), why
    if kind == "patient":
        # optuna: PatientPruner needs more than patience + 1 values
        return options["patience"] + 2, why
    if kind == "wilcoxon":
        # The smallest p-value of a one-sided signed-rank test over n pairs is 2 ** -n (Wilcoxon 1945).
        least = max(2, options["n_startup_steps"])
        while least < 60 and 0.5**least >= options["p_threshold"]:
            least += 1
        return least, why
    return None, ()


def check_metrics(study: StudyData, reported: frozenset[str] | None) -> list[Problem]:
    """Return the objective's metrics that the task will never report."""
    if reported is None:
        return []
    several = study.objective.metrics is not None
    told = sorted(reported - {"eval_runtime", "eval_samples_per_second", "eval_steps_per_second"})
    return [
        Problem(
            f"objective.metrics[{index}].metric" if several else "objective.metric",
            f"the task reports {', '.join(told)}, got {goal.metric}{nearest(goal.metric, reported)}",
        )
        for index, goal in enumerate(study.objective.goals)
        if goal.metric not in reported
    ]
