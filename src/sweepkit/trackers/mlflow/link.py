"""The address of MLflow's compare view with a study's runs, hyperparameters and objective selected.

MLflow documents no address for it. Its page reads a saved view from a tag of the experiment, ``mlflow.sharedViewState.<key>``,
as its own "Share" button writes it (mlflow/server/js, ``useSharedExperimentViewState`` and ``runs-charts.types``).
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from sweepkit.study.errors import StudyNotFound
from sweepkit.study.space import dimensions
from sweepkit.study.study import StudyData
from sweepkit.trackers.mlflow.records import logarithm, logarithmic
from sweepkit.trackers.mlflow.state import State
from sweepkit.trackers.mlflow.store import Store, key

CHART = "sweepkit"
GENERATED = ("Model metrics", "System metrics")
"""MLflow's own sections, which a saved view has to list: their charts of the metrics appear only there."""


def compare(store: Store, study: StudyData, state: State, base_url: str, *, axes: frozenset[str] | None) -> str:
    """Save the view in the experiment and return its address. Raises StudyNotFound where nothing is recorded yet."""
    if not state.parent_run_id:
        raise StudyNotFound(f"study {study.name} has no run in MLflow yet; `sweep run` or `sweep sync` records it")
    name = f"sweepkit-{state.study_id[:12]}"
    packed = base64.b64encode(zlib.compress(json.dumps(view(study, state.parent_run_id, axes)).encode())).decode()
    saved = {"name": f"sweepkit: {study.name}", "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"}
    store.client.set_experiment_tag(state.experiment_id, f"mlflow.sharedViewState.{name}", json.dumps(saved))
    page = f"{base_url.rstrip('/')}/#/experiments/{state.experiment_id}/runs"
    # On a page of an experiment, MLflow shows what the address asks for, not the experiment's kind.
    return f"{page}?viewStateShareKey={name}&compareRunsMode=CHART&workflowType=machine_learning"


def view(study: StudyData, parent_run_id: str, axes: frozenset[str] | None) -> dict[str, Any]:
    """Return the state of MLflow's runs page: which runs and columns, and a parallel coordinates chart.

    ``axes`` are the parameters that every run has, None for all: the chart leaves out runs that lack one. A parameter on a
    log scale is drawn by its logarithm, where the runs have it.
    """
    names = list(dict.fromkeys(each.name for each in dimensions(study.space).values()))
    scaled = {name: logarithm(name) for name in logarithmic(study) if axes is None or key(logarithm(name)) in axes}
    chart = {
        "uuid": CHART,
        "metricSectionId": CHART,
        "type": "PARALLEL",
        "runsCountToCompare": 1000,
        "showAllRuns": True,
    }
    drawn = [key(scaled.get(name, name)) for name in names]
    chart["selectedParams"] = [name for name in drawn if axes is None or name in axes]
    chart["selectedMetrics"] = ["objective"]
    sections = [{"uuid": CHART, "name": f"Study {study.name}", "display": True, "columns": 1}]
    sections += [{"uuid": name, "name": name, "display": True, "isGenerated": True} for name in GENERATED]
    columns = ["metrics.`objective`", *(f"params.`{key(name)}`" for name in names), "tags.`sweepkit.ending`"]
    return {
        # Confirmation runs have the same parent but another study.
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent_run_id}' AND tags.`sweepkit.study` = '{study.name}'",
        "orderByKey": "metrics.`objective`",
        "orderByAsc": study.objective.goals[0].direction == "minimize",
        "selectedColumns": [*columns, "tags.`reason`"],
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": [chart],
        "compareRunSections": sections,
    }
