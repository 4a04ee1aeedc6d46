"""An existing Trainer as a Task: each trial gets a Trainer of the same class, made of the same parts."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
    model_init = trainer.model_init
    takes_trial = number_of_arguments(model_init) > 0
    blueprint = _blueprint(trainer, _ComputeObjective(compute_objective or default_compute_objective, goals))
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
            return blueprint.trainer(given["model"], given["args"], given["callbacks"])

        def _trial(self) -> Any:
            if self._spec is None or self._spec.drawn is None:
                return None
            if plain_dict:
                return {**self._spec.hyperparameters, **self._spec.drawn}
            return SuggestedTrial(dict(self._spec.drawn), self._spec.number)

    return Existing


class SuggestedTrial(FixedTrial):
    """The trial that ``model_init`` gets: Optuna's FixedTrial with the values that ``hp_space`` suggested."""

    @property
    def params(self) -> dict[str, Any]:
        """What ``hp_space`` suggested; FixedTrial's own shows only what was suggested again."""
        return dict(self._params)


class _ComputeObjective:
    """Adds what ``compute_objective`` returns to what ``Trainer.evaluate`` returns, all evaluation sets together."""

    def __init__(self, objective: Callable[..., Any], goals: int) -> None:
        self._objective = objective
        self._names = [OBJECTIVE] if goals == 1 else [f"{OBJECTIVE}_{i}" for i in range(goals)]

    def attach(self, trainer: Trainer) -> None:
        """Wrap a Trainer's ``evaluate``, which calls itself for each of several sets."""
        evaluate, depth = trainer.evaluate, 0

        def evaluating(*args: Any, **kwargs: Any) -> dict[str, float]:
            nonlocal depth
            depth += 1
            try:
                metrics = evaluate(*args, **kwargs)
            finally:
                depth -= 1
            return metrics if depth else {**metrics, **self._of(metrics)}

        trainer.evaluate = evaluating  # type: ignore[method-assign]  # of this one Trainer

    def _of(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        value = self._objective(copy.deepcopy(dict(metrics)))
        values = list(value) if isinstance(value, Sequence) else [value]
        return dict(zip(self._names, map(float, values), strict=True))


@dataclass(frozen=True)
class _Blueprint:
    """What makes another Trainer like the given one."""

    kind: type[Trainer]
    parts: Mapping[str, Any]
    callbacks: Sequence[TrainerCallback]
    takes_callbacks: bool
    objective: _ComputeObjective

    def trainer(self, model: Any, args: Any, callbacks: Sequence[Any]) -> Trainer:
        callbacks = [*self.callbacks, *callbacks]
        if self.takes_callbacks:
            made = self.kind(model=model, args=args, callbacks=callbacks, **self.parts)
        else:
            made = self.kind(model=model, args=args, **self.parts)
            for callback in callbacks:
                made.add_callback(callback)
        self.objective.attach(made)
        return made


def _blueprint(trainer: Trainer, objective: _ComputeObjective) -> _Blueprint:
    """Return the blueprint of a Trainer, with its own callbacks; transformers adds its standard ones itself."""
    own = [
        callback
        for callback in trainer.callback_handler.callbacks
        if type(callback).__module__.split(".")[0] != "transformers" or isinstance(callback, EarlyStoppingCallback)
    ]
    kind = type(trainer)
    return _Blueprint(kind, _parts(trainer), own, _takes(kind, "callbacks"), objective)


def _parts(trainer: Trainer) -> dict[str, Any]:
    """Return the arguments to make another Trainer with, except model, args and callbacks."""
    kind, held = type(trainer), vars(trainer)
    parts = {name: held[name] for name in _KEPT if _takes(kind, name)}
    standard = inspect.signature(Trainer.__init__).parameters
    for name in ("model", "args"):
        if not _takes(kind, name):
            raise InputError(
                f"hyperparameter_search: {kind.__name__} does not take {name}, which differs between trials"
            )
    for name in _named(kind):
        if name in standard:
            continue
        if name not in held:
            raise InputError(
                f"hyperparameter_search: {kind.__name__} takes {name} but does not keep it, so the trials' Trainers would "
                f"not get it; set self.{name} = {name} in its __init__"
            )
        parts[name] = held[name]
    return parts


def _inits(kind: type) -> Iterator[Mapping[str, inspect.Parameter]]:
    """Yield the parameters of a class's ``__init__``, and of its bases' as far up as ``**kwargs`` pass arguments on."""
    for each in kind.__mro__:
        if "__init__" in vars(each):
            parameters = inspect.signature(vars(each)["__init__"]).parameters
            yield parameters
            if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values()):
                return


def _named(kind: type) -> Iterator[str]:
    for parameters in _inits(kind):
        for index, parameter in enumerate(parameters.values()):
            if index and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                yield parameter.name


def _takes(kind: type, name: str) -> bool:
    return name in _named(kind)
