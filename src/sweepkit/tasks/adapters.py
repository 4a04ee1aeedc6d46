"""Adapters of PEFT: which method a trial trains, and its configuration from the trial's ``peft.*`` values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweepkit.study.errors import InputError, nearest

DEFAULT = "LORA"
"""The method where ``peft.type`` is not given."""
REFUSED: Mapping[str, str] = {
    "ADALORA": "it reallocates ranks using state that checkpoints lack, so no trial could be resumed; "
    "LORA takes rank_pattern",
    "XLORA": "it combines adapters that are already trained",
}
"""Method that a study cannot train → the reason."""

_HEADS: Mapping[str, list[str]] = {"TOKEN_CLS": ["classifier", "score"], "QUESTION_ANS": ["qa_outputs"]}
"""Task type → the head, which is trained whole; for these, PEFT's all-linear would put an adapter on it as well and fail."""


def configuration(values: Mapping[str, Any], task_type: str | None) -> Any:
    """Return PEFT's configuration of these ``peft.*`` values, ``type`` among them. Raises InputError."""
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    known = {method.value: cls for method, cls in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    given = {"type": DEFAULT, "task_type": task_type, **values}
    method = str(given.pop("type"))
    if method not in known:
        raise InputError(f"peft.type: there is no method {method}{nearest(method, known)}")
    if method in REFUSED:
        raise InputError(f"peft.type: {method} cannot be trained here: {REFUSED[method]}")
    heads = _HEADS.get(str(given["task_type"]))
    if heads and str(given.get("target_modules")).lower() == "all-linear":
        given = {"exclude_modules": heads, **given}
    try:
        return known[method](**given)
    except (TypeError, ValueError) as error:
        raise InputError(f"peft: {known[method].__name__} cannot be made: {error}") from error
