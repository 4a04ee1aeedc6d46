"""Metrics by the names `evaluate` gives them: the usual ones come with sweepkit, any other from a path or the hub.

Knows no task; imports nothing heavy until a metric is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepkit.study.errors import InputError, nearest

if TYPE_CHECKING:
    from evaluate import EvaluationModule

KEYS: Mapping[str, tuple[str, ...]] = {
    "accuracy": ("accuracy",),
    "f1": ("f1",),
    "precision": ("precision",),
    "recall": ("recall",),
    "matthews_correlation": ("matthews_correlation",),
    "mse": ("mse",),
    "rmse": ("rmse",),
    "mae": ("mae",),
    "pearsonr": ("pearsonr",),
    "spearmanr": ("spearmanr",),
    "perplexity": ("perplexity",),
}
"""Bundled metric → the names of the values it returns."""

AVERAGED = frozenset({"f1", "precision", "recall"})
"""Bundled metrics that take ``average``."""


def label(name: str) -> str:
    """Return the plain name of a metric given by name or path."""
    return Path(name).stem if name.endswith(".py") else name.rstrip("/").rpartition("/")[2]


def defaults(name: str, classes: int | None) -> dict[str, Any]:
    """Return a bundled metric's options that no one need say: ``average`` is binary for two classes, else macro."""
    return {"average": "binary" if classes == 2 else "macro"} if name in AVERAGED and classes is not None else {}


@lru_cache
def load(name: str) -> EvaluationModule:
    """Return the metric: a bundled one by name (no network, no file), else whatever ``evaluate.load`` finds.

    Nothing a metric does goes through files that a neighbouring process uses too. Raises InputError.
    """
    options = {"keep_in_memory": True}  # evaluate's default is a file shared by all processes of the machine
    if name in KEYS:
        from sweepkit.tasks.metrics import bundled

        return bundled.METRICS[name](**options)
    import evaluate
    from filelock import FileLock

    lock = Path(evaluate.config.HF_EVALUATE_CACHE) / "sweepkit.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock):  # evaluate copies the module into its cache: not safe for several processes at once
            return evaluate.load(name, **options)
    except Exception as error:  # a hub, a path, a person's module: each fails in its own way
        raise InputError(
            f"metric {name} cannot be loaded ({type(error).__name__}: {str(error).strip().splitlines()[0]}); "
            f"bundled ones are {', '.join(KEYS)}{nearest(name, KEYS)}"
        ) from error
