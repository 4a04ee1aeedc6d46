"""``training.report_to``: the trackers beside MLflow."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from sweepkit.study.errors import Problem
from sweepkit.study.space import visit
from sweepkit.study.study import StudyData
from sweepkit.tasks.arguments import REPORTERS, reporters


def check_reporting(study: StudyData) -> Iterator[Problem]:
    """Yield trackers that cannot be reported to."""
    for each in visit(study.space):
        if each.name == "report_to":
            yield Problem(each.path, "is the same for every trial; set it in training")
    for name in reporters(study.training.get("report_to")):
        if name == "mlflow":
            yield Problem("training.report_to", "trials are in MLflow without it: see the tracking section")
        elif name not in REPORTERS:
            yield Problem("training.report_to", f"expected {', '.join(REPORTERS)} or none, got {name}")
        elif not any(map(find_spec, REPORTERS[name])):
            yield Problem("training.report_to", f"{name} is not installed: pip install {REPORTERS[name][0]}")
