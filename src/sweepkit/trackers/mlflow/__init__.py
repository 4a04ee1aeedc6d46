"""MLflow, the record people look at: one experiment per study, one parent run, one child run per trial.

By default the store is ``mlflow.db`` under the project root, its files in ``mlartifacts/`` beside it; neither belongs
into git. Knows no Optuna and no process: it reads the trials' logs and the rows it is given.
"""

from __future__ import annotations

import os

# MLflow reads these when it is imported or asked. What the user has set wins. The courier does the retrying, so that a
# store that is away is noticed at once.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}.items():
    os.environ.setdefault(_name, _value)

from sweepkit.trackers.mlflow.store import ready, serve, tracking_uri  # noqa: E402  # the environment is set before the import
from sweepkit.trackers.mlflow.tracker import MLflowTracker  # noqa: E402  # the environment is set before the import

__all__ = ["MLflowTracker", "ready", "serve", "tracking_uri"]
