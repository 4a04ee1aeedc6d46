"""``hyperparameter_search``: an existing Trainer and its ``hp_space`` run as a sweepkit study; a drop-in for the Trainer's own.

The Trainer goes to the trial processes by value; where it cannot, trials run one after another in this process.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.pruners import MedianPruner

from sweepkit.api.existing import OBJECTIVE, existing
from sweepkit.check import Checked
from sweepkit.driver.run import Replacements, run_checked
from sweepkit.report.answer import Answer
from sweepkit.report.rows import read
from sweepkit.report.watch import Quiet, Watcher
from sweepkit.search.by_run import DefinedByRun, Suggesting
from sweepkit.study.errors import InputError, MissingExtra, StudyFailed
from sweepkit.study.study import StudyData
from sweepkit.tasks import Task, by_value
from sweepkit.tasks.arguments import SWEEPKIT_DEFAULTS, owned
from sweepkit.trial.trial import Trial

if TYPE_CHECKING:
    from transformers import Trainer
    from transformers.trainer_utils import BestRun

_TAKEN = (
    "study_name",
    "storage",
    "timeout",
    "n_jobs",
    "sampler",
    "pruner",
    "load_if_exists",
    "gc_after_trial",
    "catch",
)


def hyperparameter_search(
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

    What it adds: every trial has a process of its own, several run at once, the same call with a ``study_name`` goes on
    where it stopped, a failing trial ends alone, and MLflow holds the runs (``mlflow.db`` under the project root).

    ``hp_space`` is called with an object that has Optuna's ``suggest_*``; with ``backend="ray"`` it may return Ray Tune's
    distributions instead, and ``model_init`` and ``hp_name`` get the dict of values. Values under names that the arguments
    do not have are left to ``model_init``, which gets the trial: what it suggests, ``hp_space`` must suggest too. ``kwargs``
    are those of the optuna backend: study_name, storage (a URL), timeout in seconds, n_jobs, sampler, pruner (it counts
    evaluations; by default the median one on the optuna backend with one direction, as there), load_if_exists (goes on
    unless False), gc_after_trial (always so), catch (every failing trial ends alone, so only all exceptions can be asked
    for); by default as many trials run at once as the machine holds. Raises InputError for a Trainer without
    ``model_init`` and for what cannot be done as asked; StudyFailed when no trial completed.
    """
    if trainer.model_init is None:
        raise InputError("hyperparameter_search: the Trainer needs a model_init, as each trial trains a fresh model")
    directions = [direction] if isinstance(direction, str) else list(direction)
    where = str(getattr(backend, "value", backend) or "optuna")
    for sentence in _refused(where, directions, n_trials, kwargs):
        raise InputError(f"hyperparameter_search: {sentence}")
    name = kwargs.get("study_name") or f"hyperparameter-search-{time.strftime('%Y%m%d-%H%M%S')}"
    home = Path.cwd()
    task = existing(trainer, compute_objective, len(directions), configuration=where == "ray")
    study = _study(trainer, name, directions, n_trials, where, kwargs).at(home)
    if kwargs.get("load_if_exists") is False and read(study):
        raise InputError(f"hyperparameter_search: study {name} exists; leave load_if_exists=False out to go on with it")
    names = {entry.name for entry in fields(trainer.args)}
    proposer = DefinedByRun(
        study,
        _ray_space(trainer, hp_space) if where == "ray" else hp_space or _default_space,
        applies=lambda name: name in names or name.startswith("peft."),
        # Ray's trials are dicts of values, in hp_name as in model_init.
        name=(lambda trial, values: hp_name(dict(values) if where == "ray" else trial)) if hp_name else None,
        sampler=kwargs.get("sampler"),
    )
    watch = watch or Quiet()
    here: type[Task] | None = None
    file = study.place.task
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        file.write_bytes(by_value.dumps(task))
    except InputError as error:
        here = task
        text = (
            f"this Trainer cannot be sent to another process ({error.__cause__}); its trials run in this one, one "
            "after another"
        )
        warnings.warn(text, stacklevel=2)
    study = study.model_copy(update={"task": study.task.model_copy(update={"pickle": str(file)})}).at(home)
    pruner = kwargs.get("pruner")
    if pruner is None and where == "optuna" and len(directions) == 1:
        pruner = MedianPruner()  # Optuna's own default
    instead = Replacements(proposer=proposer, pruner=pruner, task=here)
    outcome = run_checked(Checked(study, _known(trainer)), watch=watch, instead=instead)
    if proposer.left:
        names_left = ", ".join(sorted(proposer.left))
        text = f"hp_space: {names_left}: no field of the Trainer's arguments; left to model_init"
        warnings.warn(text, stacklevel=2)
    found = [_best_run(row) for row in Answer(study, outcome.rows).winners]
    if not found:
        raise StudyFailed(f"hyperparameter_search: {outcome.reason}")
    return found[0] if len(directions) == 1 else found


