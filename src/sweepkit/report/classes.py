"""Trials that seem to predict one class only, by what their metrics show."""

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

_ZERO = r"(^|_)(f1|precision|recall|matthews(_correlation)?|mcc|(cohen_)?kappa)(_(binary|macro|weighted))?$"
"""Metrics that are 0 where one class is predicted (macro averages: where that class is not in the data)."""
_SHARE = r"(^|_)accuracy$"


@dataclass(frozen=True)
class _About:
    classes: Mapping[str, list[int]] = field(default_factory=dict)


def class_rows(place: Place) -> list[int]:
    """Return how many rows of the validation split each class has; empty where that is not known."""
    about: _About = read_or_note(place.data_json, _About, "the rows of each class are not known") or _About()
    return about.classes.get("validation", [])


def judges(metric: str, rows: Sequence[int]) -> bool:
    """Whether a metric can show that one class is predicted; accuracy does where the classes' rows are known."""
    return bool(re.search(_ZERO, metric)) or (bool(rows) and bool(re.search(_SHARE, metric)))


def one_class(study: StudyData, row: Trial, rows: Sequence[int]) -> str:
    """Return what shows that a trial seems to predict one class only; empty where nothing does."""
    share = max(rows) / sum(rows) if rows else math.nan
    goals = zip((goal.metric for goal in study.objective.goals), row.values, strict=False)
    for name, value in {**dict(goals), **row.metrics}.items():
        if re.search(_ZERO, name) and value == 0:
            return f"{name} is 0"
        if re.search(_SHARE, name) and math.isclose(value, share, abs_tol=1e-9):
            return f"{name} is {words.value(value)}, the share of the most frequent class"
    return ""
