"""Which MLflow store a study uses, how it is reached, and what it can take. Knows no trial."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from mlflow.entities import Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.validation import (
    MAX_ENTITY_KEY_LENGTH,
    MAX_METRICS_PER_BATCH,
    MAX_PARAM_VAL_LENGTH,
    MAX_PARAMS_TAGS_PER_BATCH,
    MAX_TAG_VAL_LENGTH,
)

from sweepkit.study.errors import InputError
from sweepkit.study.paths import Place
from sweepkit.study.study import StudyData

T = TypeVar("T")

SERVERS = ("http", "https", "databricks", "databricks-uc")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")

# Its errors reach us as exceptions too; the log would print them with their stack.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def tracking_uri(study: StudyData) -> str:
    """Return the store of a study: what it says, else MLFLOW_TRACKING_URI, else ``mlflow.db`` under the project root.

    A relative SQLite path lies under the project root. Raises InputError for a URI no MLflow store has.
    """
    uri = study.tracking.uri
    if "uri" not in study.tracking.model_fields_set:
        uri = os.environ.get("MLFLOW_TRACKING_URI") or uri
    scheme = uri.split(":", 1)[0].split("+")[0].lower() if ":" in uri else ""
    if scheme == "sqlite":
        path = uri.split(":///", 1)[-1] if ":///" in uri else ""
        if not path or path.startswith(":memory:"):
            raise InputError(f"tracking.uri: an SQLite store needs a file, for example sqlite:///mlflow.db, got {uri}")
        return f"sqlite:///{study.place.root / path}"
    if scheme in ("", "file"):
        return (study.place.root / re.sub("^//+", "/", uri.removeprefix("file:"))).as_uri()
    if scheme not in (*SERVERS, *DATABASES):
        known = ", ".join((*DATABASES, "file", *SERVERS[:2]))
        raise InputError(f"tracking.uri: must begin with one of {known}, or be none, got {scheme}:…")
    return uri


def ready(study: StudyData) -> None:
    """Have MLflow import what the study's store needs, and a file on this machine have its tables.

    The first costs 0.5 s of CPU, the second another second: better while nothing trains yet. A store that cannot be had now
    is told of when something is delivered to it.
    """
    with suppress(Exception):
        uri = tracking_uri(study)
        if uri.startswith("sqlite:///"):
            Store(uri, study.place)


def artifact_root(uri: str, root: Path) -> Path | None:
    """Return the folder of the files of a database's runs; None where the server or the store itself decides."""
    scheme = uri.split(":", 1)[0].split("+")[0].lower()
    if scheme == "sqlite":
        return Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts"
    return root / "mlartifacts" if scheme in DATABASES else None


def serve(study: StudyData, port: int) -> tuple[list[str], str]:
    """Return the command that shows the study's store on this machine only, and its address.

    The command is empty where the store is a server already. A database with a password in its URL is passed by the
    environment (see :func:`serve_environment`), not on the command line, where every user of the machine could read it.
    A server's address comes without user and password.
    """
    uri = tracking_uri(study)
    if uri.split(":", 1)[0] in SERVERS:
        return [], re.sub(r"(?<=://)[^/]*@", "", uri)
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    files = artifact_root(uri, study.place.root)
    if files is not None:
        command += ["--artifacts-destination", str(files)]
    return command, f"http://127.0.0.1:{port}"


def serve_environment(study: StudyData) -> dict[str, str]:
    """Return what the command of :func:`serve` needs in its environment."""
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return {**quiet, **os.environ, "MLFLOW_BACKEND_STORE_URI": tracking_uri(study)}


class Store:
    """An open MLflow store. The first who opens a database makes its tables; drivers that come meanwhile wait."""

    def __init__(self, uri: str, place: Place) -> None:
        self.uri = uri
        self._root = artifact_root(uri, place.root)
        with _alone(uri, place):
            if uri.startswith("sqlite:///"):
                Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
            self.client = MlflowClient(uri, registry_uri=uri)
            self.client.search_experiments(max_results=1)

    def experiment(self, name: str) -> str:
        """Return the id of the experiment of this name, made or brought back where needed."""
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                where = (self._root / plain(name)).as_uri() if self._root else None
                return self.client.create_experiment(name, where, {"mlflow.experimentKind": "custom_model_development"})
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self.client.get_experiment_by_name(name)
                assert found is not None
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def runs(self, experiment_id: str, tags: Mapping[str, str]) -> Iterator[Run]:
        """Yield the living runs of an experiment that bear all these tags, oldest first."""
        where = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        token = None
        while True:
            page = self.client.search_runs(
                [experiment_id], where, ViewType.ACTIVE_ONLY, 1000, ["attributes.start_time ASC"], token
            )
            yield from page
            token = page.token
            if not token:
                return

    def log(
        self,
        run_id: str,
        *,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Send metrics, parameters and tags in as few requests as may be; saying the same again is no harm.

        Each request costs a store some 10 ms, however little is in it.
        """
        entries = [Param(key, value) for key, value in (params or {}).items()]
        labels = [RunTag(key, value) for key, value in (tags or {}).items()]
        few = MAX_PARAMS_TAGS_PER_BATCH
        if (
            len(entries) <= few
            and len(labels) <= few
            and len(entries) + len(labels) + len(metrics) <= MAX_METRICS_PER_BATCH
        ):
            if entries or labels or metrics:
                self.client.log_batch(run_id, metrics, entries, labels, synchronous=True)
            return
        for some in chunks(entries, few):
            self.client.log_batch(run_id, params=some, synchronous=True)
        for others in chunks(labels, few):
            self.client.log_batch(run_id, tags=others, synchronous=True)
        for many in chunks(metrics, MAX_METRICS_PER_BATCH):
            self.client.log_batch(run_id, metrics=many, synchronous=True)


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the items in pieces of at most ``size``."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def key(name: str) -> str:
    """Return a name that MLflow takes as a metric's, a parameter's or a tag's.

    >>> key("eval_f1@5//x")
    'eval_f1_5/x'
    """
    return re.sub(r"/+", "/", re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)).strip("/.")[:MAX_ENTITY_KEY_LENGTH]


def plain(name: str) -> str:
    """Return a name that a folder and a model may bear."""
    return re.sub(r"[^\w-]", "-", name, flags=re.ASCII)


def fits(values: Mapping[str, str], note: Callable[[str], str]) -> dict[str, str]:
    """Return parameters whose values MLflow stores whole; a longer value is replaced by ``note(value)``."""
    return {name: value if len(value) <= MAX_PARAM_VAL_LENGTH else note(value) for name, value in values.items()}


def tag(text: str) -> str:
    """Return text that a tag can hold, its middle left out where it is too long."""
    room = MAX_TAG_VAL_LENGTH
    return text if len(text) <= room else f"{text[: room // 2 - 10]} [ … ] {text[-(room // 2 - 10) :]}"


@contextmanager
def _alone(uri: str, place: Place) -> Iterator[None]:
    if uri.split(":", 1)[0] in SERVERS:
        yield
        return
    path = Path(uri.removeprefix("sqlite:///"))
    folder = path.parent if uri.startswith("sqlite:///") and not path.is_relative_to(place.root) else place.runs
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".mlflow.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