def _refused(backend: str, directions: list[Any], n_trials: Any, kwargs: Mapping[str, Any]) -> Iterator[str]:
    """Yield, in one sentence each, what cannot be done as asked."""
    if unknown := set(kwargs) - set(_TAKEN):
        yield f"unknown {', '.join(sorted(unknown))}; it takes {', '.join(_TAKEN)}"
    if backend not in ("optuna", "ray"):
        yield f"backend is optuna or ray, got {backend}"
    for direction in directions or [None]:
        if direction not in ("minimize", "maximize"):
            yield f"direction is minimize or maximize, or a list of these, got {direction!r}"
    for name, value in (("n_trials", n_trials), ("n_jobs", kwargs.get("n_jobs"))):
        if (value is not None or name == "n_trials") and not (type(value) is int and value >= 1):
            yield f"{name} is a whole number from 1 on, got {value!r}"
    timeout = kwargs.get("timeout")
    if timeout is not None and not timeout > 0:
        yield f"timeout is a number of seconds above 0, got {timeout!r}"
    called = kwargs.get("study_name")
    if called is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", called):
        yield f"study_name names a folder: letters, digits, dot, dash and underscore, at most 100, got {called!r}"
    storage = kwargs.get("storage")
    if not isinstance(storage, (str, type(None))):
        yield (
            f"storage is a URL such as sqlite:///studies.db, or left out, got a {type(storage).__name__}; other processes "
            "open it, too"
        )
    if kwargs.get("pruner") is not None and len(directions) > 1:
        yield "pruner: Optuna prunes with one direction only; leave it out"
    caught = kwargs.get("catch", Exception)
    if not any(each in (Exception, BaseException) for each in (caught if isinstance(caught, tuple) else (caught,))):
        yield f"catch: every failing trial ends alone, whatever it raises; leave it out, or say Exception, got {caught!r}"


def _best_run(row: Trial) -> BestRun:
    from transformers.trainer_utils import BestRun

    value = row.values[0] if len(row.values) == 1 else list(row.values)
    return BestRun(str(row.number), value, dict(row.drawn))


def _study(
    trainer: Trainer, name: str, directions: list[str], n_trials: int, backend: str, kwargs: Mapping[str, Any]
) -> StudyData:
    objective: dict[str, Any] = {"metric": OBJECTIVE, "direction": directions[0], "value": "last"}
    if len(directions) > 1:
        goals = [{"metric": f"{OBJECTIVE}_{i}", "direction": each} for i, each in enumerate(directions)]
        objective = {"metrics": goals, "value": "last"}
    budget: dict[str, Any] = {"trials": n_trials}
    if kwargs.get("timeout"):
        budget["hours"] = kwargs["timeout"] / 3600
    return StudyData.model_validate(
        {
            "name": name,
            "question": "Which hyperparameters does this Trainer do best with?",
            "task": {"pickle": "task.pickle"},
            "training": _given(trainer),
            "objective": objective,
            "duplicates": "train",
            "budget": budget,
            "storage": kwargs["storage"] if isinstance(kwargs.get("storage"), str) else "journal",
            "backend": {"type": backend, **({"parallel": kwargs["n_jobs"]} if kwargs.get("n_jobs") else {})},
        }
    )


def _given(trainer: Trainer) -> dict[str, Any]:
    """Return the Trainer's arguments that differ from the defaults, those that sweepkit sets itself left out."""
    result: dict[str, Any] = {
        name: _plain(getattr(trainer.args, name)) for name in SWEEPKIT_DEFAULTS if not owned(name)
    }
    for entry in fields(trainer.args):
        if not entry.init or owned(entry.name) or entry.name in _FILLED_IN:
            continue
        value = _plain(getattr(trainer.args, entry.name))
        default = entry.default_factory() if callable(entry.default_factory) else entry.default
        if value != _plain(default) and (value is None or isinstance(value, (bool, int, float, str, list, dict))):
            result[entry.name] = value
    return result


def _known(trainer: Trainer) -> dict[str, Any]:
    return {entry.name: _plain(getattr(trainer.args, entry.name)) for entry in fields(trainer.args) if entry.init}


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


_FILLED_IN = frozenset(
    {"accelerator_config", "fsdp_config", "parallelism_config", "debug", "lr_scheduler_kwargs", "project"}
)
"""Fields that TrainingArguments makes something else of than what was written; they reach a trial as the Trainer has them."""


def _ray_space(
    trainer: Trainer, hp_space: Callable[[Any], Mapping[str, Any]] | None
) -> Callable[[Suggesting], dict[str, Any]]:
    """Return the space of distributions of Ray Tune as one that asks; what it suggests itself stays as it is."""
    try:
        from sweepkit.backends.ray.domains import parameter
    except ImportError as error:
        raise MissingExtra("backend: ray", "ray") from error
    from transformers.trainer_utils import default_hp_space_ray

    written = hp_space or default_hp_space_ray

    def space(asking: Suggesting) -> dict[str, Any]:
        found = dict(written(asking))
        if asking.params:
            return found
        whole = {name for name in found if type(getattr(trainer.args, name, None)) is int}
        return {name: asking.suggest(name, parameter(name, each, whole=name in whole)) for name, each in found.items()}

    return space


def _default_space(trial: Any) -> dict[str, Any]:
    from transformers.trainer_utils import default_hp_space_optuna

    found: dict[str, Any] = default_hp_space_optuna(trial)
    return found
