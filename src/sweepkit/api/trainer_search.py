"""``hyperparameter_search``: the Trainer's own method of that name as a sweepkit study.

The Trainer is pickled by value for the trial processes; where it cannot be, trials run one after another in this process.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

from optuna.pruners import BasePruner, MedianPruner
from transformers import Trainer
from transformers.trainer_utils import BestRun, default_hp_space_optuna, default_hp_space_ray

from sweepkit.api.existing import OBJECTIVE, existing_task
from sweepkit.check import Checked
from sweepkit.driver.run import Replacements, run_checked
from sweepkit.report.answer import Answer
from sweepkit.report.rows import read
from sweepkit.report.watch import Watcher
from sweepkit.search.by_run import DefinedByRun, Suggesting
from sweepkit.study.errors import InputError, MissingExtra, StudyFailed
from sweepkit.study.names import field_of
from sweepkit.study.paths import LONGEST_NAME, NAMING, TASK, is_name
from sweepkit.study.study import StudyData
from sweepkit.tasks import by_value
from sweepkit.tasks.arguments import SWEEPKIT_DEFAULTS, owned
from sweepkit.tasks.task import Task
from sweepkit.trial.trial import Trial

_OPTIONS = "study_name, storage, timeout, n_jobs, sampler, pruner, load_if_exists, gc_after_trial, catch"
_FILLED_IN = frozenset({"parallelism_config", "debug", "project"})
"""Fields that TrainingArguments replaces by something other than what was written."""


def hyperparameter_search(  # the signature of Trainer.hyperparameter_search
    trainer: Trainer,
    hp_space: Callable[[Any], Mapping[str, Any]] | None = None,
    compute_objective: Callable[[dict[str, float]], float | Sequence[float]] | None = None,
    n_trials: int = 20,
    direction: str | list[str] = "minimize",
    backend: str | None = None,
    hp_name: Callable[[Any], str] | None = None,
    *,
    watch: Watcher | None = None,
    **kwargs: Any,
) -> BestRun | list[BestRun]:
    """Search hyperparameters of an existing Trainer; takes and returns what ``Trainer.hyperparameter_search`` does.

    Each trial has a process of its own and several run at once; a failing trial ends alone; the same call with a
    ``study_name`` resumes; MLflow holds the runs (``mlflow.db`` under the project root).

    ``hp_space`` gets an object with Optuna's ``suggest_*``; with ``backend="ray"`` it may return Ray Tune's distributions
    instead, and ``model_init`` and ``hp_name`` get the dict of values. Values under names that are not fields of the
    arguments are left to ``model_init``, which gets the trial; it may suggest only what ``hp_space`` suggests. ``kwargs``
    are those of the optuna backend: study_name, storage (a URL), timeout (seconds), n_jobs (by default as many as the
    machine holds), sampler, pruner (it counts evaluations; by default the median pruner, on the optuna backend with one
    direction), load_if_exists (default True), gc_after_trial (ignored: each trial has its process), catch (Exception
    only). Raises InputError for a Trainer without ``model_init`` and for an option that cannot be met; StudyFailed when no
    trial completed.
    """
    directions = [direction] if isinstance(direction, str) else list(direction)
    where = str(getattr(backend, "value", backend) or "optuna")
    request = _Request(trainer, hp_space, compute_objective, n_trials, directions, where, hp_name, kwargs)
    request.check()
    best = [
        BestRun(str(row.number), row.values[0] if len(row.values) == 1 else list(row.values), dict(row.drawn))
        for row in _run(request, watch or Watcher())
    ]
    return best[0] if len(directions) == 1 else best


@dataclass(frozen=True)
class _Request:
    """The arguments of one call."""

    trainer: Trainer
    hp_space: Callable[[Any], Mapping[str, Any]] | None
    compute_objective: Callable[[dict[str, float]], float | Sequence[float]] | None
    n_trials: int
    directions: list[str]
    backend: str
    hp_name: Callable[[Any], str] | None
    options: Mapping[str, Any]

    def check(self) -> None:
        """Raise InputError for the first argument that cannot be met."""
        if self.trainer.model_init is None:
            raise InputError(
                "hyperparameter_search: the Trainer needs a model_init, as each trial trains a fresh model"
            )
        for problem in (*self._wrong_arguments(), *self._wrong_options()):
            raise InputError(f"hyperparameter_search: {problem}")

    def _wrong_arguments(self) -> Iterator[str]:
        if unknown := set(self.options) - set(_OPTIONS.split(", ")):
            yield f"unknown {', '.join(sorted(unknown))}; expected {_OPTIONS}"
        if self.backend not in ("optuna", "ray"):
            yield f"backend must be optuna or ray, got {self.backend}"
        for direction in self.directions or [""]:
            if direction not in ("minimize", "maximize"):
                yield f"direction must be minimize or maximize, or a list of these, got {direction!r}"
        jobs = self.options.get("n_jobs")
        for name, value in (("n_trials", self.n_trials), ("n_jobs", 1 if jobs is None else jobs)):
            if not (type(value) is int and value >= 1):
                yield f"{name} must be a whole number of at least 1, got {value!r}"

    def _wrong_options(self) -> Iterator[str]:
        timeout, name = self.options.get("timeout"), self.options.get("study_name")
        storage, caught = self.options.get("storage"), self.options.get("catch", Exception)
        if timeout is not None and not timeout > 0:
            yield f"timeout must be a number of seconds above 0, got {timeout!r}"
        if name is not None and not is_name(name):
            yield f"study_name names a folder: {NAMING}, at most {LONGEST_NAME}, got {name!r}"
        if not isinstance(storage, (str, type(None))):
            yield (
                f"storage must be a URL such as sqlite:///studies.db, as other processes open it too, got "
                f"{type(storage).__name__}"
            )
        if self.options.get("pruner") is not None and len(self.directions) > 1:
            yield "pruner: Optuna prunes with one direction only; leave it out"
        if not {Exception, BaseException} & set(caught if isinstance(caught, tuple) else (caught,)):
            yield f"catch: a failing trial always ends alone; leave it out or pass Exception, got {caught!r}"

    def study(self) -> StudyData:
        """Return the study that runs the request; its task is filled in later."""
        objective: dict[str, Any] = {"metric": OBJECTIVE, "direction": self.directions[0], "value": "last"}
        if len(self.directions) > 1:
            goals = [{"metric": f"{OBJECTIVE}_{i}", "direction": each} for i, each in enumerate(self.directions)]
            objective = {"metrics": goals, "value": "last"}
        timeout, jobs = self.options.get("timeout"), self.options.get("n_jobs")
        keys = {
            "name": self.options.get("study_name") or f"hyperparameter-search-{time.strftime('%Y%m%d-%H%M%S')}",
            "question": "Which hyperparameters does this Trainer do best with?",
            "task": {"pickle": TASK},
            "training": _training(self.trainer),
            "objective": objective,
            "duplicates": "train",
            "budget": {"trials": self.n_trials, **({"hours": timeout / 3600} if timeout else {})},
            "storage": self.options.get("storage") or "journal",
            "backend": {"type": self.backend, **({"parallel": jobs} if jobs else {})},
        }
        return StudyData.model_validate(keys).at(Path.cwd())

    def proposer(self, study: StudyData) -> DefinedByRun:
        """Return the proposer that calls ``hp_space``."""
        names = {entry.name for entry in fields(self.trainer.args)}
        on_ray, hp_name = self.backend == "ray", self.hp_name
        return DefinedByRun(
            study,
            _ray_space(self.trainer, self.hp_space) if on_ray else self.hp_space or default_hp_space_optuna,
            applies=lambda name: field_of(name) in names or name.startswith("peft."),
            # Ray's trials are dicts of values, for hp_name as for model_init.
            name=(lambda trial, values: hp_name(dict(values) if on_ray else trial)) if hp_name else None,
            sampler=self.options.get("sampler"),
        )

    def pruner(self) -> BasePruner | None:
        """Return the pruner asked for, or Optuna's default where the Trainer's own method would prune."""
        pruner: BasePruner | None = self.options.get("pruner")
        if pruner is None and self.backend == "optuna" and len(self.directions) == 1:
            return MedianPruner()
        return pruner


def _run(request: _Request, watch: Watcher) -> list[Trial]:
    """Run the request as a study and return the best trial or the Pareto front. Raises StudyFailed without one."""
    goals, on_ray = len(request.directions), request.backend == "ray"
    task = existing_task(request.trainer, request.compute_objective, goals, plain_dict=on_ray)
    study = request.study()
    if request.options.get("load_if_exists") is False and read(study):
        raise InputError(
            f"hyperparameter_search: study {study.name} exists; leave out load_if_exists=False to resume it"
        )
    study, here = _send(task, study)
    proposer = request.proposer(study)
    arguments = request.trainer.args
    checked = Checked(
        study, {each.name: _plain(getattr(arguments, each.name)) for each in fields(arguments) if each.init}
    )
    instead = Replacements(proposer=proposer, pruner=request.pruner(), task=here)
    outcome = run_checked(checked, watch=watch, instead=instead)
    if proposer.left:
        names = ", ".join(sorted(proposer.left))
        warnings.warn(
            f"hp_space: {names}: no field of the Trainer's arguments; left to model_init", stacklevel=3
        )  # the caller of hyperparameter_search
    best = Answer(study, outcome.rows).winners
    if not best:
        raise StudyFailed(f"hyperparameter_search: {outcome.reason}")
    return best


def _send(task: type[Task], study: StudyData) -> tuple[StudyData, type[Task] | None]:
    """Write the task for the trial processes; return the study that refers to it, and the task itself if it must run here."""
    file, here = study.place.task, None
    reference = os.path.relpath(file, study.home)  # a copy of the project has a task of its own
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        file.write_bytes(by_value.dumps(task))
    except InputError as error:
        here = task
        text = (
            f"this Trainer cannot be sent to another process ({error.__cause__}); its trials run in this one, one "
            "after another"
        )
        warnings.warn(text, stacklevel=4)
    return study.model_copy(update={"task": study.task.model_copy(update={"pickle": reference})}).at(study.home), here


def _training(trainer: Trainer) -> dict[str, Any]:
    """Return the Trainer's arguments that differ from their defaults, without those that sweepkit sets itself."""
    result: dict[str, Any] = {
        name: _plain(getattr(trainer.args, name)) for name in SWEEPKIT_DEFAULTS if not owned(name)
    }
    for entry in fields(trainer.args):
        if not entry.init or owned(entry.name) or entry.name in _FILLED_IN:
            continue
        value = _written(entry.name, _plain(getattr(trainer.args, entry.name)))
        default = entry.default_factory() if callable(entry.default_factory) else entry.default
        if (
            value != _plain(default)
            and value != {}
            and (value is None or isinstance(value, (bool, int, float, str, list, dict)))
        ):
            result[entry.name] = value
    return result


def _written(name: str, value: Any) -> Any:
    """Return a value without the keys that TrainingArguments filled in."""
    if name == "accelerator_config" and value is not None:
        filled = vars(type(value)())
        return {key: inner for key, inner in vars(value).items() if inner != filled.get(key)}
    return {key: inner for key, inner in value.items() if inner} if name == "fsdp_config" and value else value


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _ray_space(
    trainer: Trainer, hp_space: Callable[[Any], Mapping[str, Any]] | None
) -> Callable[[Suggesting], dict[str, Any]]:
    """Return a space of Ray Tune's distributions as one that suggests; a space that suggests is left as it is."""
    try:
        from sweepkit.backends.ray.domains import parameter
    except ImportError as error:
        raise MissingExtra("backend: ray", "ray") from error
    written = hp_space or default_hp_space_ray

    def space(trial: Suggesting) -> dict[str, Any]:
        values = dict(written(trial))
        if trial.params:
            return values
        whole = {name for name in values if type(getattr(trainer.args, name, None)) is int}
        return {name: trial.suggest(name, parameter(name, each, whole=name in whole)) for name, each in values.items()}

    return space
