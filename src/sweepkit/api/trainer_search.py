"""``hyperparameter_search``: the Trainer's own method of that name as a sweepkit study.

The Trainer is pickled by value for the trial processes; where it cannot be, trials run one after another in this process.
"""

from __future__ import annotations

import itertools
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

from transformers import Trainer
from transformers.trainer_utils import BestRun, default_hp_space_optuna, default_hp_space_ray, number_of_arguments

from sweepkit.api.background import run_shown
from sweepkit.api.existing import FILLED_IN, OBJECTIVE, existing_task, own_arguments
from sweepkit.api.keywords import Keywords
from sweepkit.api.study import Study
from sweepkit.check import Checked
from sweepkit.check.rules.population import check_population
from sweepkit.driver.run import Replacements, run_checked
from sweepkit.report.answer import Answer
from sweepkit.report.rows import read
from sweepkit.report.watch import Watcher
from sweepkit.search.by_run import DefinedByRun, Suggesting
from sweepkit.study.errors import InputError, MissingExtra, StudyFailed
from sweepkit.study.names import field_of
from sweepkit.study.paths import TASK
from sweepkit.study.study import StudyData
from sweepkit.tasks import by_value
from sweepkit.tasks.arguments import REPORTERS, SWEEPKIT_DEFAULTS, reporters, why_owned
from sweepkit.tasks.task import Task
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Trial


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

    ``hp_space`` gets Optuna's trial, and so does a ``model_init`` that takes an argument, which may suggest as well (it is
    then called in this process, too, once for each trial). A trial for which they raise TrialPruned or set a constraint above 0
    is drawn again. With ``backend="ray"`` ``hp_space`` may return Ray Tune's distributions instead, and ``model_init`` and
    ``hp_name`` get the dict of values. Values under names that are not fields of the arguments are left to ``model_init``.

    ``kwargs`` are those of either backend: study_name (name), storage (a URL), timeout in seconds (time_budget_s), n_jobs
    (max_concurrent_trials; by default as many as the machine holds), sampler, search_alg (OptunaSearch), pruner (it counts
    evaluations; by default the median pruner, on the optuna backend with one direction), scheduler (of Ray Tune: ASHA,
    HyperBand, the median rule, population-based training), directions, resources_per_trial, keep_checkpoints_num,
    max_failures, load_if_exists (default True), catch (Exception only). Others are answered with what to use instead.

    The best run's model is also found as ``run-N`` (or what ``hp_name`` returned) in the arguments' ``output_dir``, unless they
    save nothing; ``run_summary`` is, with ``backend="ray"``, the Study. Without ``watch``, which is told of each event, a line
    is printed for each step of a trial (a live picture in a terminal or a notebook), and a summary at the end. Raises
    InputError for a Trainer without ``model_init`` and for an option that cannot be met; StudyFailed when no trial completed.
    """
    where = str(getattr(backend, "value", backend) or "optuna")
    directions = [direction] if isinstance(direction, str) else list(direction)
    _refuse(trainer, n_trials, where)
    request = _Request(trainer, hp_space, compute_objective, n_trials, where, hp_name, Keywords(kwargs, directions))
    study, rows = _run(request, watch)
    _link_checkpoints(trainer, study, rows)
    summary = Study.from_data(study) if where == "ray" else None
    best = [
        BestRun(str(row.number), row.values[0] if len(row.values) == 1 else list(row.values), dict(row.drawn), summary)
        for row in rows
    ]
    return best[0] if len(request.asked.directions) == 1 else best


def _refuse(trainer: Any, n_trials: Any, backend: str) -> None:
    """Raise InputError for what no study can be made of."""
    if not isinstance(trainer, Trainer):
        own = (
            "; it has a train() of its own, which no trial can prune or resume: use its own search, or write a Task whose "
            "trainer is a transformers.Trainer"
        )
        hint = own if all(callable(getattr(trainer, name, None)) for name in ("train", "evaluate")) else ""
        raise InputError(
            f"hyperparameter_search: trainer must be a transformers.Trainer, got {type(trainer).__name__}{hint}"
        )
    if trainer.model_init is None:
        raise InputError("hyperparameter_search: the Trainer needs a model_init, as each trial trains a fresh model")
    if backend not in ("optuna", "ray"):
        hint = "; `sweep import` converts W&B sweep files" if backend == "wandb" else ""
        raise InputError(f"hyperparameter_search: backend must be optuna or ray, got {backend}{hint}")
    if not (type(n_trials) is int and n_trials >= 1):
        raise InputError(f"hyperparameter_search: n_trials must be a whole number of at least 1, got {n_trials!r}")


@dataclass(frozen=True)
class _Request:
    """The arguments of one call."""

    trainer: Trainer
    hp_space: Callable[[Any], Mapping[str, Any]] | None
    compute_objective: Callable[[dict[str, float]], float | Sequence[float]] | None
    n_trials: int
    backend: str
    hp_name: Callable[[Any], str] | None
    asked: Keywords

    def study(self) -> StudyData:
        """Return the study that runs the request; its task is filled in later."""
        directions, objective = self.asked.directions, dict[str, Any]({"value": "last"})
        if len(directions) == 1:
            objective |= {"metric": OBJECTIVE, "direction": directions[0]}
        else:
            objective["metrics"] = [
                {"metric": f"{OBJECTIVE}_{i}", "direction": each} for i, each in enumerate(directions)
            ]
        keys = {
            "name": self.asked.name or f"hyperparameter-search-{time.strftime('%Y%m%d-%H%M%S')}",
            "question": "Which hyperparameters work best with this Trainer?",
            "task": {"pickle": TASK},
            "training": _training(self.trainer),
            "objective": objective,
            "duplicates": "train",
            **self.asked.sections(self.n_trials, self.backend),
        }
        if (scheduler := self.asked.scheduler) is not None:
            from sweepkit.backends.ray.schedulers import mutations_of, pruner_of

            keys |= {"pruner": pruner_of(scheduler), "space": mutations_of(scheduler)}
        study = StudyData.model_validate(keys).at(Path.cwd())
        if problems := check_population(study, None)[0]:
            raise InputError(f"hyperparameter_search: scheduler: {problems[0]}")
        return study

    def proposer(self, study: StudyData) -> DefinedByRun:
        """Return the proposer that calls ``hp_space``."""
        names = {entry.name for entry in fields(self.trainer.args)}
        on_ray, hp_name, model_init = self.backend == "ray", self.hp_name, self.trainer.model_init
        proposer = DefinedByRun(
            study,
            _ray_space(self.trainer, self.hp_space, study.space)
            if on_ray
            else self.hp_space or default_hp_space_optuna,
            applies=lambda name: field_of(name) in names or name.startswith("peft."),
            # Ray's trials are dicts of values, for hp_name as for model_init.
            before=None if on_ray or number_of_arguments(model_init) == 0 else model_init,
            name=(lambda trial, values: hp_name(dict(values) if on_ray else trial)) if hp_name else None,
        )
        proposer.sampler = self.asked.sampler
        return proposer


def _run(request: _Request, watch: Watcher | None) -> tuple[StudyData, list[Trial]]:
    """Run the request as a study; return it with the best trial or the Pareto front. Raises StudyFailed without one."""
    goals, on_ray = len(request.asked.directions), request.backend == "ray"
    task = existing_task(request.trainer, request.compute_objective, goals, plain_dict=on_ray)
    study = request.study()
    if request.asked.new and read(study):
        raise InputError(
            f"hyperparameter_search: study {study.name} exists; leave out load_if_exists=False to resume it"
        )
    study, here = _send(task, study)
    proposer = request.proposer(study)
    arguments = request.trainer.args
    checked = Checked(
        study, {each.name: _plain(getattr(arguments, each.name)) for each in fields(arguments) if each.init}
    )
    instead = Replacements(proposer=proposer, pruner=request.asked.pruner(request.backend), task=here)
    outcome = run_checked(checked, watch=watch, instead=instead) if watch else run_shown(checked, instead=instead)
    if proposer.left:
        names = ", ".join(sorted(proposer.left))
        warnings.warn(
            f"hp_space: {names}: no field of the Trainer's arguments; left to model_init", stacklevel=3
        )  # the caller of hyperparameter_search
    best = Answer(study, outcome.rows).winners
    if not best:
        raise StudyFailed(f"hyperparameter_search: {outcome.reason}")
    return study, best


def _link_checkpoints(trainer: Trainer, study: StudyData, rows: Sequence[Trial]) -> None:
    """Show the best trials' models where the Trainer's own search saves checkpoints, where its arguments save any.

    What that search left there before is set aside.
    """
    for row in rows if trainer.args.save_strategy != "no" else ():
        evaluations = TrialLog(study.place.trial(row.number)).evaluations
        if row.checkpoint is None or not evaluations:
            continue
        folder = Path(str(trainer.args.output_dir)) / (row.name or f"run-{row.number}")
        link = folder / f"checkpoint-{evaluations[-1].step}"
        if any(not each.is_symlink() for each in folder.glob("checkpoint-*")):  # of the Trainer's own search
            number = next(n for n in itertools.count(1) if not Path(f"{folder}.before-{n}").exists())
            folder.rename(f"{folder}.before-{number}")
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("checkpoint-*"):
            old.unlink()
        link.symlink_to(os.path.relpath(row.checkpoint.resolve(), folder.resolve()), target_is_directory=True)


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
        name: _plain(getattr(trainer.args, name)) for name in SWEEPKIT_DEFAULTS if not why_owned(name)
    }
    known = [name for name in reporters(result.pop("report_to")) if name in REPORTERS]
    result |= {"report_to": known} if known else {}
    carried = own_arguments(trainer.args)
    for entry in fields(trainer.args):
        if not entry.init or why_owned(entry.name) or entry.name in {*FILLED_IN, *carried, "report_to"}:
            continue
        value = _written(entry.name, _plain(getattr(trainer.args, entry.name)))
        default = entry.default_factory() if callable(entry.default_factory) else entry.default
        if value != _plain(default) and value != {}:
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
    trainer: Trainer, hp_space: Callable[[Any], Mapping[str, Any]] | None, mutated: Mapping[str, Any]
) -> Callable[[Suggesting], dict[str, Any]]:
    """Return a space of Ray Tune's distributions as one that suggests; a space that suggests is left as it is.

    ``mutated`` parameters, those of a population, begin where they may go on.
    """
    try:
        from sweepkit.backends.ray.domains import parameter
    except ImportError as error:
        raise MissingExtra("backend: ray", "ray") from error
    written = hp_space or default_hp_space_ray

    def space(trial: Suggesting) -> dict[str, Any]:
        values = dict(written(trial))
        begin = {name: trial.suggest(name, each) for name, each in mutated.items() if name not in trial.params}
        if trial.params.keys() - begin.keys():
            return {**values, **begin}
        values = {name: each for name, each in values.items() if name not in begin}
        whole = {name for name in values if type(getattr(trainer.args, name, None)) is int}
        drawn = {name: trial.suggest(name, parameter(name, each, whole=name in whole)) for name, each in values.items()}
        return {**drawn, **begin}

    return space
