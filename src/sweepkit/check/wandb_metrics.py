"""The metric that a W&B sweep means, by its name there and by what the task reports."""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches
from typing import NamedTuple

from sweepkit.study.objective import COSTS
from sweepkit.tasks.metrics import BUNDLED

_SPLITS = ("eval", "evaluation", "val", "valid", "validation", "dev", "test", "train", "training")
_NOISE = (
    "epoch",
    "step",
    "global",
    "best",
    "final",
    "mean",
    "avg",
    "metric",
    "metrics",
    "summary",
    "score",
    "min",
    "max",
)
_USUAL = {
    "acc": "accuracy",
    "prec": "precision",
    "rec": "recall",
    "ppl": "perplexity",
    "mcc": "matthews_correlation",
    "matthews": "matthews_correlation",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
    "em": "exact_match",
    "exact": "exact_match",
    "bleu": "sacrebleu",
    "macro_f1": "f1_macro",
    "micro_f1": "f1_micro",
    "mean_squared_error": "mse",
    "mean_absolute_error": "mae",
}


class FoundMetric(NamedTuple):
    """A metric of a study."""

    name: str
    split: str
    """The split that the sweep names; empty where it names none."""
    question: str = ""
    """What to ask where the task reports no such metric; empty where it does, or where that is unknown."""


def find_metric(written: str, reported: Collection[str] | None) -> FoundMetric:
    """Return the metric behind a name such as ``val_acc`` or ``Validation/F1-Score``.

    ``reported`` are the task's ``eval_*`` names; None where only running it can tell.

    >>> find_metric("Validation/Accuracy", {"eval_accuracy"})
    FoundMetric(name='eval_accuracy', split='validation', question='')
    >>> find_metric("epoch/val_loss", None).name, find_metric("bestF1", {"eval_f1", "eval_loss"}).name
    ('eval_loss', 'eval_f1')
    """
    if (leaf := written.rpartition("/")[2]) in COSTS:
        return FoundMetric(leaf, "")
    parts = re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", written).lower())
    split = next((part for part in parts if part in _SPLITS), "")
    inner = [part for part in parts if part not in _SPLITS]
    exact = "_".join(inner)
    plain = "_".join(part for part in inner if part not in _NOISE) or exact or "loss"
    plain = _USUAL.get(plain, plain)
    known = {_joined(each): each for each in (*BUNDLED, "loss")}
    known |= {_joined(name): name for each in reported or () if (name := each.removeprefix("eval_"))}
    found = known.get(_joined(exact)) or known.get(_joined(plain))
    name = f"eval_{found or exact or plain}"
    return FoundMetric(name, split, "" if reported is None or name in reported else _question(found, plain, reported))


def _question(found: str | None, plain: str, reported: Collection[str]) -> str:
    near = get_close_matches(plain, [each.removeprefix("eval_") for each in reported], n=3, cutoff=0.5)
    options = ", ".join([f"eval_{each}" for each in near] or sorted(reported))
    add = f", or add {found} to task.metrics" if found in BUNDLED else ""
    return f"which metric is meant? The task reports {options}; name one in objective{add}"


def _joined(name: str) -> str:
    return name.replace("_", "").lower()
