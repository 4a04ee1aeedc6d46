"""Metrics by their names in `evaluate`: the usual ones are bundled, any other is loaded from a path or the hub.

Imports nothing heavy until a metric is loaded.
"""

from __future__ import annotations

import importlib
import math
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sweepkit.study.errors import InputError, MissingExtra, nearest
from sweepkit.study.files import describe, first_line
from sweepkit.tasks.references import package_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SKLEARN, _SCORES = "sklearn.metrics", "sweepkit.tasks.scores"
BUNDLED: Mapping[str, Mapping[str, str]] = {
    "accuracy": {"classes": f"{_SKLEARN}:accuracy_score", "tags": f"{_SCORES}:entity_accuracy"},
    "f1": {"classes": f"{_SKLEARN}:f1_score", "tags": f"{_SCORES}:entity_f1", "answers": f"{_SCORES}:squad_f1"},
    "f1_micro": {"classes": f"{_SKLEARN}:f1_score", "tags": f"{_SCORES}:entity_f1"},
    "f1_macro": {"classes": f"{_SKLEARN}:f1_score", "tags": f"{_SCORES}:entity_f1"},
    "precision": {"classes": f"{_SKLEARN}:precision_score", "tags": f"{_SCORES}:entity_precision"},
    "recall": {"classes": f"{_SKLEARN}:recall_score", "tags": f"{_SCORES}:entity_recall"},
    "matthews_correlation": {"classes": f"{_SKLEARN}:matthews_corrcoef"},
    "mse": {"numbers": f"{_SKLEARN}:mean_squared_error"},
    "rmse": {"numbers": f"{_SKLEARN}:root_mean_squared_error"},
    "mae": {"numbers": f"{_SKLEARN}:mean_absolute_error"},
    "pearsonr": {"numbers": "scipy.stats:pearsonr"},
    "spearmanr": {"numbers": "scipy.stats:spearmanr"},
    "exact_match": {"answers": f"{_SCORES}:squad_exact_match"},
    "rouge1": {"texts": f"{_SCORES}:rouge1"},
    "rouge2": {"texts": f"{_SCORES}:rouge2"},
    "rougeL": {"texts": f"{_SCORES}:rougeL"},
    "rougeLsum": {"texts": f"{_SCORES}:rougeLsum"},
    "sacrebleu": {"texts": f"{_SCORES}:sacrebleu"},
    "chrf": {"texts": f"{_SCORES}:chrf"},
    "perplexity": {"loss": f"{_SCORES}:perplexity"},
}
"""Bundled metric → what it compares → ``module:function`` that computes it; each reports one value under its own name.

It compares ``classes``, ``numbers``, the ``tags`` of each example's words, ``texts``, or ``answers`` with several right ones;
one of the ``loss`` is added by the Trainer.
"""
PACKAGES: Mapping[str, str] = {
    "tags": "seqeval",
    **dict.fromkeys(("rouge1", "rouge2", "rougeL", "rougeLsum"), "rouge_score"),
    **dict.fromkeys(("sacrebleu", "chrf"), "sacrebleu"),
}
"""Package of the extra ``metrics`` that comparing tags, or a metric, needs."""
ON_THE_HUB = frozenset(
    (
        *("bertscore", "bleu", "bleurt", "brier_score", "cer", "character", "charcut_mt", "chrf"),
        *("code_eval", "comet", "competition_math", "confusion_matrix", "coval", "cuad", "exact_match", "frugalscore"),
        *("glue", "google_bleu", "indic_glue", "mahalanobis", "mape", "mase", "mauve", "mcnemar"),
        *("mean_iou", "meteor", "nist_mt", "perplexity", "poseval", "r_squared", "rl_reliability", "roc_auc"),
        *("rouge", "sacrebleu", "sari", "seqeval", "smape", "squad", "squad_v2", "super_glue"),
        *("ter", "trec_eval", "wer", "wiki_split", "xnli", "xtreme_s"),
    )
)
"""Metrics that `evaluate` loads from the hub by these names alone; others are named user/name."""
AVERAGED = frozenset({"f1", "precision", "recall"})
"""Bundled metrics that take ``average``."""
ON_NUMBERS = frozenset(name for name, functions in BUNDLED.items() if "numbers" in functions)
"""Bundled metrics that compare numbers."""
LOWER_IS_BETTER = frozenset({"loss", "mse", "rmse", "mae", "perplexity"})
"""Metrics to be minimized."""
_AVERAGE = r"(_(binary|macro|micro|weighted|samples))?$"
_LIMITS = {
    rf"(accuracy|f1|precision|recall|(roc_)?auc|average_precision|iou){_AVERAGE}": (0.0, 1.0),
    r"(matthews(_correlation)?|mcc|(cohen_)?kappa|pearson(r|_correlation)?|spearman(r|_correlation)?)$": (-1.0, 1.0),
    r"(loss|mse|rmse|mae|perplexity|wer|cer)$": (0.0, math.inf),
    r"r2(_score)?$": (-math.inf, 1.0),
    r"(rouge(1|2|L|Lsum)|exact_match)$": (0.0, 1.0),
    r"(sacrebleu|chrf)$": (0.0, 100.0),
}
_NO_LIMITS = r"(^|_)(delta|diff|difference|gain|neg|negative|log|percent)_"
IGNORED = -100
"""Label that losses in transformers ignore."""


