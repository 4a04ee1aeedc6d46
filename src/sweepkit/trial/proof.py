"""Reads every hyperparameter back from where it acts and compares it with the sampled value.

Another value fails the trial where transformers itself put it there. In param groups, schedulers and data loaders made by
the user's code or another library it may be intended, so the hyperparameter is listed as unproved, as is one that cannot
be read back.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from transformers import Trainer

from sweepkit.study.errors import TrialFailed
from sweepkit.study.study import Values
from sweepkit.trial.private import set_last_rates
from sweepkit.trial.trial import TrialSpec

if TYPE_CHECKING:
    from sweepkit.tasks.task import Task

Groups = list[dict[str, Any]]


@dataclass(frozen=True)
class _Place:
    """A place where a hyperparameter acts."""

    found: Sequence[Any]
    """The values there; empty where none can be read."""
    ours: bool = True
    """Whether they were put there by transformers, which knows only the sampled value."""

    def holds(self, expected: Any) -> bool | None:
        """Whether all values are the expected one; None where only some are, or others may be intended."""
        equal = [same(expected, each) for each in self.found]
        if equal and all(equal):
            return True
        return False if self.ours and equal and all(each is False for each in equal) else None


class _Wrong(str):
    """Words for what is found in place of the expected value."""


@dataclass
class _Made:
    """What transformers' own code makes for a Trainer, and what it first holds."""

    optimizer: bool
    scheduler: bool
    loader: bool
    groups: Groups = field(default_factory=list)
    """Hyperparameters of the fresh optimizer's param groups."""
    rates: list[float] = field(default_factory=list)
    """Base learning rates of the fresh scheduler."""


_MADE: WeakKeyDictionary[Trainer, _Made] = WeakKeyDictionary()


def observe(trainer: Trainer) -> None:
    """Note, for :func:`restore` and :func:`prove`, who makes a new Trainer's optimizer, scheduler and data loader."""
    made = _MADE[trainer] = _Made(
        optimizer=trainer.optimizer is None
        and trainer.optimizer_cls_and_kwargs is None
        and _stock(trainer, "create_optimizer", "get_optimizer_cls_and_kwargs", "get_decay_parameter_names"),
        scheduler=trainer.lr_scheduler is None and _stock(trainer, "create_scheduler"),
        loader=_stock(trainer, "get_train_dataloader"),
    )
    create_scheduler = trainer.create_scheduler

    def observing(num_training_steps: int, optimizer: Any = None) -> Any:
        scheduler = create_scheduler(num_training_steps, optimizer)
        made.groups = _hyperparameters(optimizer or trainer.optimizer)
        made.rates = list(getattr(scheduler, "base_lrs", []))
        return scheduler

    trainer.create_scheduler = observing  # type: ignore[method-assign]  # public hook, wrapped for this one Trainer


def _stock(trainer: Trainer, *methods: str) -> bool:
    """Whether a Trainer's methods are transformers' own."""
    own = [getattr(trainer, name) for name in methods]
    return [getattr(each, "__func__", each) for each in own] == [getattr(Trainer, name) for name in methods]


def _hyperparameters(optimizer: Any) -> Groups:
    """Return what the optimizer's constructor takes, by param group, without the learning rate that schedulers change.

    Anything else in a group may be state, such as the step counter of schedule-free optimizers.
    """
    names = {"initial_lr", *inspect.signature(type(getattr(optimizer, "optimizer", optimizer)).__init__).parameters}
    return [{key: group[key] for key in names - {"lr", "params"} if key in group} for group in _groups(optimizer)]


def _groups(optimizer: Any) -> Groups:
    return list(getattr(optimizer, "param_groups", ()))


