"""The bundled metrics as modules of `evaluate`; scikit-learn and SciPy compute. Knows neither tasks nor files.

Names, inputs and results are those of the modules of the same name on the hub (rmse and perplexity are plainer: see
there), and a quantity that does not exist (a correlation with a constant) is 0 instead of NaN, so that it ranks last.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import evaluate
import numpy as np
from datasets import Features, Value
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as sk

Numbers = NDArray[Any]


def _averaged(score: Callable[..., Any]) -> Callable[..., Any]:
    """Let ``average`` follow the labels (two: binary, else macro) unless it is said."""

    def scored(references: Numbers, predictions: Numbers, average: str | None = "auto", **options: Any) -> Any:
        if average == "auto":
            average = "binary" if set(np.union1d(references, predictions).tolist()) <= {0, 1} else "macro"
        if average is None:
            raise ValueError("average must be binary, micro, macro or weighted: an objective is a single number")
        return score(references, predictions, average=average, **{"zero_division": 0, **options})

    return scored


def _correlation(test: Callable[..., Any]) -> Callable[..., float]:
    def correlated(references: Numbers, predictions: Numbers) -> float:
        if len(references) < 2 or np.ptp(references) == 0 or np.ptp(predictions) == 0:
            return 0.0
        with warnings.catch_warnings():  # an untrained model is nearly constant; that is no news
            warnings.simplefilter("ignore", stats.NearConstantInputWarning)
            return float(test(predictions, references).statistic)

    return correlated


def _perplexity(references: Numbers, predictions: Numbers) -> float:
    """Return exp of the mean of ``predictions``: negative log-likelihoods (``references`` are not looked at)."""
    mean = float(np.mean(predictions))
    return math.exp(mean) if mean < 700 else math.inf


class _Bundled(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """One number by one function of (references, predictions, **options)."""

    score: ClassVar[Callable[..., Any]]
    of: ClassVar[str]
    key: ClassVar[str]

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=f"{self.key}, computed in this process by scikit-learn or SciPy.",
            citation="",
            inputs_description="predictions and references, one number per example.",
            features=Features({"predictions": Value(self.of), "references": Value(self.of)}),
            format="numpy",
        )

    def _compute(self, predictions: Numbers, references: Numbers, **options: Any) -> dict[str, float]:
        return {self.key: float(type(self).score(np.asarray(references), np.asarray(predictions), **options))}


def _metric(key: str, of: str, score: Callable[..., Any]) -> type[_Bundled]:
    return type(key, (_Bundled,), {"score": staticmethod(score), "of": of, "key": key})


METRICS: Mapping[str, type[_Bundled]] = {
    "accuracy": _metric("accuracy", "int64", sk.accuracy_score),
    "f1": _metric("f1", "int64", _averaged(sk.f1_score)),
    "precision": _metric("precision", "int64", _averaged(sk.precision_score)),
    "recall": _metric("recall", "int64", _averaged(sk.recall_score)),
    "matthews_correlation": _metric("matthews_correlation", "int64", sk.matthews_corrcoef),
    "mse": _metric("mse", "float64", sk.mean_squared_error),
    "rmse": _metric("rmse", "float64", sk.root_mean_squared_error),
    "mae": _metric("mae", "float64", sk.mean_absolute_error),
    "pearsonr": _metric("pearsonr", "float64", _correlation(stats.pearsonr)),
    "spearmanr": _metric("spearmanr", "float64", _correlation(stats.spearmanr)),
    "perplexity": _metric("perplexity", "float64", _perplexity),
}
"""Bundled metric → its class."""
