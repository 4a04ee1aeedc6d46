"""W&B parameter names in our words: TrainingArguments, ``model.``, ``peft.`` and ``task.`` names. Knows no distribution."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from sweepkit.check import Consumers
from sweepkit.check.fields.arguments import REMOVED, RENAMED
from sweepkit.tasks.arguments import owned

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "lr": "learning_rate",
        "batch_size": "per_device_train_batch_size",
        "train_batch_size": "per_device_train_batch_size",
        "per_gpu_train_batch_size": "per_device_train_batch_size",
        "eval_batch_size": "per_device_eval_batch_size",
        "per_gpu_eval_batch_size": "per_device_eval_batch_size",
        "epochs": "num_train_epochs",
        "num_epochs": "num_train_epochs",
        "n_epochs": "num_train_epochs",
        "wd": "weight_decay",
        "warmup_ratio": "warmup_steps",
        "warmup": "warmup_steps",
        "beta1": "adam_beta1",
        "beta2": "adam_beta2",
        "eps": "adam_epsilon",
        "epsilon": "adam_epsilon",
        "grad_clip": "max_grad_norm",
        "clip_grad_norm": "max_grad_norm",
        "accumulation_steps": "gradient_accumulation_steps",
        "grad_accumulation_steps": "gradient_accumulation_steps",
        "lr_scheduler": "lr_scheduler_type",
        "scheduler": "lr_scheduler_type",
        "optimizer": "optim",
        "evaluation_strategy": "eval_strategy",
        "label_smoothing": "label_smoothing_factor",
        "lora_r": "peft.r",
        "lora_rank": "peft.r",
        "max_seq_length": "task.max_length",
        "model_name": "task.model",
        "model_name_or_path": "task.model",
    }
)
"""Everyday names → ours."""
OPTIMIZERS: Mapping[str, str] = MappingProxyType({"adam": "adamw_torch", "adamw": "adamw_torch"})
"""Everyday names of optimizers → ``optim``'s."""
_NAMESPACES: Mapping[str, str] = MappingProxyType(
    {
        "model": "model",
        "model_config": "model",
        "config": "model",
        "peft": "peft",
        "lora": "peft",
        "lora_config": "peft",
        "task": "task",
        "data": "task",
    }
)
_ARGUMENTS = ("training", "training_args", "training_arguments", "trainer", "train", "args", "optimizer", "optim")


def our_name(written: str, consumers: Consumers) -> tuple[str | None, str]:
    """Return (our name, "") for a dotted W&B name, or (None, why nothing takes it)."""
    head, _, leaf = written.replace("-", "_").rpartition(".")
    if head in _NAMESPACES:
        return _taken(ALIASES.get(f"{head}_{leaf}", f"{_NAMESPACES[head]}.{leaf}"), consumers)
    if head and head not in _ARGUMENTS:
        return None, f"names begin with model., peft. or task., or are TrainingArguments, and {head} is none of these"
    name, why = _taken(leaf, consumers)
    if name is None and leaf in ALIASES:
        name, why = _taken(ALIASES[leaf], consumers)
    if name is None and leaf not in RENAMED and leaf not in REMOVED and owned(leaf) is None:
        elsewhere = [full for full in consumers.names() if full.partition(".")[2] == leaf]
        return (elsewhere[0], "") if elsewhere else (None, why)
    return name, why


def _taken(name: str, consumers: Consumers) -> tuple[str | None, str]:
    if name.startswith("peft.") and consumers.lora is None:
        return name, ""  # the extra may be installed later, and the check asks for it
    field, why = consumers.resolve(name)
    return (name, "") if field is not None else (None, why)


def our_optimizer(value: Any) -> Any:
    """Return an optimizer's name as ``optim`` takes it; others stay as they are."""
    return OPTIMIZERS.get(value.lower(), value.lower()) if isinstance(value, str) else value