def restore(trainer: Trainer) -> None:
    """After a checkpoint was loaded, give optimizer and scheduler this trial's values again.

    Loading restores the param groups as they were saved, which would silently undo a change that population-based training
    made. Equal values stay untouched, so that a plain resume is exact. A changed base learning rate is scaled by the
    schedule's current factor.
    """
    made, optimizer, scheduler = _MADE[trainer], trainer.optimizer, trainer.lr_scheduler
    if trainer.state.global_step == 0 or not made.groups:
        return
    groups = _groups(optimizer)
    for group, own in zip(groups, made.groups, strict=True):
        group.update({key: value for key, value in own.items() if group.get(key) != value})
    old_rates = list(getattr(scheduler, "base_lrs", []))
    if not made.rates or old_rates == made.rates:
        return
    scheduler.base_lrs = list(made.rates)  # type: ignore[union-attr]  # a scheduler with base rates is one
    factors = getattr(scheduler, "lr_lambdas", None)
    for index, (group, old, new) in enumerate(zip(groups, old_rates, made.rates, strict=True)):
        factor = factors[index](scheduler.last_epoch) if factors else (group["lr"] / old if old else 1.0)  # type: ignore[union-attr]  # see above
        group["lr"] = new * factor
    set_last_rates(scheduler, [group["lr"] for group in groups])


def prove(trainer: Trainer, task: Task, values: Values, spec: TrialSpec) -> tuple[list[str], list[str]]:
    """Compare every value with the places where it acts, optimizer and scheduler among them; return (proved, unproved).

    Raises TrialFailed with every parameter that differs, its expected and its actual value, and where the ranks of a trial
    would train a model each.
    """
    if trainer.args.world_size != spec.ranks:
        raise TrialFailed(f"backend.ranks_per_trial is {spec.ranks}, but the Trainer counts {trainer.args.world_size}")
    differences: list[str] = []
    proved: list[str] = []
    unproved: list[str] = []
    for name, expected, places in _places(trainer, task, values, spec):
        verdicts = [place.holds(expected) for place in places]
        if False in verdicts:
            wrong = places[verdicts.index(False)].found[0]
            shown = wrong if isinstance(wrong, _Wrong) else repr(_plain(wrong))
            differences.append(f"{name}: expected {expected!r}, found {shown}")
        else:
            (proved if all(verdicts) else unproved).append(name)
    if differences:
        raise TrialFailed("what is trained is not what was sampled: " + "; ".join(differences))
    return sorted(proved), sorted(unproved)


def _places(
    trainer: Trainer, task: Task, values: Values, spec: TrialSpec
) -> Iterator[tuple[str, Any, Sequence[_Place]]]:
    """Yield name, expected value and places of every hyperparameter, fixed ones included."""
    arguments = {**values.training, **spec.batch(values.training)}
    if spec.seed is not None:
        arguments["seed"] = spec.seed
    for name, value in arguments.items():
        yield name, value, [_Place([_read(trainer.args, name)]), *_acting(trainer, name, value)]
    model = trainer.accelerator.unwrap_model(trainer.model) if trainer.model is not None else None
    accepted = inspect.signature(task.model_init).parameters
    for name, value in values.model.items():
        found = _readable(_read(getattr(model, "config", None), name))
        yield f"model.{name}", value, [_Place(found, ours=name not in accepted)]
    for name, value in values.peft.items():
        yield f"peft.{name}", value, list(_adapter_places(model, name, value))
    fields = {option.alias: name for name, option in type(task).model_fields.items()}
    for name, value in values.task.items():
        yield f"task.{name}", value, [_Place(_readable(_read(task, fields.get(name, name))))]


def same(expected: Any, found: Any) -> bool | None:
    """Whether two values are equal: enums by value, numbers to a relative 1e-12.

    None where they are of different kinds, as after a conversion, and cannot be compared.
    """
    expected, found = _plain(expected), _plain(found)
    if isinstance(found, _Wrong):
        return False
    if expected is None or found is None:
        return expected is found
    if isinstance(found, (list, tuple)) and isinstance(expected, str):
        return [_plain(each) for each in found] in ([expected], expected.split()) or None
    if isinstance(expected, Mapping) and not isinstance(found, Mapping) and hasattr(found, "__dict__"):
        found = vars(found)
    kind = next((kind for kind in _KINDS if isinstance(expected, kind)), type(expected))
    if not isinstance(found, kind) or isinstance(found, bool) != isinstance(expected, bool):
        return None
    if isinstance(expected, (bool, str)) or kind not in _KINDS:
        return bool(expected == found)
    if isinstance(expected, (int, float)):
        return math.isclose(expected, found, rel_tol=1e-12, abs_tol=0.0) or (math.isnan(expected) and math.isnan(found))
    return _same_parts(expected, found)


