"""An open MLflow store, and what its names and values may be."""

from __future__ import annotations

import fcntl
import json
import logging
import re
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.entities import Dataset, DatasetInput, Experiment, InputTag, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.validation import (
    MAX_DATASET_DIGEST_SIZE,
    MAX_DATASET_NAME_SIZE,
    MAX_ENTITIES_PER_BATCH,
    MAX_ENTITY_KEY_LENGTH,
    MAX_PARAM_VAL_LENGTH,
    MAX_PARAMS_TAGS_PER_BATCH,
    MAX_TAG_VAL_LENGTH,
)

from sweepkit.study.errors import InputError
from sweepkit.study.paths import Place
from sweepkit.study.secrets import scrub
from sweepkit.trackers.mlflow import moved, private
from sweepkit.trackers.mlflow.address import artifact_root, file_store, is_server, sqlite_file
from sweepkit.trackers.mlflow.records import Point

REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "BAD_REQUEST")
"""Codes of errors that concern one trial; any other error concerns the store."""

# The same errors are raised as exceptions; the log would print them with their stack.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


class Store:
    """An open MLflow store; what is sent is scrubbed of secrets.

    The first driver that opens a database creates its tables; the others wait for it.
    """

    def __init__(self, uri: str, place: Place) -> None:
        self.uri = uri
        self._root = artifact_root(uri, place.root)
        self.note = ""
        """A sentence about a broken database that was set aside; empty where there was none."""
        self._inode: int | None = None
        with _only_one(uri, place):
            if file := sqlite_file(uri):
                self.note = _ensure_whole(file)
                self._inode = _connect_to(file, uri)
            self.client = MlflowClient(uri, registry_uri=uri)
            self.client.search_experiments(max_results=1)

    @property
    def gone(self) -> bool:
        """Whether the SQLite file that was opened was removed or replaced since; MLflow would go on writing to it unseen."""
        file = sqlite_file(self.uri)
        try:
            return file is not None and file.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def experiment(self, name: str) -> str:
        """Return the id of the experiment of this name; create it, or restore it where it was deleted.

        Its artifacts follow a project that was copied or moved. Raises InputError where they cannot.
        """
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
        self._follow(name, found)
        return str(found.experiment_id)

    def _follow(self, name: str, experiment: Experiment) -> None:
        files = file_store(self.uri)
        root, folder = (files, experiment.experiment_id) if files else (self._root, plain(name))
        old = moved.old_address(experiment.artifact_location, folder, root) if root else None
        if root is None or old is None:
            return
        if files:
            moved.move_files(files, old, root.as_uri())
        elif file := sqlite_file(self.uri):
            moved.move_database(file, old, root.as_uri())
        else:
            raise InputError(
                f"the artifacts of experiment {name} lie in {old}, outside of this copy of the project, which would change the "
                "original's; give it an experiment of its own: tracking.experiment"
            )

    def runs(self, experiment_id: str, tags: Mapping[str, str]) -> Iterator[Run]:
        """Yield the active runs of an experiment with all these tags, oldest first."""
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
        metrics: Sequence[Point] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        model_id: str | None = None,
    ) -> None:
        """Send metrics, parameters and tags in as few requests as possible; sending them again changes nothing.

        A request costs a store about 10 ms, however little is in it. ``params.json`` has the parameters whole where a value
        is too long. ``model_id`` is the logged model that the metrics belong to.
        """
        points = [Metric(key(name), value, at, step, model_id=model_id) for name, value, at, step in metrics]
        whole = {key(name): scrub(value) for name, value in (params or {}).items()}
        entries = [Param(name, fit(value)) for name, value in whole.items()]
        if any(entry.value != whole[entry.key] for entry in entries):
            self.client.log_text(run_id, json.dumps(whole, indent=2), "params.json")
        labels = [RunTag(name, _cut(scrub(value))) for name, value in (tags or {}).items()]
        few = MAX_PARAMS_TAGS_PER_BATCH
        while entries or labels or points:
            room = MAX_ENTITIES_PER_BATCH - len(entries[:few]) - len(labels[:few])
            self.client.log_batch(run_id, points[:room], entries[:few], labels[:few], synchronous=True)
            entries, labels, points = entries[few:], labels[few:], points[room:]

    def log_dataset(self, run_id: str, facts: Mapping[str, str]) -> None:
        """Make a data set the run's input; ``facts`` are the fields of MLflow's Dataset, empty for none."""
        if facts:
            name, digest = scrub(facts["name"])[:MAX_DATASET_NAME_SIZE], facts["digest"][:MAX_DATASET_DIGEST_SIZE]
            known = Dataset(**{**facts, "name": name, "digest": digest, "source": scrub(facts["source"])})
            self.client.log_inputs(run_id, [DatasetInput(known, [InputTag("mlflow.data.context", "training")])])

    def concerns_one_trial(self, error: Exception) -> bool:
        """Whether the error concerns one trial only."""
        return isinstance(error, MlflowException) and error.error_code in REFUSALS

    def is_deleted(self, run_id: str) -> bool:
        """Whether a run was deleted in MLflow."""
        try:
            return str(self.client.get_run(run_id).info.lifecycle_stage) == "deleted"
        except MlflowException as error:
            return str(error.error_code) == "RESOURCE_DOES_NOT_EXIST"


