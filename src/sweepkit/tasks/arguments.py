"""The TrainingArguments that sweepkit sets: defaults that a study may override, and fields that it may not."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

SWEEPKIT_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "eval_strategy": "epoch",
        "logging_steps": 10,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,
    }
)
"""Defaults of a trial's TrainingArguments, where they differ from transformers'."""

_CHECKPOINTS = "checkpoints belong to the study: see its checkpoints section"
HUB = "trials push nothing to the hub; push the winner's checkpoint when the study is done"
OWNED: Mapping[str, str] = MappingProxyType(
    {
        "output_dir": "each trial has its own directory under runs/",
        "run_name": "runs are named by the study and the trial's number",
        "disable_tqdm": "progress is shown by sweep run",
        "load_best_model_at_end": _CHECKPOINTS,
        "save_strategy": _CHECKPOINTS,
        "save_steps": _CHECKPOINTS,
        "save_total_limit": _CHECKPOINTS,
        "save_only_model": _CHECKPOINTS,
        "push_to_hub": HUB,
        "resume_from_checkpoint": "the same sweep run command resumes a study",
        "auto_find_batch_size": "retries.out_of_memory handles running out of memory",
        "logging_nan_inf_filter": "it hides NaN losses; see objective.nan",
        "local_rank": "ranks belong to the study: see backend.ranks_per_trial",
        "do_train": "each trial trains and evaluates",
        "do_eval": "each trial trains and evaluates",
        "do_predict": "each trial trains and evaluates",
    }
)
"""TrainingArguments that a study may not set → the reason, or the study's key for it."""

SHARDS = ("fsdp", "deepspeed")
"""TrainingArguments that spread one model over the ranks of a trial; left out where it, or the look before it, has one."""

REPORTERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"wandb": ("wandb",), "tensorboard": ("tensorboard", "tensorboardX"), "trackio": ("trackio",)}
)
"""Names of ``report_to`` that a study may have → the packages of which one is needed."""


def reporters(asked: Any) -> list[str]:
    """Return the names in a ``report_to``: a text, a list, or nothing."""
    names = [asked] if isinstance(asked, str) else list(asked or ())
    return [name for name in names if name != "none"]


def why_owned(name: str) -> str | None:
    """Return why a study may not set a TrainingArguments field, or None where it may."""
    return HUB if name.startswith("hub_") else OWNED.get(name)