def _same_parts(expected: Any, found: Any) -> bool | None:
    """The same for two mappings, sets or sequences: False if a part differs, None if one cannot be compared."""
    if isinstance(expected, Mapping):
        found = {str(key): value for key, value in found.items()}
        pairs = [(value, found.get(str(key))) for key, value in expected.items()]
    elif isinstance(found, (set, frozenset)) or isinstance(expected, (set, frozenset)):
        return set(expected) == set(found)
    else:
        pairs = list(zip(expected, found, strict=False)) if len(expected) == len(found) else [(0, 1)]
    verdicts = [same(one, other) for one, other in pairs]
    return False if False in verdicts else None if None in verdicts else True


_MISSING = object()
_KINDS: tuple[Any, ...] = (bool, (int, float), str, Mapping, (list, tuple, set, frozenset))
"""Values of one kind can be compared."""


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    return value.item() if getattr(value, "shape", None) == () else value


def _read(owner: Any, name: str) -> Any:
    for part in name.split("."):
        owner = owner.get(part, _MISSING) if isinstance(owner, Mapping) else getattr(owner, part, _MISSING)
    return owner


def _readable(value: Any) -> list[Any]:
    return [] if value is _MISSING else [value]


def _adapter_places(model: Any, name: str, expected: Any) -> Iterator[_Place]:
    """Yield an adapter's value in its configuration and in the adapted model."""
    adapted = next((part for part in model.modules() if hasattr(part, "peft_config")), None)  # or what the model wraps
    adapter = next(iter(getattr(adapted, "peft_config", {}).values()), None)
    found = _read(adapter, "peft_type" if name == "type" else name)
    if name == "target_modules" and str(expected).lower() == "all-linear":
        bare = _without_adapter(model)  # PEFT replaces the word by names of layers
        yield _Place([_Wrong(f"no adapter on {', '.join(bare)}") if bare else expected])
        return
    if name == "modules_to_save" and found:
        found = [each for each in found if each in expected]  # PEFT adds the heads of classifiers
    yield _Place(_readable(found))
    if name == "r" and not getattr(adapter, "rank_pattern", None):
        ranks = [p.shape[0] for key, p in model.named_parameters() if "lora_A" in key and p.dim() == 2]
        yield from [_Place(ranks)] if ranks else []


