"""The address of MLflow's compare view, with a study's runs and hyperparameters chosen. Knows nothing of a trial.

MLflow's page reads a saved view from a tag of the experiment, ``mlflow.sharedViewState.<key>``; its own "Share" button
writes the same (mlflow/server/js, ``useSharedExperimentViewState`` and ``runs-charts.types``).
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from sweepkit.study.errors import StudyNotFound
from sweepkit.study.parameters import Domain
from sweepkit.study.space import visit
from sweepkit.study.study import StudyData
from sweepkit.trackers.mlflow.state import State
from sweepkit.trackers.mlflow.store import Store, key

CHART = "sweepkit-parallel"
SECTION = "sweepkit-study"


def compare(store: Store, study: StudyData, state: State, base_url: str, *, common: frozenset[str] | None) -> str:
    """Save the view in the experiment and return its address. Raises StudyNotFound where nothing was recorded yet.

    ``common`` are the hyperparameters that every trial has; None where no trial says.
    """
    if not state.parent_run_id:
        raise StudyNotFound(f"study {study.name} has no run in MLflow yet; `sweep run` or `sweep sync` records it")
    name = f"sweepkit-{state.study_id[:12]}"
    packed = base64.b64encode(zlib.compress(json.dumps(view(study, state.parent_run_id, common)).encode())).decode()
    saved = {"name": f"sweepkit: {study.name}", "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"}
    store.client.set_experiment_tag(state.experiment_id, f"mlflow.sharedViewState.{name}", json.dumps(saved))
    page = f"{base_url.rstrip('/')}/#/experiments/{state.experiment_id}/runs"
    return f"{page}?viewStateShareKey={name}&compareRunsMode=CHART"


def view(study: StudyData, parent_run_id: str, common: frozenset[str] | None) -> dict[str, Any]:
    """Return the state of MLflow's runs page: which runs, which columns, and the parallel coordinates chart on top.

    The chart leaves out runs without one of its axes, so that only what all trials have becomes one.
    """
    names = [each.name for each in visit(study.space) if isinstance(each.parameter, Domain)]
    searched = [key(name) for name in dict.fromkeys(names)]
    axes = [key(name) for name in dict.fromkeys(names) if common is None or name in common]
    goal = study.objective.goals[0]
    charts = {
        "uuid": CHART,
        "type": "PARALLEL",
        "metricSectionId": SECTION,
        "runsCountToCompare": 1000,
        "deleted": False,
        "isGenerated": False,
        "selectedParams": axes,
        "selectedMetrics": ["objective"],
        "showAllRuns": True,
    }
    section = {"uuid": SECTION, "name": f"Study {study.name}", "display": True, "isReordered": False, "deleted": False}
    section |= {"columns": 1}
    generated = [
        {"uuid": f"sweepkit-{name.split()[0].lower()}", "name": name, "display": True, "isReordered": False}
        | {"deleted": False, "isGenerated": True}
        for name in ("Model metrics", "System metrics")
    ]
    columns = [f"params.`{name}`" for name in searched]
    return {
        # Confirmation runs have the same parent, and are told apart by their study.
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent_run_id}' AND tags.`sweepkit.study` = '{study.name}'",
        "orderByKey": "metrics.`objective`",
        "orderByAsc": goal.direction == "minimize",
        "selectedColumns": ["metrics.`objective`", *columns, "tags.`sweepkit.ending`", "tags.`reason`"],
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": [charts],
        "compareRunSections": [section, *generated],
    }
