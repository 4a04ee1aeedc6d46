"""An existing Trainer as a Task: every trial gets a Trainer of the same kind made of the same parts. Knows no study."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from optuna.trial import FixedTrial

from sweepkit.study.errors import InputError
from sweepkit.tasks import Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer

OBJECTIVE = "eval_objective"
"""Name under which what ``compute_objective`` returns is reported, numbered from 0 where there are several directions."""

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
"""Arguments of Trainer that it keeps under their own names and that every trial's Trainer shares."""


def existing(
    trainer: Trainer, compute_objective: Callable[..., Any] | None, goals: int, *, configuration: bool = False
) -> type[Task]:
    """Return a Task class that makes Trainers like this one; ``goals`` objectives are reported as ``eval_objective``.

    A ``model_init`` that takes an argument gets a trial with ``number``, ``params`` and ``suggest_*`` (of what ``hp_space``
    suggested); with ``configuration`` the plain dict of values, as from Ray. Raises InputError for a Trainer subclass whose
    arguments are not to be found on it.
    """
    from transformers import EarlyStoppingCallback, TrainerCallback
    from transformers.trainer_utils import default_compute_objective, number_of_arguments

    kind, model_init = type(trainer), trainer.model_init
    takes_trial = number_of_arguments(model_init) > 0
    own = [
        callback
        for callback in trainer.callback_handler.callbacks
        if type(callback).__module__.split(".")[0] != "transformers" or isinstance(callback, EarlyStoppingCallback)
    ]
    parts, callbacks_in = _parts(trainer), _takes(kind, "callbacks")
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
            """Return the Trainer's fresh model; before the search it is asked for without a trial, as by any Trainer."""
            made: PreTrainedModel = model_init(self._trial()) if takes_trial else model_init()
            return made

        def trainer(self, **given: Any) -> Trainer:
            """Return a Trainer of the same kind with the same parts."""
            callbacks = [*own, Computing(), *given["callbacks"]]
            more: dict[str, Any] = {"callbacks": callbacks} if callbacks_in else {}
            made: Trainer = kind(model=given["model"], args=given["args"], **parts, **more)
            for callback in () if callbacks_in else callbacks:
                made.add_callback(callback)
            return made

        def _trial(self) -> Any:
            if self._spec is None or self._spec.drawn is None:
                return None
            if configuration:
                return {**self._spec.hyperparameters, **self._spec.drawn}
            return Drawn(dict(self._spec.drawn), self._spec.number)

    return Existing


class Drawn(FixedTrial):
    """The trial that ``model_init`` gets: Optuna's, fixed to what ``hp_space`` suggested before."""

    @property
    def params(self) -> dict[str, Any]:
        """What ``hp_space`` suggested; Optuna's own shows only what was asked for again."""
        return dict(self._params)


def _parts(trainer: Trainer) -> dict[str, Any]:
    """Return what the Trainer's class is to be made of again, its model, arguments and callbacks aside."""
    from transformers import Trainer

    kind, held = type(trainer), vars(trainer)
    parts = {name: held[name] for name in _KEPT if _takes(kind, name)}
    standard = inspect.signature(Trainer.__init__).parameters
    for name in ("model", "args"):
        if not _takes(kind, name):
            raise InputError(
                f"hyperparameter_search: {kind.__name__} takes no {name}, which differs from trial to trial"
            )
    for name in _named(kind):
        if name in standard:
            continue
        if name not in held:
            raise InputError(
                f"hyperparameter_search: {kind.__name__} takes {name} and does not keep it, so that a trial's Trainer would "
                f"be made without; set self.{name} = {name} in its __init__"
            )
        parts[name] = held[name]
    return parts


def _inits(kind: type) -> Iterator[Mapping[str, inspect.Parameter]]:
    """Yield the parameters of a Trainer's ``__init__``, and of those above as long as arguments are passed on by name."""
    for each in kind.__mro__:
        if "__init__" in vars(each):
            found = inspect.signature(vars(each)["__init__"]).parameters
            yield found
            if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in found.values()):
                return


def _named(kind: type) -> Iterator[str]:
    for parameters in _inits(kind):
        for index, parameter in enumerate(parameters.values()):
            if index and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                yield parameter.name


def _takes(kind: type, name: str) -> bool:
    return name in _named(kind)
