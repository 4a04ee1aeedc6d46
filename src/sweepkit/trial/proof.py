"""Reads every hyperparameter back from where it acts and compares it with the sampled value.

A difference fails the trial; a value that cannot be read back is listed as unproved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from sweepkit.study.errors import TrialFailed
from sweepkit.study.study import Values
from sweepkit.trial.trial import TrialSpec

if TYPE_CHECKING:
    from transformers import Trainer

    from sweepkit.tasks.task import Task

_UNREADABLE = object()


def restore(trainer: Trainer) -> None:
    """After a checkpoint was loaded, give optimizer and scheduler this trial's values again.

    Equal values stay untouched, so that a plain resume is exact. A changed base learning rate is scaled by the schedule's
    current factor.
    """
    fresh: tuple[list[dict[str, Any]], list[float]] | None = getattr(trainer, "_sweepkit_fresh", None)
    optimizer = trainer.optimizer
    scheduler: Any = trainer.lr_scheduler
    if fresh is None or optimizer is None or trainer.state.global_step == 0:
        return
    groups, base_rates = fresh
    for group, own in zip(optimizer.param_groups, groups, strict=True):
        for key, value in own.items():
            if group.get(key) != value:
                group[key] = value
    old_rates = list(getattr(scheduler, "base_lrs", []))
    if not base_rates or old_rates == base_rates:
        return
    scheduler.base_lrs = list(base_rates)
    factors = getattr(scheduler, "lr_lambdas", None)
    for index, (group, old, new) in enumerate(zip(optimizer.param_groups, old_rates, base_rates, strict=True)):
        factor = factors[index](scheduler.last_epoch) if factors else (group["lr"] / old if old else 1.0)
        group["lr"] = new * factor
    scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]


def prove(trainer: Trainer, task: Task, values: Values, spec: TrialSpec) -> tuple[list[str], list[str]]:
    """Compare every value with the places where it acts, optimizer and scheduler among them; return (proved, unproved).

    Raises TrialFailed with every parameter that differs, its expected and its actual value.
    """
    differences: list[str] = []
    proved: list[str] = []
    unproved: list[str] = []
    arguments = _expected_arguments(values.training, spec)
    places: list[tuple[str, Mapping[str, Any], Callable[[str], list[Any]]]] = [
        ("", arguments, lambda name: _actual_arguments(trainer, name, arguments[name])),
        ("model.", values.model, lambda name: [_read(_configuration(trainer), name)]),
        ("peft.", values.peft, lambda name: _actual_adapter(trainer, name, values.peft[name])),
        ("task.", values.task, lambda name: [_read(task, name)]),
    ]
    for prefix, expected, read in places:
        for name, value in expected.items():
            readable = [each for each in read(name) if each is not _UNREADABLE]
            wrong = [each for each in readable if not same(value, each)]
            if wrong:
                differences.append(f"{prefix}{name}: expected {value!r}, found {_plain(wrong[0])!r}")
            else:
                (proved if readable else unproved).append(f"{prefix}{name}")
    if differences:
        raise TrialFailed("what is trained is not what was sampled: " + "; ".join(differences))
    return sorted(proved), sorted(unproved)


def same(expected: Any, found: Any) -> bool:
    """Whether two values are equal: enums by value, numbers to a relative 1e-12, a bool only to a bool."""
    expected, found = _plain(expected), _plain(found)
    if isinstance(expected, Mapping) and not isinstance(found, Mapping) and hasattr(found, "__dict__"):
        found = vars(found)  # an AcceleratorConfig, made of the mapping
    if isinstance(expected, bool) or isinstance(found, bool):
        return expected is found
    if isinstance(expected, (int, float)) and isinstance(found, (int, float)):
        return math.isclose(expected, found, rel_tol=1e-12, abs_tol=0.0) or (math.isnan(expected) and math.isnan(found))
    if isinstance(expected, (list, tuple)) and isinstance(found, (list, tuple)):
        return len(expected) == len(found) and all(map(same, expected, found))
    if isinstance(found, (set, frozenset)) and isinstance(expected, (list, tuple, set)):
        return set(expected) == set(found)
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        return expected.keys() <= found.keys() and all(same(value, found[key]) for key, value in expected.items())
    return bool(expected == found)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _read(owner: Any, name: str) -> Any:
    for part in name.split("."):
        owner = owner.get(part, _UNREADABLE) if isinstance(owner, Mapping) else getattr(owner, part, _UNREADABLE)
    return owner


def _expected_arguments(training: Mapping[str, Any], spec: TrialSpec) -> dict[str, Any]:
    """Return the sampled values, with the divided micro-batch and the trial's own seed."""
    return {**training, **spec.batch(training), **({} if spec.seed is None else {"seed": spec.seed})}


def _configuration(trainer: Trainer) -> Any:
    model = trainer.accelerator.unwrap_model(trainer.model) if trainer.model is not None else None
    return getattr(model, "config", None)


def _adapter(trainer: Trainer) -> Any:
    adapters = getattr(trainer.accelerator.unwrap_model(trainer.model), "peft_config", {})
    return next(iter(adapters.values()), None)


def _actual_adapter(trainer: Trainer, name: str, expected: Any) -> list[Any]:
    """Return an adapter's value from its configuration and from the adapted model."""
    if name == "target_modules" and str(expected).lower() == "all-linear":
        return [_without_adapter(trainer) or expected]  # PEFT replaces the word by names of layers
    return [_read(_adapter(trainer), name), *_actual_rank(trainer, name)]