def _without_adapter(model: Any) -> list[str]:
    """Return the linear layers that have no adapter and belong to no head, which is trained whole."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper
    from transformers.pytorch_utils import Conv1D

    left_out = [getattr(model, "get_output_embeddings", lambda: None)()]
    left_out += [part for part in model.modules() if isinstance(part, (BaseTunerLayer, AuxiliaryTrainingWrapper))]
    below = {id(module) for part in left_out if part is not None for module in part.modules()}
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and id(module) not in below
    ]


def _acting(trainer: Trainer, name: str, value: Any) -> Iterator[_Place]:
    """Yield where a training argument acts, if that is in the optimizer, the scheduler or the data loader."""
    made, optimizer = _MADE[trainer], trainer.optimizer
    if name in ("fsdp", "deepspeed") and value:
        used = trainer.accelerator.distributed_type.value
        yield _Place([value if used == name.upper() else _Wrong(f"{used}, which shards nothing")])
    elif name in _IN_LOADER:
        yield _Place(_IN_LOADER[name](trainer), made.loader)
    elif name in _IN_SCHEDULER:
        read = _IN_SCHEDULER[name]
        yield _Place(read(trainer) if read else [value] if made.scheduler else [], made.scheduler)
    elif name in _IN_OPTIMIZER:
        own = made.optimizer and (made.scheduler or name != "learning_rate")
        changed = made.groups != _hyperparameters(optimizer)  # by a callback
        in_groups = _IN_OPTIMIZER[name]
        found = in_groups(trainer, _groups(optimizer)) if in_groups else [value] if made.optimizer else []
        yield _Place(found, own and not changed)


def _learning_rates(trainer: Trainer, groups: Groups) -> list[Any]:
    key = "initial_lr" if any("initial_lr" in group for group in groups) else "lr"
    return [] if key == "lr" and trainer.state.global_step else [group[key] for group in groups if key in group]


def _weight_decays(trainer: Trainer, groups: Groups) -> list[Any]:
    """Return the decay of the groups that have one: transformers gives biases and norms a decay of 0."""
    decays = [(group["weight_decay"], bool(group["params"])) for group in groups if "weight_decay" in group]
    used = {decay for decay, filled in decays if filled}
    empty = {decay for decay, filled in decays if not filled} - {0.0}
    return sorted(used - {0.0}) or ([] if empty else sorted(used))


def _betas(index: int) -> Callable[[Trainer, Groups], list[Any]]:
    def read(trainer: Trainer, groups: Groups) -> list[Any]:
        of_adam = any(word in _plain(trainer.args.optim) for word in ("adam", "lion", "ademamix"))
        return [group["betas"][index] for group in groups if of_adam and "betas" in group]

    return read


def _epsilons(trainer: Trainer, groups: Groups) -> list[Any]:
    of_adam = "adam" in _plain(trainer.args.optim)
    return [group["eps"] for group in groups if of_adam and isinstance(group.get("eps"), float)]


def _batch_sizes(trainer: Trainer) -> list[Any]:
    loader = trainer.callback_handler.train_dataloader
    if (total := getattr(loader, "total_batch_size", None)) is not None:
        split = getattr(trainer.args.accelerator_config, "split_batches", False)
        size = total if split else total // max(1, trainer.args.world_size)
    elif (size := getattr(loader, "batch_size", None)) is None:
        # A sampler that makes the batches itself knows their size.
        size = getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
    if size is None:
        return []
    return [size // max(1, trainer.args.n_gpu)]


def _warmups(trainer: Trainer) -> list[Any]:
    """Return the warm-up if a schedule that rises first reaches 1 at its end, and that of a schedule-free optimizer."""
    total, given = trainer.state.max_steps, trainer.args.warmup_steps
    steps = trainer.args.get_warmup_steps(total)
    inside = {group["warmup_steps"] for group in _groups(trainer.optimizer) if "warmup_steps" in group}
    found = [given if each == steps else _Wrong(f"{each} steps in the optimizer") for each in inside]
    factors = getattr(trainer.lr_scheduler, "lr_lambdas", None)
    if not factors or steps >= total or (steps and factors[0](0) == factors[0](steps)):
        return found
    rising = all(factors[0](step) < 1.0 for step in range(max(0, steps - 2), steps))
    peaks = rising and math.isclose(factors[0](steps), 1.0, abs_tol=1e-6)
    return [*found, given if peaks else _Wrong(f"a peak that is not at step {steps}")]


def _schedule_options(trainer: Trainer) -> list[Any]:
    """Return what the scheduler's factor was made with, if that has every key of the argument under its name."""
    factors = getattr(trainer.lr_scheduler, "lr_lambdas", None)
    held: dict[str, Any] = getattr(factors[0], "keywords", {}) if factors else {}
    asked: Any = trainer.args.lr_scheduler_kwargs or {}
    return [held] if asked.keys() <= held.keys() else []


_IN_OPTIMIZER: Mapping[str, Callable[[Trainer, Groups], list[Any]] | None] = {
    "learning_rate": _learning_rates,
    "weight_decay": _weight_decays,
    "adam_beta1": _betas(0),
    "adam_beta2": _betas(1),
    "adam_epsilon": _epsilons,
    **dict.fromkeys(("optim", "optim_args", "optim_target_modules")),
}
_IN_SCHEDULER: Mapping[str, Callable[[Trainer], list[Any]] | None] = {
    "warmup_steps": _warmups,
    "lr_scheduler_kwargs": _schedule_options,
    "lr_scheduler_type": None,
}
_IN_LOADER: Mapping[str, Callable[[Trainer], list[Any]]] = {"per_device_train_batch_size": _batch_sizes}
