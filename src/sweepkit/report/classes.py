"""Trials that seem to predict the same for every row, by what their metrics show."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sweepkit.study import words
from sweepkit.study.damage import read_or_note
from sweepkit.study.paths import Place
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Trial

ONE_CLASS, ONE_NUMBER = "predict one class only", "predict nothing but the mean of the labels"
_ZERO = r"(^|_)(f1|precision|recall|matthews(_correlation)?|mcc|(cohen_)?kappa)(_(binary|macro|weighted))?$"
"""Metrics that are 0 where one class is predicted (macro averages: where that class is not in the data)."""
_SHARE = r"(^|_)accuracy$"
_ERROR = r"(^|_)r?mse$"
"""Metrics that are the labels' deviation, or its square, where their mean is predicted for every row."""
_CLOSE = 0.01
"""How far such a metric may be from that error, as the mean of the training rows is not quite that of validation."""


@dataclass(frozen=True)
class Labels:
    """What is known of the labels of the validation split."""

    classes: Sequence[int] = ()
    """How many rows each class has; empty where that is not known."""
    deviation: float = math.nan
    """Standard deviation of labels that are numbers, in the units of the data; NaN where that is not known."""


@dataclass(frozen=True)
class _About:
    classes: Mapping[str, list[int]] = field(default_factory=dict)
    deviations: Mapping[str, float | None] = field(default_factory=dict)


def validation_labels(place: Place) -> Labels:
    """Return what is known of the validation split's labels."""
    about: _About = (
        read_or_note(place.data_json, _About, "the labels of the validation split are not known") or _About()
    )
    deviation = about.deviations.get("validation")
    return Labels(about.classes.get("validation", []), math.nan if deviation is None else deviation)


def judges(metric: str, labels: Labels) -> bool:
    """Whether a metric can show that the same is predicted for every row, with what is known of the labels."""
    shown = ((_ZERO, True), (_SHARE, bool(labels.classes)), (_ERROR, not math.isnan(labels.deviation)))
    return any(known and re.search(pattern, metric) for pattern, known in shown)


def same_for_all(study: StudyData, row: Trial, labels: Labels) -> tuple[str, str] | None:
    """Return what a trial seems to do, where that is to predict the same for every row, and what shows it."""
    share = max(labels.classes) / sum(labels.classes) if labels.classes else math.nan
    goals = zip((goal.metric for goal in study.objective.goals), row.values, strict=False)
    for name, value in {**dict(goals), **row.metrics}.items():
        if re.search(_ZERO, name) and value == 0:
            return ONE_CLASS, f"{name} is 0"
        if re.search(_SHARE, name) and math.isclose(value, share, abs_tol=1e-9):
            return ONE_CLASS, f"{name} is {words.value(value)}, the share of the most frequent class"
        of_mean = labels.deviation ** (2 if name.endswith("_mse") or name == "mse" else 1)
        if re.search(_ERROR, name) and value > 0 and math.isclose(value, of_mean, rel_tol=_CLOSE):
            return (
                ONE_NUMBER,
                f"{name} is {words.value(value)}, where predicting their mean for every row gives {words.value(of_mean)}",
            )
    return None
