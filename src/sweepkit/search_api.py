"""``hyperparameter_search``: an existing Trainer and its ``hp_space`` run as a sweepkit study; a drop-in for the Trainer's own.

The Trainer goes to the trial processes by value; where it cannot, trials run one after another in this process.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sweepkit.by_run import DefinedByRun
from sweepkit.errors import InputError, StudyFailed
from sweepkit.run import run_checked
from sweepkit.sources.training import SWEEPKIT_DEFAULTS, owned
from sweepkit.study import Study
from sweepkit.tasks import Task, by_value
from sweepkit.trial import Trial
from sweepkit.watch import Quiet, Watcher

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer
    from transformers.trainer_utils import BestRun

OBJECTIVE = "eval_objective"
"""Name under which what ``compute_objective`` returns is reported, numbered from 0 where there are several directions."""

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

    ``hp_space`` is called with an object that has Optuna's ``suggest_*``; with ``backend="ray"`` it may also return Ray
    Tune's distributions. ``kwargs`` are those of the optuna backend (study_name, storage, timeout in seconds, n_jobs,
    sampler, pruner); by default as many trials run at once as the machine holds. Raises InputError for a Trainer without
    ``model_init`` and for unknown arguments; StudyFailed when no trial completed.
    """
    if trainer.model_init is None:
        raise InputError("hyperparameter_search: the Trainer needs a model_init, as each trial trains a fresh model")
    if unknown := set(kwargs) - set(_TAKEN):
        raise InputError(f"hyperparameter_search: unknown {', '.join(sorted(unknown))}; it takes {', '.join(_TAKEN)}")
    if backend not in (None, "optuna", "ray"):
        raise InputError(f"hyperparameter_search: backend is optuna or ray, got {backend}")
    directions = [direction] if isinstance(direction, str) else list(direction)
    name = kwargs.get("study_name") or f"hyperparameter-search-{time.strftime('%Y%m%d-%H%M%S')}"
    space = hp_space or _default_space
    home = Path.cwd()
    task = existing(trainer, compute_objective, len(directions))
    study = _study(trainer, name, directions, n_trials, backend or "optuna", kwargs).at(home)
    proposer = DefinedByRun(study, space, hp_name, kwargs.get("sampler"))
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
    outcome = run_checked(study, _known(trainer), watch=watch, proposer=proposer, here=here)
    complete = [row for row in outcome.rows if row.ending.ranks]
    if not complete or outcome.best is None:
        raise StudyFailed(f"hyperparameter_search: {outcome.reason}")
    if len(directions) == 1:
        return _best_run(outcome.best)
    return [_best_run(row) for row in _front(complete, directions)]


def _best_run(row: Trial) -> BestRun:
    from transformers.trainer_utils import BestRun

    value = row.values[0] if len(row.values) == 1 else list(row.values)
    return BestRun(str(row.number), value, dict(row.params))


def _front(rows: list[Trial], directions: list[str]) -> list[Trial]:
    signs = [1.0 if direction == "maximize" else -1.0 for direction in directions]

    def beats(left: Trial, right: Trial) -> bool:
        pairs = [(s * a, s * b) for s, a, b in zip(signs, left.values, right.values, strict=True)]
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    return [row for row in rows if not any(beats(other, row) for other in rows)]


def _study(
    trainer: Trainer, name: str, directions: list[str], n_trials: int, backend: str, kwargs: Mapping[str, Any]
) -> Study:
    objective: dict[str, Any] = {"metric": OBJECTIVE, "direction": directions[0], "value": "last"}
    if len(directions) > 1:
        goals = [{"metric": f"{OBJECTIVE}_{i}", "direction": each} for i, each in enumerate(directions)]
        objective = {"metrics": goals, "value": "last"}
    budget: dict[str, Any] = {"trials": n_trials}
    if kwargs.get("timeout"):
        budget["hours"] = kwargs["timeout"] / 3600
    return Study.model_validate(
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


def existing(trainer: Trainer, compute_objective: Callable[..., Any] | None, goals: int) -> type[Task]:
    """Return a Task class that makes Trainers like this one; ``goals`` objectives are reported as ``eval_objective``."""
    from transformers import TrainerCallback
    from transformers.trainer_utils import default_compute_objective

    kind = type(trainer)
    model_init, collator, processing = trainer.model_init, trainer.data_collator, trainer.processing_class
    own = [
        callback
        for callback in trainer.callback_handler.callbacks
        if type(callback).__module__.split(".")[0] != "transformers"
    ]
    train, evaluation, metrics = trainer.train_dataset, trainer.eval_dataset, trainer.compute_metrics
    preprocess = trainer.preprocess_logits_for_metrics
    objective = compute_objective or default_compute_objective
    arguments = f"{type(trainer.args).__module__}:{type(trainer.args).__name__}"

    class Computing(TrainerCallback):
        """Adds what ``compute_objective`` returns to an evaluation, before anybody else sees it."""

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
            value = objective(copy.deepcopy(dict(metrics)))
            values = list(value) if isinstance(value, Sequence) else [value]
            names = [OBJECTIVE] if goals == 1 else [f"{OBJECTIVE}_{i}" for i in range(goals)]
            metrics.update(zip(names, (float(each) for each in values), strict=True))

    class Existing(Task):
        """Trains as an existing Trainer does."""

        arguments_type: ClassVar[str] = arguments

        def data(self) -> Any:
            """The Trainer brings its own."""
            from datasets import Dataset, DatasetDict

            return DatasetDict(
                {"train": Dataset.from_dict({"row": [0]}), "validation": Dataset.from_dict({"row": [0]})}
            )

        def model_init(self, **config: Any) -> PreTrainedModel:
            """Return the Trainer's fresh model."""
            import inspect

            made: PreTrainedModel = model_init(None) if inspect.signature(model_init).parameters else model_init()
            return made

        def trainer(self, **given: Any) -> Trainer:
            """Return a Trainer of the same kind with the same parts."""
            made: Trainer = kind(
                model=given["model"],
                args=given["args"],
                data_collator=collator,
                train_dataset=train,
                eval_dataset=evaluation,
                processing_class=processing,
                compute_metrics=metrics,
                callbacks=[*own, Computing(), *given["callbacks"]],
                preprocess_logits_for_metrics=preprocess,
            )
            return made

    return Existing


def _default_space(trial: Any) -> dict[str, Any]:
    from transformers.trainer_utils import default_hp_space_optuna

    found: dict[str, Any] = default_hp_space_optuna(trial)
    return found
