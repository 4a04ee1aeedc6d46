"""The MLflow store of a study, the place of its files, and the command that serves it. Imports no mlflow."""

from __future__ import annotations

import os
import re
import sqlite3
import sys
from collections.abc import Set
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sweepkit.study.errors import InputError
from sweepkit.study.identity import missing_secret
from sweepkit.study.secrets import HIDDEN, scrub_url
from sweepkit.study.study import StudyData
from sweepkit.trackers.ui import LOOPBACK, Ui, free_port

SERVERS = ("http", "https", "databricks", "databricks-uc")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def scheme_of(uri: str) -> str:
    """Return a URI's scheme without its driver, in lower case.

    >>> scheme_of("postgresql+psycopg2://db/mlflow"), scheme_of("mlruns")
    ('postgresql', '')
    """
    return uri.split(":", 1)[0].split("+")[0].lower() if ":" in uri else ""


def tracking_uri(study: StudyData) -> str:
    """Return the store of a study: its own, else MLFLOW_TRACKING_URI, else ``mlflow.db`` under the project root.

    A relative SQLite path is resolved against the project root. Raises InputError for a URI that is not a store's, or whose
    password is hidden.
    """
    uri = study.tracking.uri
    if "uri" not in study.tracking.model_fields_set:
        uri = os.environ.get("MLFLOW_TRACKING_URI") or uri
    if HIDDEN in uri:
        raise missing_secret("tracking.uri", uri)
    scheme = scheme_of(uri)
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


def sqlite_file(uri: str) -> Path | None:
    """Return the file of an SQLite store; None for other stores."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def file_store(uri: str) -> Path | None:
    """Return the folder of a file store; None for other stores."""
    return Path(unquote(urlsplit(uri).path)) if scheme_of(uri) == "file" else None


def holds(uri: str, experiment_id: str, parent: str, runs: Set[str]) -> bool:
    """Whether a store on this machine has these runs, the parent undeleted. Reads MLflow's own tables and folders; stores
    elsewhere are not asked.
    """
    if folder := file_store(uri):
        return all((folder / experiment_id / run).is_dir() for run in {parent, *runs})
    if not (file := sqlite_file(uri)):
        return True
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=1)) as database:
            known = dict(database.execute("SELECT run_uuid, lifecycle_stage FROM runs"))
    except sqlite3.Error:
        return False
    return runs <= known.keys() and known.get(parent) == "active"


def is_server(uri: str) -> bool:
    """Whether the URI is a tracking server's."""
    return uri.split(":", 1)[0] in SERVERS


def artifact_root(uri: str, root: Path) -> Path | None:
    """Return the artifact folder for a database; None where the server or the store itself decides."""
    file = sqlite_file(uri)
    if file is not None:
        return file.parent / "mlartifacts"
    return root / "mlartifacts" if scheme_of(uri) in DATABASES else None


def ui_of(study: StudyData, port: int) -> Ui:
    """Return the server of a study's store: the tracking server itself, else one to start on this machine only.

    A tracking server's address is returned without user and password. A database URL, which may hold a password, is passed
    in the environment, because every user of the machine can read command lines.
    """
    uri = tracking_uri(study)
    if is_server(uri):
        address = re.sub(r"(?<=://)[^/]*@", "", uri)
        return Ui(address, _front(address), address)
    port = free_port(port)
    files = artifact_root(uri, study.place.root)
    command = [sys.executable, "-m", "mlflow", "ui", "--host", LOOPBACK, "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", str(files)] if files else []
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment = {**quiet, **os.environ, "MLFLOW_BACKEND_STORE_URI": uri}
    address = f"http://{LOOPBACK}:{port}"
    store = sqlite_file(uri) or file_store(uri)
    exists = store is None or store.exists()
    return Ui(address, _front(address), scrub_url(uri), exists, tuple(command), environment, study.place.ui_log)


def _front(address: str) -> str:
    return f"{address.rstrip('/')}/#/experiments?workflowType=machine_learning"
