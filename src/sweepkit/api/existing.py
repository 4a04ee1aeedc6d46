"""An existing Trainer as a Task: each trial gets a Trainer of the same class, made of the same parts."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from optuna.trial import FixedTrial
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback
from transformers.trainer_utils import default_compute_objective, number_of_arguments

from sweepkit.study.errors import InputError
from sweepkit.tasks.task import Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OBJECTIVE = "eval_objective"
"""Metric that holds what ``compute_objective`` returns; with several directions numbered from 0."""

_KEPT = (
    "data_collator",
    "train_dataset",
    "eval_dataset",
    "processing_class",
    "compute_loss_func",
    "compute_metrics",
    "optimizer_cls_and_kwargs",
    "preprocess_logits_for_metrics",
)
"""Arguments of Trainer that it keeps under their own names, and that every trial's Trainer shares."""


def existing_task(
    trainer: Trainer, compute_objective: Callable[..., Any] | None, goals: int, *, plain_dict: bool = False
) -> type[Task]:
    """Return a Task class whose Trainers are like this one and report ``goals`` objectives as ``eval_objective``.

    A ``model_init`` that takes an argument gets a trial with ``number``, ``params`` and ``suggest_*`` (of what ``hp_space``
    suggested), or with ``plain_dict`` the dict of values, as from Ray. Raises InputError for a Trainer subclass that does
    not keep its arguments.
    """
    kind, model_init = type(trainer), trainer.model_init
    takes_trial = number_of_arguments(model_init) > 0
    parts, own_callbacks = _parts(trainer), _callbacks(trainer)
    takes_callbacks = "callbacks" in _named(kind)
    objective = compute_objective or default_compute_objective
    arguments = f"{type(trainer.args).__module__}:{type(trainer.args).__qualname__}"

    class Existing(Task):
        """Trains as an existing Trainer does."""

        arguments_type: ClassVar[str] = arguments

        def data(self) -> Any:
            """Return a placeholder: the Trainer has its own data."""
            from datasets import Dataset, DatasetDict

            return DatasetDict({split: Dataset.from_dict({"row": [0]}) for split in ("train", "validation")})

        def model_init(self, **config: Any) -> PreTrainedModel:
            """Return the Trainer's fresh model; as in any Trainer, the first call has no trial."""
            model: PreTrainedModel = model_init(self._trial()) if takes_trial else model_init()
            return model

        def trainer(self, **given: Any) -> Trainer:
            """Return a Trainer of the same class with the same parts."""
            callbacks = [*own_callbacks, *given["callbacks"]]
            passed = {**parts, "callbacks": callbacks} if takes_callbacks else parts
            made = kind(model=given["model"], args=given["args"], **passed)
            for callback in () if takes_callbacks else callbacks:
                made.add_callback(callback)
            _report_objective(made, objective, goals)
            return made

        def _trial(self) -> Any:
            if self._spec is None or self._spec.drawn is None:
                return None
            if plain_dict:
                return {**self._spec.hyperparameters, **self._spec.drawn}
            return _SuggestedTrial(dict(self._spec.drawn), self._spec.number)

    return Existing


class _SuggestedTrial(FixedTrial):
    """The trial that ``model_init`` gets: Optuna's FixedTrial with the values that ``hp_space`` suggested."""

    @property
    def params(self) -> dict[str, Any]:
        """What ``hp_space`` suggested; FixedTrial's own shows only what was suggested again."""
        return dict(self._params)


def _report_objective(trainer: Trainer, objective: Callable[..., Any], goals: int) -> None:
    """Add the objective's values to what the Trainer's ``evaluate`` returns, which calls itself for each of several sets."""
    names = [OBJECTIVE] if goals == 1 else [f"{OBJECTIVE}_{i}" for i in range(goals)]
    evaluate, depth = trainer.evaluate, 0

    def evaluating(*args: Any, **kwargs: Any) -> dict[str, float]:
        nonlocal depth
        depth += 1
        try:
            metrics = evaluate(*args, **kwargs)
        finally:
            depth -= 1
        if depth:
            return metrics
        value = objective(copy.deepcopy(dict(metrics)))
        values = list(value) if isinstance(value, Sequence) else [value]
        return {**metrics, **dict(zip(names, map(float, values), strict=True))}

    trainer.evaluate = evaluating  # type: ignore[method-assign]  # of this one Trainer


def _callbacks(trainer: Trainer) -> list[TrainerCallback]:
    """Return the Trainer's own callbacks; transformers adds its standard ones itself."""
    return [
        callback
        for callback in trainer.callback_handler.callbacks
        if type(callback).__module__.split(".")[0] != "transformers" or isinstance(callback, EarlyStoppingCallback)
    ]


def _parts(trainer: Trainer) -> dict[str, Any]:
    """Return the arguments to make another Trainer with, except model, args and callbacks."""
    kind, held, named = type(trainer), vars(trainer), _named(type(trainer))
    standard = inspect.signature(Trainer.__init__).parameters
    for name in ("model", "args"):
        if name not in named:
            raise InputError(
                f"hyperparameter_search: {kind.__name__} does not take {name}, which differs between trials"
            )
    for name in (each for each in named if each not in standard and each not in held):
        raise InputError(
            f"hyperparameter_search: {kind.__name__} takes {name} but does not keep it, so the trials' Trainers would "
            f"not get it; set self.{name} = {name} in its __init__"
        )
    return {name: held[name] for name in named if name in _KEPT or name not in standard}


def _named(kind: type) -> list[str]:
    """Return what a class's ``__init__`` takes by name, and its bases' as far up as ``**kwargs`` pass arguments on."""
    names: list[str] = []
    for each in kind.__mro__:
        if "__init__" not in vars(each):
            continue
        parameters = list(inspect.signature(vars(each)["__init__"]).parameters.values())
        by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        names += [parameter.name for parameter in parameters[1:] if parameter.kind in by_name]
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            break
    return list(dict.fromkeys(names))