def _without_adapter(trainer: Trainer) -> list[str]:
    """Return the linear layers that have no adapter and belong to no head, which is trained whole."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    model = trainer.accelerator.unwrap_model(trainer.model)
    left_out = [model.get_output_embeddings()]
    left_out += [part for part in model.modules() if isinstance(part, (BaseTunerLayer, AuxiliaryTrainingWrapper))]
    below = {id(module) for part in left_out if part is not None for module in part.modules()}
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and id(module) not in below
    ]


def _actual_rank(trainer: Trainer, name: str) -> list[Any]:
    """Return the rows of every lora_A matrix for ``r``."""
    if name != "r" or trainer.model is None:
        return []
    adapter = _adapter(trainer)
    if getattr(adapter, "rank_pattern", None):
        return []
    return [p.shape[0] for key, p in trainer.model.named_parameters() if "lora_A" in key and p.dim() == 2]


def _actual_arguments(trainer: Trainer, name: str, value: Any) -> list[Any]:
    """Return the argument, and what optimizer, scheduler or data loader hold of it.

    Where the optimizer or the scheduler is the task's own, other values there are its own business: the argument then
    counts as read only if every place that shows it agrees.
    """
    argument = _read(trainer.args, name)
    acting = _ACTING.get(name) if trainer.optimizer is not None else None
    found = acting(trainer) if acting else []
    if same(value, argument) and _own(trainer, name) and not (found and all(same(value, each) for each in found)):
        return [_UNREADABLE]
    return [argument, *found]


def remember_own(trainer: Trainer) -> None:
    """Note on a new Trainer whether it was given an optimizer or a scheduler, before it makes those it was not given."""
    given = (
        trainer.optimizer is not None or trainer.optimizer_cls_and_kwargs is not None,
        trainer.lr_scheduler is not None,
    )
    trainer._sweepkit_own = given  # type: ignore[attr-defined]  # carried to the proof on the Trainer itself


def _own(trainer: Trainer, name: str) -> bool:
    """Whether the argument acts in an optimizer or scheduler that is not made by the Trainer's own code."""
    from transformers import Trainer

    optimizer, scheduler = getattr(trainer, "_sweepkit_own", (False, False))
    if name in _OF_OPTIMIZER:
        return optimizer or type(trainer).create_optimizer is not Trainer.create_optimizer
    return name in _OF_SCHEDULER and (scheduler or type(trainer).create_scheduler is not Trainer.create_scheduler)


_OF_OPTIMIZER = frozenset(
    {"learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "optim", "optim_args"}
)
_OF_SCHEDULER = frozenset({"lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio"})


def _groups(trainer: Trainer) -> list[dict[str, Any]]:
    """Return the optimizer's param groups."""
    return [] if trainer.optimizer is None else list(trainer.optimizer.param_groups)


def _learning_rates(trainer: Trainer) -> list[Any]:
    return [group["initial_lr"] for group in _groups(trainer) if "initial_lr" in group]


def _weight_decays(trainer: Trainer) -> list[Any]:
    """Return the decay of the first group; the Trainer puts biases and norms into a second one without decay."""
    if trainer.args.weight_decay == 0.0:
        return []
    decays = [group["weight_decay"] for group in _groups(trainer) if "weight_decay" in group]
    return [max(decays)] if decays else []


def _betas(index: int) -> Callable[[Trainer], list[Any]]:
    def read(trainer: Trainer) -> list[Any]:
        return [group["betas"][index] for group in _groups(trainer) if "betas" in group]

    return read


def _epsilons(trainer: Trainer) -> list[Any]:
    if "adam" not in str(_plain(trainer.args.optim)):
        return []
    return [group["eps"] for group in _groups(trainer) if isinstance(group.get("eps"), float)]


def _batch_sizes(trainer: Trainer) -> list[Any]:
    loader = trainer.callback_handler.train_dataloader
    total = getattr(loader, "total_batch_size", None) or getattr(loader, "batch_size", None)
    if total is None:
        return []
    shown = total // max(1, trainer.args.world_size) if getattr(loader, "total_batch_size", None) else total
    return [shown // max(1, trainer.args.n_gpu)] if trainer.args.n_gpu > 1 else [shown]


def _warmup(trainer: Trainer) -> list[Any]:
    """Return the warm-up if the scheduler's factor first reaches 1 at its end."""
    from transformers import Trainer as Plain

    factors = getattr(trainer.lr_scheduler, "lr_lambdas", None)
    total = trainer.state.max_steps
    steps = trainer.args.get_warmup_steps(total)
    if not factors or steps <= 0 or steps >= total or type(trainer).create_scheduler is not Plain.create_scheduler:
        return []
    rising = all(factors[0](step) < 1.0 for step in range(max(0, steps - 2), steps))
    peaks = rising and math.isclose(factors[0](steps), 1.0, abs_tol=1e-6)
    return [trainer.args.warmup_steps if peaks else f"a peak that is not at step {steps}"]


def _schedule_options(trainer: Trainer) -> list[Any]:
    """Return what the scheduler's factor was made with, if that has every key of the argument under its name."""
    factors = getattr(trainer.lr_scheduler, "lr_lambdas", None)
    held: dict[str, Any] = getattr(factors[0], "keywords", {}) if factors else {}
    asked: Any = trainer.args.lr_scheduler_kwargs or {}
    return [held] if asked.keys() <= held.keys() else []


_ACTING: Mapping[str, Callable[[Trainer], list[Any]]] = {
    "learning_rate": _learning_rates,
    "weight_decay": _weight_decays,
    "adam_beta1": _betas(0),
    "adam_beta2": _betas(1),
    "adam_epsilon": _epsilons,
    "per_device_train_batch_size": _batch_sizes,
    "warmup_steps": _warmup,
    "lr_scheduler_kwargs": _schedule_options,
}
