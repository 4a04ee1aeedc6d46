"""An existing Trainer as a Task: each trial gets a Trainer of the same class, made of the same parts."""

from __future__ import annotations

import copy
import dis
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from types import MethodType
from typing import TYPE_CHECKING, Any, ClassVar

from optuna.trial import FixedTrial
from torch.nn import Module
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.integrations.integration_utils import get_reporting_integration_callbacks
from transformers.trainer_utils import default_compute_objective, number_of_arguments

from sweepkit.study.errors import InputError
from sweepkit.tasks.task import Task
from sweepkit.trial.trial import TrialSpec

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
_SPENT = frozenset({"quantization_config", "peft_config", "formatting_func"})
"""Arguments that TRL's Trainers use up in their constructors, on the model and the data; ``model_init`` returns it adapted."""
_DATA = frozenset({"train_dataset", "eval_dataset", "label_names"})
FILLED_IN = frozenset({"parallelism_config", "debug", "project"})
"""Fields that TrainingArguments replaces by something other than what was written."""


def existing_task(
    trainer: Trainer, compute_objective: Callable[..., Any] | None, goals: int, *, plain_dict: bool = False
) -> type[Task]:
    """Return a Task class whose Trainers are like this one and report ``goals`` objectives as ``eval_objective``.

    A ``model_init`` that takes an argument gets a trial with ``number``, ``params`` and ``suggest_*`` (of what it or
    ``hp_space`` suggested), or with ``plain_dict`` the dict of values, as from Ray. Raises InputError for a Trainer subclass
    that does not keep its arguments.
    """
    kind, model_init = type(trainer), trainer.model_init
    takes_trial, adapted = number_of_arguments(model_init) > 0, hasattr(trainer.model, "peft_config")
    parts, carried = _parts(trainer), _Carried.of(trainer)
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
            trial = [_suggested(self._spec, plain_dict=plain_dict)] if takes_trial else []
            model: PreTrainedModel = model_init(*trial)
            if adapted and not hasattr(model, "peft_config"):
                raise InputError("the Trainer's model has an adapter; model_init must return one with it, too")
            return model

        def trainer(self, **given: Any) -> Trainer:
            """Return a Trainer of the same class with the same parts."""
            for name, value in carried.arguments.items():
                setattr(given["args"], name, value)
            made = _made(kind, {**parts, "model": given["model"], "args": given["args"]})
            carried.give(made)
            for callback in given["callbacks"]:
                made.add_callback(callback)
            _report_objective(made, objective, goals)
            return made

    return Existing


def _suggested(spec: TrialSpec | None, *, plain_dict: bool) -> Any:
    """Return the trial that ``model_init`` gets; None before there is one."""
    if spec is None or spec.drawn is None:
        return None
    return {**spec.hyperparameters, **spec.drawn} if plain_dict else _SuggestedTrial(dict(spec.drawn), spec.number)


def own_arguments(args: TrainingArguments) -> dict[str, Any]:
    """Return the arguments that no study file can hold, such as a class or a function."""
    held = {each.name: getattr(args, each.name) for each in fields(args) if each.init}
    return {name: value for name, value in held.items() if name not in _READ and not _is_plain(value)}


_READ = FILLED_IN | {"accelerator_config"}
"""Arguments that are not plain data; what a study file says of them is worked out."""


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value.value if isinstance(value, Enum) else value)
    except (TypeError, ValueError):
        return False
    return True


class _Self:
    """Stands for the Trainer in what travels without it."""


@dataclass(frozen=True)
class _Carried:
    """What a Trainer was given after it was made; its trials' Trainers get it too."""

    arguments: Mapping[str, Any]
    """Training arguments that no study file can hold."""
    attributes: Mapping[str, Any]
    """What its class itself does not set; and the data, which its class may have processed."""
    callbacks: Sequence[TrainerCallback]

    @classmethod
    def of(cls, trainer: Trainer) -> _Carried:
        """Return what to carry over from a Trainer, without the Trainer itself."""
        code = [
            inspect.unwrap(each) for base in type(trainer).__mro__ for each in vars(base).values() if callable(each)
        ]
        steps = (step for each in code if hasattr(each, "__code__") for step in dis.get_instructions(each))
        stored = {step.argval for step in steps if step.opname == "STORE_ATTR"} - _DATA
        return cls(
            own_arguments(trainer.args),
            {name: _without(trainer, value) for name, value in vars(trainer).items() if name not in stored},
            [_twin(trainer, callback) for callback in _callbacks(trainer)],
        )

    def give(self, made: Trainer) -> None:
        """Give it to another Trainer, whose class may have added some of the callbacks by itself."""
        for name, value in self.attributes.items():
            setattr(made, name, _with(made, value))
        added = _callbacks(made)
        handler, left = made.callback_handler, added[::-1]
        handler.callbacks = [each for each in handler.callbacks if each not in added]
        own: list[TrainerCallback] = []
        for callback in reversed(self.callbacks):
            if found := next((each for each in left if type(each) is type(callback)), None):
                left.remove(found)
            else:
                vars(callback).update({name: _with(made, value) for name, value in vars(callback).items()})
            own.insert(0, found or callback)
        handler.callbacks += own