def key(name: str) -> str:
    """Return a name that MLflow accepts for a metric, a parameter or a tag; it takes none that a path would resolve otherwise.

    >>> key("eval_f1@5//x"), key("a/../b/."), key("..")
    ('eval_f1_5/x', 'a/b', '_')
    """
    parts = re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII).split("/")
    return "/".join(part for part in parts if part.strip("."))[:MAX_ENTITY_KEY_LENGTH].strip("/.") or "_"


def plain(name: str) -> str:
    """Return a name that is valid for a folder and a model."""
    return re.sub(r"[^\w-]", "-", name, flags=re.ASCII)


def fit(value: str) -> str:
    """Return a parameter's value as it is, or its beginning where it is too long for MLflow."""
    note = f"{value[:200]} … ({len(value):,} characters, whole in params.json)"
    return value if len(value) <= MAX_PARAM_VAL_LENGTH else note


def _cut(text: str) -> str:
    """Return text that fits into a tag, its middle cut out where it is too long."""
    room = MAX_TAG_VAL_LENGTH
    return text if len(text) <= room else f"{text[: room // 2 - 10]} [ … ] {text[-(room // 2 - 10) :]}"


def _ensure_whole(file: Path) -> str:
    """Make an SQLite file with its tables, unless there is one; return a sentence where a broken one was set aside.

    The tables are made in a folder beside it and the file is moved to its name when it is complete, so that a killed process
    leaves no file with half of them.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    for left in file.parent.glob(f".{file.name}-*"):  # of a killed process; the caller holds the lock
        shutil.rmtree(left, ignore_errors=True)
    note = ""
    if _is_broken(file):
        aside = f"{file.name}.broken-{datetime.now():%Y%m%d-%H%M%S}"
        for ending in ("-wal", "-shm", "-journal", ""):
            with suppress(FileNotFoundError):
                file.with_name(file.name + ending).rename(file.with_name(aside + ending))
        note = f"{file.name} was not a whole database; it is now {aside}, and everything is delivered to a new one"
    if file.exists() and file.stat().st_size:
        return note
    with TemporaryDirectory(dir=file.parent, prefix=f".{file.name}-") as folder:
        draft, whole = Path(folder) / "draft.db", Path(folder) / "whole.db"
        MlflowClient(f"sqlite:///{draft}").search_experiments(max_results=1)
        # mlflow keeps its connection to the draft, hence a copy.
        with closing(sqlite3.connect(draft)) as made, closing(sqlite3.connect(whole)) as copy:
            made.backup(copy)
        whole.replace(file)
    return note


_CONNECTED: dict[str, int] = {}
"""Address → inode of the database file that this process connected to."""


def _connect_to(file: Path, uri: str) -> int:
    """Let MLflow write to the file that is there now, also where this process knew an earlier one; return its inode."""
    now = file.stat().st_ino
    if _CONNECTED.setdefault(uri, now) != now:
        private.close_connections(uri)
        _CONNECTED[uri] = now
    return now


def _is_broken(file: Path) -> bool:
    """Whether a file is not a database, or is one that MLflow did not finish: it lacks even the default experiment."""
    if not file.exists() or not file.stat().st_size:
        return False
    try:
        with closing(sqlite3.connect(file, timeout=60)) as database:
            tables = {name for (name,) in database.execute("select name from sqlite_master where type = 'table'")}
            if tables.isdisjoint(("experiments", "alembic_version")):
                return False  # empty, or another program's
            return "experiments" not in tables or not database.execute("select 1 from experiments").fetchone()
    except sqlite3.OperationalError:  # locked by another program, or not to be read: mlflow has the better words
        return False
    except sqlite3.DatabaseError:
        return True


@contextmanager
def _only_one(uri: str, place: Place) -> Iterator[None]:
    if is_server(uri):
        yield
        return
    path = sqlite_file(uri)
    folder = path.parent if path and not path.is_relative_to(place.root) else place.runs
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".mlflow.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
