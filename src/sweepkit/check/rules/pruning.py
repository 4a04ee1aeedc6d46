"""Rules of the pruner: its options, and whether it can stop any trial, which is tried on made-up trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sweepkit.check.fields import Field
from sweepkit.check.rules.searching import clause, grid_size, option_problems, options_of, silence
from sweepkit.study.errors import InputError, Problem
from sweepkit.study.objective import COSTS
from sweepkit.study.samplers import PROMOTE, PRUNERS, Pruner, first_rung, resolve_auto
from sweepkit.study.study import StudyData

TRIALS = 100
"""Trials made up at most; a pruner that waits for more is given the benefit of the doubt."""
FEW = 5
"""A study of fewer trials is a rehearsal, in which a pruner need not stop any."""
EVALUATIONS = 100
"""Evaluations of a made-up trial where the study's own trials are too short, or of unknown length."""


def check_pruner(study: StudyData, evaluations: int | None) -> tuple[list[Problem], list[Problem]]:
    """Return what is wrong with the pruner of trials with so many evaluations, and why it would be idle.

    ``evaluations`` is None where the trials' data decides it.
    """
    kind, given, goals = study.pruner.title, study.pruner.options, study.objective
    row, problems, idle = study.pruner.kind, list[Problem](), list[Problem]()
    try:
        row.cls()
    except InputError as error:
        return [Problem("pruner.path", str(error))], []
    if kind == "none" and goals.prune_on is not None:
        problems.append(Problem("objective.prune_on", "no pruner could look at it; add a pruner or leave it out"))
    if kind != "none" and goals.metrics is not None and goals.prune_on is None:
        names = ", ".join(goal.metric for goal in goals.goals)
        message = f"a pruner looks at one metric; name it with prune_on, one of {names}"
        problems.append(Problem("objective.prune_on", message))
    if kind != "none" and (cost := goals.goals[goals.deciding].metric) in COSTS:
        message = (
            f"{kind} compares what training improves, and {cost} is what it costs; prune on a metric, or not at all"
        )
        problems.append(Problem("objective.prune_on" if goals.prune_on else "pruner.type", message))
    if study.pruner.pauses and study.checkpoints.every != "evaluation":
        message = "paused trials resume from checkpoints; expected evaluation, got never"
        problems.append(Problem("checkpoints.every", message))
    if why := _unread(study):
        problems.append(Problem("pruner.type", why))
    if not row.population:
        wrong = list(_options("pruner", kind, row, given))
        problems += wrong
        useless = _without_pauses if study.pruner.pauses else _useless
        idle += useless(study, evaluations) if kind != "none" and not wrong else ()
    if study.checkpoints.paused_gb is not None and not study.pruner.pauses:
        message = f"no trial pauses here; leave it out, or set search: auto or pruner: {{type: asha, {PROMOTE}: true}}"
        problems.append(Problem("checkpoints.paused_gb", message))
    return problems, idle


def _unread(study: StudyData) -> str:
    """Return why the sampler would learn nothing from trials under this pruner; empty where it does."""
    sampler, kind = study.sampler, study.pruner.title
    if study.pruner.kind.pauses and sampler.type not in ("random", "qmc"):
        return (
            f"{kind} proposes configurations itself, so that {sampler.type} would draw only the first; expected "
            "sampler: {type: random} or qmc, which search: auto in place of both means"
        )
    if study.pruner.kind.halves and sampler.kind.complete_only and not sampler.options.get("consider_pruned_trials"):
        return (
            f"{kind} leaves few trials complete, and {sampler.type} learns from complete ones alone: together they are no "
            "better than random; use the sampler tpe, the pruner none, or search: auto in place of both"
        )
    return ""


WRAPPABLE = tuple(
    name for name, row in PRUNERS.items() if not (row.population or row.pauses or row.wraps or name == "none")
)
"""Pruners that another one may wrap."""


def pruner_options(row: Pruner, *, wrapped: bool = False) -> dict[str, Field]:
    """Return the options of a pruner of Optuna's or your own. Raises InputError for one that cannot be imported."""
    known = {
        name: replace(field, meaning=row.meanings.get(name, field.meaning))
        for name, field in options_of(row.cls()).items()
    }
    if row.promotes and not wrapped:
        about = "Whether trials pause at rungs instead of being pruned, and the best of each rung go on."
        known[PROMOTE] = Field(PROMOTE, frozenset({"bool"}), False, meaning=about)
    if row.wraps:
        about = "The pruner whose decision it delays: its type, or a section with its type and options."
        known = {
            row.wraps: Field(row.wraps, frozenset({"dict", "str", "none"}), None, WRAPPABLE, meaning=about),
            **known,
        }
    return known


def _options(path: str, kind: str, row: Pruner, given: Mapping[str, Any]) -> Iterator[Problem]:
    known, given = pruner_options(row, wrapped=path != "pruner"), dict(given)
    if row.wraps:
        inner = given.get(row.wraps)
        section = {"type": inner} if isinstance(inner, str) else inner
        if isinstance(section, Mapping):
            wrapped = section.get("type")
            if wrapped in WRAPPABLE:
                options = {name: value for name, value in section.items() if name != "type"}
                wrong = list(_options(f"{path}.{row.wraps}", str(wrapped), PRUNERS[str(wrapped)], options))
            else:
                wrong = [Problem(f"{path}.{row.wraps}", f"type is one of {', '.join(WRAPPABLE)}, got {wrapped}")]
            yield from wrong
            given[row.wraps] = None if wrong else inner
    inside = {row.wraps: None} if row.wraps else {}
    yield from option_problems(path, kind, given, known, lambda options: row.make({**inside, **options}))


