"""Metrics by the names `evaluate` gives them: the usual ones are bundled, any other comes from a path or the hub.

Imports nothing heavy before a metric is loaded.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sweepkit.study.errors import InputError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

BUNDLED: Mapping[str, str] = {
    "accuracy": "sklearn.metrics:accuracy_score",
    "f1": "sklearn.metrics:f1_score",
    "precision": "sklearn.metrics:precision_score",
    "recall": "sklearn.metrics:recall_score",
    "matthews_correlation": "sklearn.metrics:matthews_corrcoef",
    "mse": "sklearn.metrics:mean_squared_error",
    "rmse": "sklearn.metrics:root_mean_squared_error",
    "mae": "sklearn.metrics:mean_absolute_error",
    "pearsonr": "scipy.stats:pearsonr",
    "spearmanr": "scipy.stats:spearmanr",
}
"""Bundled metric → the function that computes it; each reports one value, under its own name."""
AVERAGED = frozenset({"f1", "precision", "recall"})
"""Bundled metrics that take ``average``."""
LOWER_IS_BETTER = frozenset({"loss", "mse", "rmse", "mae", "perplexity"})
"""Metrics to be minimized."""
IGNORED = -100
"""Label that transformers' losses leave out."""


class Metric(Protocol):
    """What is needed of a metric; modules of `evaluate` have it."""

    def compute(self, *, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        """Return name → value over all examples."""


@dataclass(frozen=True)
class _Bundled:
    name: str

    def compute(self, *, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        """Return the value under the metric's name; 0 instead of NaN where it is undefined, so that it ranks last."""
        import numpy as np

        predicted, true = np.asarray(predictions), np.asarray(references)
        module, _, function = BUNDLED[self.name].partition(":")
        score = getattr(importlib.import_module(module), function)
        if module == "scipy.stats":
            return {self.name: self._correlation(score, predicted, true)}
        if self.name in AVERAGED:
            options = {
                "average": "binary" if set(np.union1d(true, predicted).tolist()) <= {0, 1} else "macro"
            } | options
            if options["average"] is None:
                raise ValueError("average must be binary, micro, macro or weighted: an objective is a single number")
            options = {"zero_division": 0, **options}
        return {self.name: float(score(true, predicted, **options))}

    @staticmethod
    def _correlation(score: Any, predicted: NDArray[Any], true: NDArray[Any]) -> float:
        import numpy as np
        from scipy.stats import NearConstantInputWarning

        if len(true) < 2 or np.ptp(true) == 0 or np.ptp(predicted) == 0:
            return 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NearConstantInputWarning)  # an untrained model is nearly constant
            return float(score(predicted, true).statistic)


def label(name: str) -> str:
    """Return the plain name of a metric given by name or path."""
    return Path(name).stem if name.endswith(".py") else name.rstrip("/").rpartition("/")[2]


def defaults(name: str, classes: int | None) -> dict[str, Any]:
    """Return the default options of a bundled metric: ``average`` is binary for two classes, else macro."""
    return {"average": "binary" if classes == 2 else "macro"} if name in AVERAGED and classes is not None else {}


@lru_cache
def load(name: str) -> Metric:
    """Return a bundled metric by name (no network, no file), else whatever ``evaluate.load`` finds.

    It keeps its inputs in memory, not in files shared with other processes. Raises InputError.
    """
    if name in BUNDLED:
        return _Bundled(name)
    import evaluate
    from filelock import FileLock

    lock = Path(evaluate.config.HF_EVALUATE_CACHE) / "sweepkit.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock):  # evaluate copies the module into its cache: not safe for several processes at once
            found: Metric = evaluate.load(name, keep_in_memory=True)
            return found
    except Exception as error:  # a hub, a path, a person's module: each fails in its own way
        raise InputError(
            f"metric {name} cannot be loaded ({type(error).__name__}: {str(error).strip().splitlines()[0]}); "
            f"bundled ones are {', '.join(BUNDLED)}{nearest(name, BUNDLED)}"
        ) from error


@dataclass(frozen=True)
class Decided:
    """Predictions and references, one entry each per label; ``classes`` is None where the output is a number."""

    predictions: NDArray[Any]
    references: NDArray[Any]
    classes: int | None


def decide(outputs: Any, labels: Any) -> Decided:
    """Return class numbers for logits, numbers for a single output; labels of -100 are left out, axes flattened.

    Of a tuple of outputs the first counts, as with the Trainer's own models. Raises ValueError for shapes that do not fit.

    >>> import numpy as np
    >>> decided = decide(np.array([[0.1, 2.0], [3.0, 0.0]]), np.array([1, 0]))
    >>> decided.predictions.tolist(), decided.classes
    ([1, 0], 2)
    """
    import numpy as np

    scores = np.asarray(outputs[0] if isinstance(outputs, tuple) else outputs)
    references = np.asarray(labels[0] if isinstance(labels, tuple) else labels)
    classes: int | None = None
    if scores.ndim == references.ndim + 1:
        if scores.shape[-1] == 1:
            scores = scores[..., 0]
        else:
            classes = int(scores.shape[-1])
            scores = scores.argmax(axis=-1)
    if scores.shape != references.shape:
        raise ValueError(
            f"predictions of shape {scores.shape} do not fit labels of shape {references.shape}; "
            "override compute_metrics for outputs of another kind"
        )
    counts = references != IGNORED if np.issubdtype(references.dtype, np.integer) else np.ones(references.shape, bool)
    return Decided(scores[counts], references[counts], classes)