def _twin(trainer: Trainer, callback: TrainerCallback) -> TrainerCallback:
    twin = copy.copy(callback)
    vars(twin).update({name: _without(trainer, value) for name, value in vars(twin).items()})
    return twin


def _without(trainer: Trainer, value: Any) -> Any:
    """Return a value that does not refer to the Trainer, where it is the Trainer itself or one of its methods."""
    if value is trainer:
        return _Self
    return (_Self, value.__func__) if getattr(value, "__self__", None) is trainer else value


def _with(trainer: Trainer, value: Any) -> Any:
    """Return what :func:`_without` replaced, for another Trainer."""
    if value is _Self:
        return trainer
    is_method = isinstance(value, tuple) and len(value) == 2 and value[0] is _Self
    return MethodType(value[1], trainer) if is_method else value


def _made(kind: type[Trainer], arguments: dict[str, Any]) -> Trainer:
    """Return a Trainer; what its class passes on to its base by itself is left out."""
    while True:
        try:
            made = kind(**arguments)
        except TypeError as error:
            twice = re.search(r"multiple values for (?:keyword )?argument '(\w+)'", str(error))
            if not (twice and twice[1] in arguments and twice[1] not in ("model", "args")):
                raise
            del arguments[twice[1]]
        else:
            break
    if override := getattr(made, "override_model_in_loss", None):  # sentence-transformers: its losses hold the model
        losses: Any = made.loss  # type: ignore[attr-defined]  # see above
        for loss in losses.values() if isinstance(losses, dict) else [losses]:
            override(loss, made.model)
    return made


class _SuggestedTrial(FixedTrial):
    """The trial that ``model_init`` gets: Optuna's FixedTrial with the values that ``hp_space`` suggested."""

    def __init__(self, params: dict[str, Any], number: int) -> None:
        super().__init__(params, number)
        self._suggested = params

    @property
    def params(self) -> dict[str, Any]:
        """What ``hp_space`` suggested; FixedTrial's own shows only what was suggested again."""
        return dict(self._suggested)


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
        if len(values) != goals:
            raise ValueError(f"compute_objective returned {len(values)} values, and direction has {goals}")
        return {**metrics, **dict(zip(names, map(float, values), strict=True))}

    trainer.evaluate = evaluating  # type: ignore[method-assign]  # of this one Trainer


def _callbacks(trainer: Trainer) -> list[TrainerCallback]:
    """Return the Trainer's callbacks without those that transformers adds by itself."""
    reporting = get_reporting_integration_callbacks(trainer.args.report_to)
    return [
        callback
        for callback in trainer.callback_handler.callbacks
        if type(callback).__module__.split(".")[0] != "transformers"
        or isinstance(callback, EarlyStoppingCallback)
        or (type(callback).__module__.startswith("transformers.integrations") and type(callback) not in reporting)
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
    forgotten = [each for each in named if each not in standard and each not in held]
    for name in forgotten if kind.__module__.split(".")[0] != "trl" else set(forgotten) - _SPENT:
        raise InputError(
            f"hyperparameter_search: {kind.__name__} takes {name} but does not keep it, so the trials' Trainers would "
            f"not get it; set self.{name} = {name} in its __init__"
        )
    found = {name: held[name] for name in named if name in _KEPT or (name not in standard and name in held)}
    for name, value in found.items():
        if (
            isinstance(value, Module)
            and any(each is trainer.model for each in value.modules())
            and not hasattr(kind, "override_model_in_loss")
        ):
            raise InputError(
                f"hyperparameter_search: {name} of {kind.__name__} holds the Trainer's model, which differs between "
                "trials; build it from the model in its __init__"
            )
    return {name: value for name, value in found.items() if getattr(value, "__self__", None) is not trainer}


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