def _without_pauses(study: StudyData, evaluations: int | None) -> Iterator[Problem]:
    """Yield why no trial could pause before its last evaluation, or none of them go on."""
    options, trials = study.pruner.options, study.budget.trials
    if study.pruner.kind.pauses:
        if evaluations is not None and evaluations < 2:
            message = f"no trial could ever pause: each makes {evaluations} evaluation, at its end; evaluate more often"
            yield Problem("pruner", message)
        return
    factor, first = int(options.get("reduction_factor", 4)), first_rung(options, evaluations)
    needed = max(factor, 1 + int(options.get("bootstrap_count", 0)))

    def blamed(*names: str) -> str:
        return next((f"pruner.{name}" for name in names if name in options), "pruner")

    if evaluations is not None and first >= evaluations:
        message = f"no trial could ever pause: the first rung is evaluation {first}, and a trial makes {evaluations}"
        path = blamed("min_early_stopping_rate", "min_resource", "reduction_factor")
        yield Problem(path, f"{message}; evaluate more often or pause sooner")
    elif trials is not None and FEW <= trials < needed:
        message = f"no paused trial could ever resume: that takes {needed} trials at a rung, and there are {trials}"
        yield Problem(blamed(*("bootstrap_count",) * (needed > factor), "reduction_factor"), message)


def _useless(study: StudyData, evaluations: int | None) -> Iterator[Problem]:
    """Yield why the pruner can stop no trial before its last evaluation."""
    kind, options = study.pruner.title, study.pruner.options
    budget = study.budget.trials
    if study.sampler.kind.enumerates and (size := grid_size(study)) is not None:
        budget = min(budget or size, size)
    if evaluations is not None and evaluations > EVALUATIONS:
        evaluations = None
    made_up = _MadeUp(
        study.name, study.pruner.kind, evaluations, budget if budget is not None and budget >= FEW else None
    )
    reason = made_up.reason(options)
    if reason is None:
        return
    others = {name: {key: value for key, value in options.items() if key != name} for name in options}
    guilty = [name for name in others if made_up.reason(others[name]) is None]
    path = f"pruner.{(guilty or list(options))[0]}" if guilty or len(options) == 1 else "pruner"
    given = f"with {', '.join(f'{name}={value}' for name, value in options.items())} " if options else ""
    yield Problem(path, f"{kind} could never stop a trial early: {given}{reason}")


@dataclass(frozen=True)
class _MadeUp:
    """Trials on which a kind of pruner is tried: as long and as many as the study's, where that is known."""

    study: str
    kind: Pruner
    evaluations: int | None
    budget: int | None

    def reason(self, options: Mapping[str, Any]) -> str | None:
        """Return why the pruner stops none of the trials; None where it stops one, or could where more is made up."""
        try:
            return self._reason(options)
        except (TypeError, ValueError, ArithmeticError) as error:
            return f"it fails, {clause(error)}"

    def _reason(self, options: Mapping[str, Any]) -> str | None:
        trials, length = min(self.budget or TRIALS, TRIALS), self.evaluations or EVALUATIONS
        if self._first_stop(options, length, trials):
            return None
        if self.evaluations and (stop := self._first_stop(options, max(EVALUATIONS, 2 * length), trials)):
            evaluations = f"after evaluation {stop[1]}, and a trial makes {self.evaluations}"
            return f"it first stops one {evaluations}; evaluate more often or let it decide sooner"
        if self.budget is not None and (stop := self._first_stop(options, length, TRIALS)):
            return f"it stops none of the first {stop[0]} trials, and there are {self.budget}"
        if self.evaluations and self.budget is not None and self.budget <= TRIALS:
            return f"it stops none of {trials} trials with {length} evaluations each"
        return None

    def _first_stop(self, options: Mapping[str, Any], evaluations: int, trials: int) -> tuple[int, int] | None:
        """Return (trial from 0, evaluation from 1) at which made-up trials are first stopped before their last evaluation.

        Each trial is worse than all before it, and gets worse itself. Both directions are tried, for a threshold may bound
        either side; hyperband's brackets depend on the study's name.
        """
        import optuna
        from optuna.study import StudyDirection

        with silence():
            for sign, direction in ((1, StudyDirection.MINIMIZE), (-1, StudyDirection.MAXIMIZE)):
                pruner = self.kind.make(resolve_auto(self.kind, options, self.evaluations))
                study = optuna.create_study(study_name=self.study, direction=direction, pruner=pruner)
                for number in range(trials):
                    trial = study.ask()
                    for evaluation in range(1, evaluations + 1):
                        value = sign * (1e15 * number + 1e9 * (number + 1) * evaluation)
                        trial.report(value, evaluation)
                        if evaluation < evaluations and trial.should_prune():
                            return number, evaluation
                    study.tell(trial, value)
        return None