class Metric(Protocol):
    """A metric, as modules of `evaluate` implement it."""

    def compute(self, *, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        """Return name → value over all examples."""


@dataclass(frozen=True)
class _Bundled:
    name: str
    compares: str

    def compute(self, *, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        """Return the value under the metric's name; 0 where it is undefined, so that such a trial ranks last."""
        import numpy as np

        module, _, function = BUNDLED[self.name][self.compares].partition(":")
        score = getattr(importlib.import_module(module), function)
        base, _, average = self.name.partition("_")
        if base in AVERAGED and options.get("average", "") is None:
            raise ValueError("average must be binary, micro, macro or weighted: an objective is a single number")
        if base in AVERAGED and average:
            options = {"average": average, **options}
        if self.compares not in ("classes", "numbers"):
            return {self.name: float(score(references, predictions, **options))}
        predicted, true = np.asarray(predictions), np.asarray(references)
        if module == "scipy.stats":
            return {self.name: self._correlation(score, predicted, true)}
        if base in AVERAGED:
            usual = "binary" if set(np.union1d(true, predicted).tolist()) <= {0, 1} else "macro"
            options = {"zero_division": 0, "average": usual, **options}
        return {self.name: float(score(true, predicted, **options))}

    @staticmethod
    def _correlation(score: Any, predicted: NDArray[Any], true: NDArray[Any]) -> float:
        import numpy as np
        from scipy.stats import NearConstantInputWarning

        if true.ndim > 1:
            raise ValueError("a correlation compares one number per row; override compute_metrics for several")
        if len(true) < 2 or np.ptp(true) == 0 or np.ptp(predicted) == 0:
            return 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NearConstantInputWarning)  # an untrained model is nearly constant
            return float(score(predicted, true).statistic)


def limits(name: str) -> tuple[float, float]:
    """Return the lowest and highest value that a reported metric can have, by its name; infinite where unknown.

    >>> limits("eval_f1_macro"), limits("eval_news_matthews_correlation"), limits("eval_loss"), limits("eval_score")
    ((0.0, 1.0), (-1.0, 1.0), (0.0, inf), (-inf, inf))
    """
    known = (bounds for pattern, bounds in _LIMITS.items() if re.search(rf"(^|_){pattern}", name))
    return (-math.inf, math.inf) if re.search(_NO_LIMITS, name) else next(known, (-math.inf, math.inf))


def label(name: str) -> str:
    """Return the name under which a metric, given by name or path, is reported."""
    return Path(name).stem if name.endswith(".py") else name.rstrip("/").rpartition("/")[2]


@lru_cache
def load(name: str, compares: str = "") -> Metric:
    """Return a bundled metric, without network or files, else what ``evaluate.load`` returns for the name.

    ``compares`` chooses among the functions of a bundled one. Inputs stay in memory, not in files that processes share.
    Raises InputError.
    """
    if name in BUNDLED:
        compares = compares if compares in BUNDLED[name] else next(iter(BUNDLED[name]))
        if problem := missing([name], compares):
            raise problem
        return _Bundled(name, compares)
    import evaluate
    from filelock import FileLock

    lock = Path(evaluate.config.HF_EVALUATE_CACHE) / "sweepkit.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock):  # evaluate copies the module into its cache: not safe for several processes at once
            metric: Metric = evaluate.load(name, keep_in_memory=True)
            return metric
    except Exception as error:  # a hub, a path, a person's module: each fails in its own way
        raise InputError(
            f"metric {name} cannot be loaded ({first_line(describe(error))}); "
            f"bundled ones are {', '.join(BUNDLED)}{nearest(name, BUNDLED)}"
        ) from error


def of_loss(name: str) -> bool:
    """Whether a metric follows from the loss, so that no predictions are needed."""
    return "loss" in BUNDLED.get(name, {})


def missing(names: Iterable[str], compares: str = "") -> MissingExtra | None:
    """Return the error for the first of these metrics whose package is not installed, without importing any."""
    for name in names:
        package = PACKAGES.get(name) or PACKAGES.get(compares)
        if package is not None and package_folder(package) is None:
            return MissingExtra(f"the metric {name}", "metrics")
    return None


@dataclass(frozen=True)
class Decided:
    """A model's predictions, and the labels other than -100 that they are compared with."""

    rule: str
    """How the outputs were read, for example ``argmax over 3 classes``."""
    references: Any
    predictions: Mapping[str, Any]
    """What is compared → the predictions; see BUNDLED. ``classes`` are ids, or 0 and 1 for each of several labels."""
    average: str | None = None
    """Default ``average`` of f1, precision and recall: binary for two classes, macro for more or for several labels."""

    def of(self, metric: str) -> Any:
        """Return the predictions that a metric compares. Raises ValueError where there are only others."""
        return self.predictions[self.compares(metric)]

    def compares(self, metric: str) -> str:
        """Return the key of the predictions that a metric compares. Raises ValueError where there are only others."""
        known: Iterable[str] = ("numbers", *self.predictions) if self._floating() else self.predictions
        wanted = BUNDLED.get(metric, known)
        for each in (*wanted, "classes") if metric in ON_NUMBERS else wanted:
            if each in self.predictions:
                return each
        raise ValueError(
            f"{metric} compares {next(iter(wanted))}, but outputs and labels are {self.rule}; "
            f"choose a metric of {' or '.join(self.predictions)} or override compute_metrics"
        )

    def _floating(self) -> bool:
        return str(getattr(self.references, "dtype", "")).startswith("float")


def decide(outputs: Any, labels: Any, *, regression: bool = False) -> Decided:
    """Return predictions and labels without labels of -100, flattened unless rows have several labels.

    - One output per class, whole-numbered labels: the most likely class (argmax).
    - One output for each of several labels that are 0 or 1 (multi-label): 1 where the logit is above 0.
    - One output, labels of 0 and 1: the same for metrics of classes; the number itself for metrics of numbers.
    - One output, other labels, or a model trained for ``regression``: the number itself.
    - Whole-numbered outputs, which ``preprocess_logits_for_metrics`` has decided: as they are.

    Of a tuple of outputs the first counts; batches in a list are joined. Raises ValueError for any other shape, and for
    several labels per row that are not one array.

    >>> import numpy as np
    >>> decided = decide(np.array([[0.1, 2.0], [3.0, 0.0]]), np.array([1, 0]))
    >>> decided.of("f1").tolist(), decided.rule
    ([1, 0], 'argmax over 2 classes')
    """
    import numpy as np

    scores, references = first_array(outputs), first_array(labels)
    if isinstance(labels, tuple) and len(labels) > 1:
        raise ValueError(f"there are {len(labels)} arrays of labels; override compute_metrics to score them all")
    whole = np.issubdtype(references.dtype, np.integer) or references.dtype == bool
    if scores.ndim == references.ndim + 1 and scores.shape[-1] == 1:
        scores = scores[..., 0]
    if scores.ndim == references.ndim + 1 and scores.shape[:-1] == references.shape and whole:
        counts = references != IGNORED
        count = scores.shape[-1]
        average = "binary" if count == 2 else "macro"
        predicted = scores.argmax(axis=-1)[counts]
        return Decided(f"argmax over {count} classes", references[counts], {"classes": predicted}, average)
    if scores.shape != references.shape:
        raise ValueError(
            f"predictions of shape {scores.shape} do not match labels of shape {references.shape} ({references.dtype}); "
            "override compute_metrics for outputs of another kind"
        )
    if not np.issubdtype(scores.dtype, np.floating):
        counts = references != IGNORED
        return Decided("class numbers as they are", references[counts], {"classes": scores[counts]})
    return _thresholded(scores, references, regression)


def first_array(found: Any) -> NDArray[Any]:
    """Return the first of several arrays; a list holds one entry per batch (``eval_do_concat_batches: false``)."""
    import numpy as np

    if isinstance(found, list) and found and isinstance(found[0], (tuple, np.ndarray)):
        return np.concatenate([first_array(batch) for batch in found])
    return np.asarray(found[0] if isinstance(found, tuple) else found)


def _thresholded(scores: NDArray[Any], references: NDArray[Any], regression: bool) -> Decided:
    """Decide one float per label: a logit where the labels are 0 and 1, else a number."""
    import numpy as np

    counts = (
        references != IGNORED if not np.issubdtype(references.dtype, np.floating) else np.ones_like(references, bool)
    )
    several = references.ndim == 2 and references.shape[-1] > 1 and bool(counts.all())
    if regression or not np.isin(references[counts], (0, 1)).all():
        kept = slice(None) if counts.all() else counts
        return Decided("numbers as they are", references[kept], {"numbers": scores[kept]})
    if not several:
        scores, references = scores[counts], references[counts]
    kept = references.astype(np.int64) if np.isin(references, (0, 1)).all() else references
    rule = f"threshold 0 on {scores.shape[-1]} logits" if several else "threshold 0 on one logit"
    if scores.size and scores.min() >= 0 and scores.max() <= 1:
        rule += "; all outputs lie between 0 and 1, as probabilities do, whose threshold would be 0.5"
    average = "macro" if several else "binary"
    return Decided(rule, kept, {"classes": (scores > 0).astype(np.int64), "numbers": scores}, average)


def check_types(metric: Any, predictions: Any) -> None:
    """Raise ValueError where a module of `evaluate` would truncate numbers to integers."""
    features = getattr(metric, "features", None)
    wanted = str(getattr(features.get("predictions"), "dtype", "")) if isinstance(features, dict) else ""
    if "int" in wanted and str(getattr(predictions, "dtype", "")).startswith("float"):
        raise ValueError(
            f"{getattr(metric, 'name', metric)} takes {wanted} predictions, but the outputs are numbers; "
            "override compute_metrics to decide them"
        )
