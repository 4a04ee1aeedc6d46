"""Writes a study to MLflow: the experiment, a parent run and a child run per trial.

Everything is read from the trials' folders and the rows, so that delivery can start over at any time. Runs are found again
by their tags ``sweepkit.id`` (the study), ``sweepkit.study`` and ``sweepkit.trial``.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow.exceptions import MlflowException

from sweepkit.study.paths import Place
from sweepkit.study.secrets import of_url, scrub
from sweepkit.study.study import StudyData
from sweepkit.trackers.mlflow import provenance, records
from sweepkit.trackers.mlflow.address import tracking_uri
from sweepkit.trackers.mlflow.link import compare
from sweepkit.trackers.mlflow.models import Models
from sweepkit.trackers.mlflow.state import UNENDED, Delivered, State, folders
from sweepkit.trackers.mlflow.store import Store, fits, tag
from sweepkit.trial.events import Event, Finished, Started
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Ending, Trial

REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "BAD_REQUEST")
"""Errors that concern one trial. Any other error concerns the store, so the remaining trials are not tried."""


class Writer:
    """Records a study in MLflow; see :class:`sweepkit.trackers.Tracker` for the arguments and the methods.

    Raises InputError for an impossible URI.
    """

    def __init__(
        self,
        study: StudyData,
        rows: Callable[[], list[Trial]],
        *,
        place: Place,
        data: Path | None = None,
        shared: bool = False,
    ) -> None:
        self._study = study
        self._rows = rows
        self._place = place
        self._uri = tracking_uri(study)
        self._known = of_url(self._uri) | of_url(study.storage)
        self._id = provenance.study_id(study)
        self._state = State.load(place.mlflow_json)
        self._lock = FileLock(place.mlflow_lock) if shared else None
        self._data = data or (Path(self._state.data) if self._state.data else None)
        self._code: dict[str, str] = {}
        self._opened: Store | None = None
        self._in_step = False
        """Whether the state names every run in the store; unknown after a request whose answer was lost."""

    def open(self) -> None:
        """Create the tables, the experiment and the parent run, or find them; describe the study."""
        with self._turn() as store:
            state = self._state
            if not state.parent_run_id:
                tags = {"sweepkit.id": self._id, "sweepkit.role": "study", "sweepkit.study": self._study.name}
                tags["mlflow.user"] = provenance.user()
                run = store.client.create_run(state.experiment_id, tags=tags, run_name=self._study.name)
                state.parent_run_id = run.info.run_id
                state.save()
            store.client.update_run(state.parent_run_id, status="RUNNING")
            self._code = provenance.code(self._study, self._clean)
            store.log(state.parent_run_id, tags=self._code | provenance.description(self._study, self._clean))
            for path, content in provenance.artifacts(self._study, self._clean):
                self._send(store, path, content)
            self._log_inputs(store, state.parent_run_id)
            state.save()

    def sync(self) -> None:
        """Deliver what is new in the trials' logs and endings; one refused trial does not hold up the others."""
        with self._turn() as store:
            refused: MlflowException | None = None
            rows = {row.number: row for row in self._rows()}
            ended = {number for number, row in rows.items() if row.ending not in UNENDED}
            try:
                for number in sorted(folders(self._place) | ended):
                    try:
                        self._deliver(store, number, rows.get(number))
                    except MlflowException as error:
                        if error.error_code not in REFUSALS:
                            raise
                        self._in_step = False
                        refused = refused or (None if self._deleted(store, number) else error)
            except Exception:
                self._in_step = False
                raise
            finally:
                if self._state.changed:
                    self._state.save()
            if refused:
                raise refused

    def keep(self, number: int) -> None:
        """Make the trial's ``best/`` a logged model, stored once; without ``best/`` or a run do nothing."""
        with self._turn() as store:
            self._models(store).keep(number)

    def drop(self, number: int) -> None:
        """Delete the trial's logged model with its files, and ``best/``."""
        with self._turn() as store:
            self._models(store).drop(number)

    def close(self, answer: Mapping[str, Any]) -> None:
        """End the parent run with the study's answer, and register the winner where the study asks for it."""
        with self._turn() as store:
            models = self._models(store)
            models.settle({row.number for row in self._rows() if row.ending.ranks})
            self._send(store, "answer.json", self._clean(json.dumps(dict(answer), indent=2, default=str)))
            tags = self._answer_tags(answer)
            best, status = answer.get("best"), tags["sweepkit.status"]
            if best is not None and status == "done":
                example = provenance.about(self._data).get("example")
                model = models.crown(int(best), example, self._data)
                tags |= {"sweepkit.best_model": f"models:/{model}"} if model else {}
            cleaned = {name: tag(self._clean(text)) for name, text in tags.items()}
            run_id = self._state.parent_run_id
            store.log(run_id, tags=cleaned | provenance.description(self._study, self._clean))
            store.client.set_terminated(run_id, {"failed": "FAILED", "interrupted": "KILLED"}.get(status, "FINISHED"))
            self._state.save()

    def link(self, address: str) -> str:
        """Return the address of the compare view. Raises StudyNotFound while there is no run."""
        store = self._connect()
        names = [frozenset(records.hyperparameters(self._place.trial(number), None)) for number in self._state.trials]
        axes = frozenset.intersection(*names) if names else None
        return compare(store, self._study, self._state, address, axes=axes)

    def attach(self, file: Path) -> bool:
        """Put a file among the artifacts of the parent run; False while there is no run."""
        store = self._connect()
        if self._state.parent_run_id:
            store.client.log_artifact(self._state.parent_run_id, str(file))
        return bool(self._state.parent_run_id)

    @contextmanager
    def _turn(self) -> Iterator[Store]:
        """Yield the store; of several drivers on one folder one delivers at a time, from where the last one stopped."""
        with self._lock or nullcontext():
            if self._lock:
                self._state = State.load(self._place.mlflow_json)
            yield self._connect()

    def _connect(self) -> Store:
        if self._opened is None:
            self._opened = Store(self._uri, self._place)
        if not self._in_step:
            self._find_runs(self._opened)
            self._in_step = True
        return self._opened

    def _find_runs(self, store: Store) -> None:
        """Bring the state in step with the runs in the store."""
        experiment_id = store.experiment(self._study.tracking.experiment or self._study.name)
        if (self._state.study_id, self._state.experiment_id) != (self._id, experiment_id):
            self._state = State(self._state.path, self._id, experiment_id)
        state = self._state
        state.data = str(self._data or "")
        mine = {"sweepkit.id": self._id}
        parents = [run.info.run_id for run in store.runs(experiment_id, mine | {"sweepkit.role": "study"})]
        if state.parent_run_id not in parents:
            state.parent_run_id, state.sent = (parents[0] if parents else ""), {}
        runs = {
            int(run.data.tags["sweepkit.trial"]): run.info.run_id
            for run in store.runs(experiment_id, mine | {"sweepkit.study": self._place.name, "sweepkit.role": "trial"})
        }
        for number, run_id in runs.items():
            if state.trials.get(number, Delivered()).run_id != run_id:
                state.trials[number] = Delivered(run_id)
        for number in [n for n in state.trials if n not in runs and not parents]:
            del state.trials[number]
        state.save()

    def _deliver(self, store: Store, number: int, row: Trial | None) -> None:
        """Deliver one trial's new events and, once it ended, its outcome; the caller saves the state."""
        if self._state.done(self._place, number, row):
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
                done = self._state.trials[number] = Delivered(self._create(store, number, row, events, values))
            self._log_inputs(store, done.run_id)
            params = self._params(store, done, values, log)
        tags = records.attempt_tags(events, log, self._clean) | self._restart(store, done, events)
        metrics, epoch_step = records.metrics(events, done.epoch_step)
        if ended:
            metrics += records.outcome(self._study, ended, log)
            tags |= records.ending_tags(ended, log, self._clean)
        store.log(done.run_id, metrics=metrics, params=params, tags=tags)
        if ended:
            at = next((event.at for event in reversed(log.refresh()) if isinstance(event, Finished)), time.time())
            status = records.STATUS.get(ended.ending, "FAILED")
            store.client.set_terminated(done.run_id, status, records.milliseconds(at))
        done.offset, done.epoch_step = offset, epoch_step
        done.ending = ended.ending if ended else (row.ending if row else Ending.running)
        self._state.changed = True

    def _restart(self, store: Store, done: Delivered, events: Sequence[Event]) -> dict[str, str]:
        """Mark a run as running again if new events start an attempt after its end; return the tags for that."""
        if done.ending in ("", *UNENDED) or not any(isinstance(event, Started) for event in events):
            return {}
        store.client.update_run(done.run_id, status="RUNNING")
        return {"sweepkit.ending": Ending.running, "reason": ""}

    def _create(
        self, store: Store, number: int, row: Trial | None, events: Sequence[Event], values: Mapping[str, Any]
    ) -> str:
        phase = self._place.name.removeprefix(self._study.name).strip("/")
        origin = row.origin if row else "sampled"
        tags = {
            "mlflow.parentRunId": self._state.parent_run_id,
            "mlflow.user": provenance.user(),
            "sweepkit.id": self._id,
            "sweepkit.study": self._place.name,
            "sweepkit.role": "trial",
            "sweepkit.trial": str(number),
            "sweepkit.origin": origin,
            **({"sweepkit.phase": phase} if phase else {}),
            **self._code,
        }
        began = records.milliseconds(events[0].at if events else time.time())
        name = (row.name if row else "") or records.run_name(self._study, number, origin, values, phase)
        run = store.client.create_run(self._state.experiment_id, began, tags, self._clean(name))
        return str(run.info.run_id)

    def _params(self, store: Store, done: Delivered, values: Mapping[str, Any], log: TrialLog) -> dict[str, str]:
        whole = {name: self._clean(v) for name, v in records.params(values, log.first_start()).items()}
        fitting = fits(whole, lambda value: f"{value[:200]} … ({len(value):,} characters, whole in params.json)")
        if fitting != whole:
            store.client.log_text(done.run_id, json.dumps(whole, indent=2), "params.json")
        return fitting

    def _log_inputs(self, store: Store, run_id: str) -> None:
        if inputs := provenance.dataset(self._study, self._data, self._clean):
            store.client.log_inputs(run_id, inputs)

    def _answer_tags(self, answer: Mapping[str, Any]) -> dict[str, str]:
        tags = {"sweepkit.status": str(answer.get("status", "done")), "reason": str(answer.get("reason", ""))}
        best, value, baseline = (answer.get(name) for name in ("best", "value", "baseline"))
        if best is not None:
            run_id = self._state.trials.get(int(best), Delivered()).run_id
            tags |= {"sweepkit.best_trial": str(best), "sweepkit.best_run": run_id}
            if isinstance(value, float):
                tags["sweepkit.best_value"] = f"{value:g}"
            if isinstance(value, float) and isinstance(baseline, float):
                tags |= {"sweepkit.baseline_value": f"{baseline:g}", "sweepkit.gain": f"{value - baseline:+g}"}
        return tags

    def _models(self, store: Store) -> Models:
        return Models(store, self._study, self._place, self._state, self._clean)

    def _send(self, store: Store, path: str, content: str) -> None:
        digest = hashlib.sha256(content.encode()).hexdigest()
        if self._state.sent.get(path) != digest:
            store.client.log_text(self._state.parent_run_id, content, path)
            self._state.sent[path] = digest

    def _deleted(self, store: Store, number: int) -> bool:
        """Whether the trial's run was deleted in MLflow; the trial is then left alone for good."""
        done = self._state.trials.get(number)
        if done is None or not done.run_id:
            return False
        try:
            done.gone = store.client.get_run(done.run_id).info.lifecycle_stage == "deleted"
        except MlflowException as error:
            done.gone = error.error_code == "RESOURCE_DOES_NOT_EXIST"
        self._state.changed = True
        return done.gone

    def _clean(self, text: str) -> str:
        return scrub(text, self._known)
