"""The TrainingArguments that every trial gets unless its study says otherwise, and those that are never the study's."""

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
"""What TrainingArguments get unless the study says otherwise."""

_CHECKPOINTS = "checkpoints are the study's: see its checkpoints section"
HUB = "trials push nothing to the hub; push the winner's checkpoint when the study is done"
OWNED: Mapping[str, str] = MappingProxyType(
    {
        "output_dir": "each trial has its own directory under runs/",
        "report_to": "runs are recorded by the study: see its tracking section",
        "run_name": "runs are named by the study and the trial's number",
        "disable_tqdm": "progress is shown by sweep run",
        "load_best_model_at_end": _CHECKPOINTS,
        "save_strategy": _CHECKPOINTS,
        "save_steps": _CHECKPOINTS,
        "save_total_limit": _CHECKPOINTS,
        "save_only_model": _CHECKPOINTS,
        "push_to_hub": HUB,
        "resume_from_checkpoint": "the same sweep run command resumes a study",
        "auto_find_batch_size": "running out of memory is handled by retries.out_of_memory",
        "logging_nan_inf_filter": "it hides NaN losses; see objective.nan",
        "local_rank": "ranks are the study's: see backend.ranks_per_trial",
        "do_train": "each trial trains and evaluates",
        "do_eval": "each trial trains and evaluates",
        "do_predict": "each trial trains and evaluates",
    }
)
"""TrainingArguments that sweepkit sets itself → why, or where the study says it."""


def owned(name: str) -> str | None:
    """Return why a TrainingArguments field is sweepkit's own, or None where it is free."""
    return HUB if name.startswith("hub_") else OWNED.get(name)
