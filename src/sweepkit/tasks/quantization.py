"""Weights in 4 or 8 bits by bitsandbytes: what a task's ``quantization`` needs, and the configuration it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

from sweepkit.study.errors import InputError, nearest
from sweepkit.tasks.references import package_folder

PACKAGE = "bitsandbytes"


def missing() -> str:
    """Return what is not installed here to load quantized weights, or nothing."""
    return "" if package_folder(PACKAGE) else f"needs {PACKAGE}, which is not installed: pip install {PACKAGE}"


def configuration(options: Mapping[str, Any]) -> Any:
    """Return the BitsAndBytesConfig of these options. Raises InputError, also where there is no package or no GPU for it."""
    import torch
    from transformers import BitsAndBytesConfig

    known = [name for name in signature(BitsAndBytesConfig).parameters if name != "kwargs"]
    if strange := [name for name in options if name not in known]:
        hint = nearest(strange[0], known) or f"; its fields are {', '.join(known)}"
        raise InputError(f"task.quantization: BitsAndBytesConfig has no field {strange[0]}{hint}")
    if reason := missing():
        raise InputError(f"task.quantization: {reason}")
    if not torch.cuda.is_available():
        raise InputError(
            "task.quantization: quantized weights need a GPU, and a trial sees none; see backend.gpus_per_trial"
        )
    try:
        return BitsAndBytesConfig(**options)
    except (TypeError, ValueError) as error:
        raise InputError(f"task.quantization: {error}") from error
