"""MLflow as a tracker: an experiment per study, with a parent run and a child run per trial.

Everything is read from the trials' folders and the rows, so that delivery can start over at any time. Runs are found again
by their tags ``sweepkit.id`` (the study), ``sweepkit.study`` and ``sweepkit.trial``. mlflow is imported at the first delivery.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from filelock import FileLock

from sweepkit.study.errors import InputError
from sweepkit.study.secrets import HIDDEN, scrub, scrub_url
from sweepkit.trackers import Tracker, Ui
from sweepkit.trackers.mlflow import provenance, records
from sweepkit.trackers.mlflow.address import holds, scheme_of, sqlite_file, tracking_uri, ui_of
from sweepkit.trackers.mlflow.state import UNENDED, Delivered, State, folders
from sweepkit.trackers.ui import LOOPBACK
from sweepkit.trial.events import Event, Finished, Started
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Ending, Trial

if TYPE_CHECKING:
    from mlflow.entities import Run

    from sweepkit.trackers.mlflow.models import Models
    from sweepkit.trackers.mlflow.store import Store

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""Read by mlflow when it is imported or used; the user's own settings win. No retries: the courier repeats a delivery, so
that an unreachable store is noticed at once."""


class MLflowTracker(Tracker):
    """Records a study in MLflow."""

    name = "MLflow"

    _in_step = False
    """Whether the state names every run in the store; unknown after a request whose answer was lost."""

    def prepare(self) -> None:
        """Import mlflow (0.5 s of CPU) and create an SQLite file's tables (1 s) on a thread, while nothing trains yet.

        The thread is not a daemon: if the study is refused meanwhile, the process waits until the tables are complete. mlflow
        is imported before the thread starts, because some of its modules cannot be imported while the interpreter shuts
        down. Errors of the store are reported by the first delivery. Raises InputError for an impossible URI.
        """
        uri = tracking_uri(self._study)
        _import_mlflow()
        if sqlite_file(uri):
            threading.Thread(target=self._create_tables, args=(uri,), name="sweepkit-store").start()

    def open(self) -> None:
        """Create the tables, the experiment and the parent run, or find them; describe the study."""
        with self._turn():
            self._begin()

    def sync(self) -> None:
        """Deliver what is new in the trials' logs and endings; one refused trial does not hold up the others."""
        with self._turn():
            if not self._state.parent_run_id:  # it was removed from the store meanwhile, maybe with the store
                self._begin()
            refused: Exception | None = None
            rows = {row.number: row for row in self._rows()}
            ended = {number for number, row in rows.items() if row.ending not in UNENDED}
            try:
                for number in sorted(folders(self._place) | ended):
                    try:
                        self._deliver(number, rows.get(number))
                    except Exception as error:
                        if not self._store.concerns_one_trial(error):
                            raise
                        self._in_step = False
                        refused = refused or (None if self._deleted(number) else error)
            finally:
                if self._state.changed:
                    self._state.save()
            if refused:
                raise refused

    def keep(self, number: int) -> None:
        """Make the trial's ``best/`` a logged model."""
        with self._turn():
            self._models().keep(number)

    def drop(self, number: int) -> None:
        """Delete the trial's logged model and ``best/``."""
        with self._turn():
            self._models().drop(number)

    def close(self, answer: Mapping[str, Any]) -> None:
        """End the parent run with the study's answer, and register the winner where the study asks for it."""
        with self._turn():
            models = self._models()
            models.settle({row.number for row in self._rows() if row.ending.ranks})
            self._send("answer.json", json.dumps(dict(answer), indent=2, default=str))
            best, said = answer.get("best"), provenance.answer_text(answer)
            winner = "" if best is None else self._state.trials.get(int(best), Delivered()).run_id
            tags = records.answer_tags(answer, winner)
            status = tags["sweepkit.status"]
            if best is not None and status == "done":
                example = provenance.about(self._data).get("example")
                model = models.crown(int(best), example, self._data, said)
                tags |= {"sweepkit.best_model": f"models:/{model}"} if model else {}
            run_id = self._state.parent_run_id
            known = self._store.client.get_run(run_id).data.metrics
            points = [point for point in records.result(answer) if known.get(point[0]) != point[1]]
            self._store.log(run_id, metrics=points, tags=tags | provenance.description(self._study, said))
            self._store.client.set_terminated(
                run_id, {"failed": "FAILED", "interrupted": "KILLED"}.get(status, "FINISHED")
            )
            self._state.closed = provenance.digest(self._study, answer)
            self._state.save()

    def behind(self) -> int:
        """Return how many trials have something undelivered."""
        return State.load(self._place.mlflow_json).behind(self._place, self._rows())

    def delivered(self, answer: Mapping[str, Any] | None) -> bool:
        """Whether the store has everything; of a database server or a tracking server the state is believed."""
        state = State.load(self._place.mlflow_json)
        runs = {done.run_id for done in state.trials.values() if done.run_id and not done.gone}
        return (
            (state.study_id, state.store) == (self._id, provenance.digest(self._study))
            and (answer is None or state.closed == provenance.digest(self._study, answer))
            and not state.behind(self._place, self._rows())
            and holds(tracking_uri(self._study), state.experiment_id, state.parent_run_id, runs)
        )

    def runs(self) -> Mapping[int, str]:
        """Return the trials' run ids."""
        trials = State.load(self._place.mlflow_json).trials
        return {number: done.run_id for number, done in trials.items() if done.run_id}

    def finished(self, experiment: str) -> list[tuple[str, Mapping[str, str], Mapping[str, float]]]:
        """Return the finished runs, without those of studies themselves and of confirmations."""
        found = self._store.client.get_experiment_by_name(experiment)
        if found is None:
            raise InputError(f"{self.name} has no experiment {experiment}")
        trials = (
            run
            for run in self._store.runs(found.experiment_id, {})
            if run.info.status == "FINISHED" and run.data.tags.get("sweepkit.role") != "study"
        )
        return [
            (str(run.info.run_name), run.data.params, run.data.metrics)
            for run in trials
            if "sweepkit.phase" not in run.data.tags
        ]

    def registered(self) -> frozenset[int]:
        """Return the trials whose model is a registered version, or may be one, as nothing is known of it."""
        trials = State.load(self._place.mlflow_json).trials
        known = {number for number, done in trials.items() if done.model != "registered"}
        return frozenset(folders(self._place) - known)

    def page(self) -> str:
        """Return the address of the study's own run."""
        state = State.load(self._place.mlflow_json)
        if not state.parent_run_id or HIDDEN in self._study.tracking.uri:
            return ""
        uri = tracking_uri(self._study)
        server = scrub_url(uri) if scheme_of(uri) in ("http", "https") else f"http://{LOOPBACK}:5000"
        return f"{server.rstrip('/')}/#/experiments/{state.experiment_id}/runs/{state.parent_run_id}"

    def link(self, address: str) -> str:
        """Return the address of the compare view. Raises StudyNotFound while there is no run."""
        with self._turn():
            names = [frozenset(run.data.params) for run in self._runs("trial")]
            axes = frozenset.intersection(*names) if names else None
            from sweepkit.trackers.mlflow.link import compare

            return compare(self._store, self._study, self._state, address, axes=axes)

    def attach(self, file: Path) -> bool:
        """Put a file among the artifacts of the parent run; False while there is no run."""
        with self._turn():
            if self._state.parent_run_id:
                self._store.client.log_artifact(self._state.parent_run_id, str(file))
            return bool(self._state.parent_run_id)

    def open_ui(self, port: int) -> Ui:
        """Return the study's tracking server, or an MLflow server for its store on this machine only."""
        return ui_of(self._study, port)

    def _begin(self) -> None:
        state = self._state
        if not state.parent_run_id:
            tags = {"sweepkit.id": self._id, "sweepkit.role": "study", "sweepkit.study": self._study.name}
            tags["mlflow.user"] = psutil.Process().username()
            run = self._store.client.create_run(
                state.experiment_id, provenance.began(self._study), tags, self._study.name
            )
            state.parent_run_id = run.info.run_id
        state.closed = ""
        state.save()
        self._store.client.update_run(state.parent_run_id, status="RUNNING")
        self._store.log(state.parent_run_id, tags=self._code | provenance.description(self._study))
        for path, content in provenance.artifacts(self._study):
            self._send(path, content)
        self._store.log_dataset(state.parent_run_id, provenance.dataset(self._study, self._data))
        state.save()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Bring the state in step; of several drivers on one folder one delivers at a time, from where the last one stopped.

        After an error, a run may have been made whose id is not known: the next turn looks for it.
        """
        shared = self._study.several_drivers
        with FileLock(self._place.mlflow_lock) if shared else nullcontext():
            if shared:
                self._state = State.load(self._place.mlflow_json)
            if self._data is None and self._state.data:
                self._data = self._place.data / Path(self._state.data).name
            try:
                if self._store.gone:
                    del self._store
                    self._in_step = False
                if not self._in_step:
                    self._find_runs()
                    self._in_step = True
                yield
            except Exception:
                self._in_step = False
                raise

    @cached_property
    def _store(self) -> Store:
        made, _ = _import_mlflow()
        store = made(tracking_uri(self._study), self._place)
        self.note = store.note or self.note
        return store

    def _create_tables(self, uri: str) -> None:
        made, _ = _import_mlflow()
        with suppress(Exception):
            self.note = made(uri, self._place).note

    @cached_property
    def _state(self) -> State:
        return State.load(self._place.mlflow_json)

    @cached_property
    def _id(self) -> str:
        return provenance.study_id(self._study)

    @cached_property
    def _code(self) -> dict[str, str]:
        return {name: scrub(text) for name, text in provenance.code(self._study).items()}

    def _find_runs(self) -> None:
        """Bring the state in step with the runs in the store."""
        experiment_id = self._store.experiment(provenance.experiment(self._study))
        if (self._state.study_id, self._state.experiment_id) != (self._id, experiment_id):
            self._state = self._state.begun(self._id, experiment_id)
        state = self._state
        state.data, state.store = str(self._data or ""), provenance.digest(self._study)
        parent = self._only(self._runs("study"), state.parent_run_id)
        if state.parent_run_id != parent:
            state.parent_run_id, state.sent = parent, {}
        children: dict[int, list[Run]] = {}
        for run in self._runs("trial"):
            children.setdefault(int(run.data.tags["sweepkit.trial"]), []).append(run)
        for number, runs in children.items():
            known = state.trials.get(number, Delivered()).run_id
            if known != (run_id := self._only(runs, known)):
                state.trials[number] = Delivered(run_id)
        for number in [n for n in state.trials if n not in children and not parent]:
            del state.trials[number]
        state.save()

    def _runs(self, role: str) -> list[Run]:
        """Return the runs of this study or, of trials, those of this place; oldest first."""
        tags = {"sweepkit.id": self._id, "sweepkit.role": role}
        tags |= {"sweepkit.study": self._place.name} if role == "trial" else {}
        return list(self._store.runs(self._state.experiment_id, tags))

    def _only(self, runs: Sequence[Run], known: str) -> str:
        """Return the id of the run to go on with, the known one if there; empty without any.

        Other runs to which nothing was delivered are deleted: the answer to their creation came too late.
        """
        chosen = min(runs, key=lambda run: (run.info.run_id != known, _empty(run)), default=None)
        for run in runs:
            if run is not chosen and _empty(run):
                self._store.client.delete_run(run.info.run_id)
        return str(chosen.info.run_id) if chosen else ""

    def _deliver(self, number: int, row: Trial | None) -> None:
        """Deliver one trial's new events and, once it ended, its outcome; the caller saves the state."""
        if self._state.is_delivered(self._place, number, row):
            return
        done = self._state.trials.get(number, Delivered())
        log = TrialLog(self._place.trial(number))
        events, offset = log.events(done.offset)
        ended = row if row and row.ending not in UNENDED else None
        if not events and (ended is None or done.ending == ended.ending):
            return
        params = {}
        if done.offset == 0 or offset < done.offset:  # nothing delivered yet, or the log was begun anew
            values = records.hyperparameters(log.path.parent, row)
            if not done.run_id:
                done = self._state.trials[number] = Delivered(self._create(number, row, events, values))
            self._store.log_dataset(done.run_id, provenance.dataset(self._study, self._data))
            params = records.params(self._study, values, log.first_start()) | records.logarithms(self._study, values)
        tags = records.attempt_tags(events, log) | self._restart(done, events)
        metrics, epoch_step = records.metrics(events, done.epoch_step)
        if ended:
            metrics += records.outcome(self._study, ended, log)
            tags |= records.ending_tags(ended, log)
        self._store.log(done.run_id, metrics=metrics, params=params, tags=tags)
        if ended:
            at = next((event.at for event in reversed(log.refresh()) if isinstance(event, Finished)), time.time())
            status = records.STATUS.get(ended.ending, "FAILED")
            self._store.client.set_terminated(done.run_id, status, records.milliseconds(at))
        done.offset, done.epoch_step = offset, epoch_step
        done.ending = ended.ending if ended else (row.ending if row else Ending.running)
        self._state.changed = True

    def _restart(self, done: Delivered, events: Sequence[Event]) -> dict[str, str]:
        """Mark a run as running again if new events start an attempt after its end; return the tags for that."""
        if done.ending in ("", *UNENDED) or not any(isinstance(event, Started) for event in events):
            return {}
        self._store.client.update_run(done.run_id, status="RUNNING")
        return {"sweepkit.ending": Ending.running, "reason": ""}

    def _create(self, number: int, row: Trial | None, events: Sequence[Event], values: Mapping[str, Any]) -> str:
        phase = self._place.name.removeprefix(self._study.name).strip("/")
        origin = row.origin if row else "sampled"
        tags = {
            "mlflow.parentRunId": self._state.parent_run_id,
            "mlflow.user": psutil.Process().username(),
            "sweepkit.id": self._id,
            "sweepkit.study": self._place.name,
            "sweepkit.role": "trial",
            "sweepkit.trial": str(number),
            "sweepkit.origin": origin,
            **({"sweepkit.phase": phase} if phase else {}),
            **self._code,
        }
        began = records.milliseconds(events[0].at if events else time.time())
        name = (row.name if row else "") or records.run_name(self._study, number, row, values, phase)
        run = self._store.client.create_run(self._state.experiment_id, began, tags, scrub(name))
        return str(run.info.run_id)

    def _models(self) -> Models:
        _, models = _import_mlflow()
        return models(self._store, self._study, self._place, self._state)

    def _send(self, path: str, content: str) -> None:
        content = scrub(content)
        digest = hashlib.sha256(content.encode()).hexdigest()
        if self._state.sent.get(path) != digest:
            self._store.client.log_text(self._state.parent_run_id, content, path)
            self._state.sent[path] = digest

    def _deleted(self, number: int) -> bool:
        """Whether the trial's run was deleted in MLflow; the trial is then left alone for good."""
        done = self._state.trials.get(number)
        if done is None or not done.run_id:
            return False
        done.gone = self._store.is_deleted(done.run_id)
        self._state.changed = True
        return done.gone


def _empty(run: Run) -> bool:
    return not (run.data.metrics or run.data.params or "mlflow.note.content" in run.data.tags)


def _import_mlflow() -> tuple[type[Store], type[Models]]:
    """Return the classes that import mlflow, which finds its settings in the environment."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from sweepkit.trackers.mlflow.models import Models
    from sweepkit.trackers.mlflow.store import Store

    return Store, Models
