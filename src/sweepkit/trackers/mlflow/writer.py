"""Writes a study to MLflow: experiment, parent run, a child run per trial.

Everything it delivers is read from the trials' folders and the rows it is given, so it may start anew at any time. What
it makes is found again by tags: ``sweepkit.id`` (the study), ``sweepkit.study`` and ``sweepkit.trial``.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from sweepkit.study.paths import Place
from sweepkit.study.secrets import of_url, scrub
from sweepkit.study.study import StudyData
from sweepkit.trackers.mlflow import provenance, records
from sweepkit.trackers.mlflow.address import tracking_uri
from sweepkit.trackers.mlflow.link import compare
from sweepkit.trackers.mlflow.models import Models
from sweepkit.trackers.mlflow.state import UNENDED, Delivered, State, folders, in_turn
from sweepkit.trackers.mlflow.store import Store, fits, tag
from sweepkit.trial.events import Event, Finished, Started
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Ending, Trial

REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "BAD_REQUEST")
"""Errors that concern one trial; anything else concerns the store, and the other trials need not be tried."""


class Writer:
    """Records a study in MLflow. ``rows`` gives the study's trials as they are now; it is asked at every :meth:`sync`.

    ``place`` is where the trials lie, if not in the study's own folder: confirmation runs have a place of their own and
    share the study's parent run. ``data`` is the folder of the prepared data. ``shared``: other drivers deliver from the
    same folder. Raises InputError for an impossible URI.
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
        self._state = State.load(self._place.mlflow_json)
        self.turn = FileLock(self._place.mlflow_lock) if shared else None
        self._data = data or (Path(self._state.data) if self._state.data else None)
        self._code: dict[str, str] = {}
        self._opened: Store | None = None
        self._sure = False
        """Whether every run of ours in the store is known; not after a request whose answer was lost."""

    def reload(self) -> None:
        """Start from what others delivered."""
        self._state = State.load(self._place.mlflow_json)

    @in_turn
    def open(self) -> None:
        """Make the store's tables, the experiment and the parent run, or find them; say what the study is."""
        store = self._connect()
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
            self._send(path, content)
        inputs = provenance.dataset(self._study, self._data, self._clean)
        if inputs:
            store.client.log_inputs(state.parent_run_id, inputs)
        state.save()

    @in_turn
    def sync(self) -> None:
        """Deliver what is new in the trials' logs and endings; a trial that is refused does not hold up the others."""
        store = self._connect()
        refused: MlflowException | None = None
        rows = {row.number: row for row in self._rows()}
        for number in sorted({*folders(self._place), *(n for n, row in rows.items() if row.ending not in UNENDED)}):
            try:
                self._deliver(store, number, rows.get(number))
            except MlflowException as error:
                self._sure = False
                if error.error_code not in REFUSALS:
                    raise
                refused = refused or (None if self._deleted(store, number) else error)
            except Exception:
                self._sure = False
                raise
        if refused:
            raise refused

    @in_turn
    def keep(self, number: int) -> None:
        """Make the trial's ``best/`` a logged model, stored once; does nothing without ``best/`` or a run."""
        self._models(self._connect()).keep(number)

    @in_turn
    def drop(self, number: int) -> None:
        """Delete the trial's logged model with its files, and ``best/``."""
        self._models(self._connect()).drop(number)

    @in_turn
    def close(self, answer: Mapping[str, Any]) -> None:
        """End the parent run with the study's answer, and register the winner where the study says so.

        Of ``answer`` are known: ``best`` (trial number), ``value``, ``baseline`` (their values), ``status`` (``done``,
        ``failed`` or ``interrupted``; done by default; only done registers), ``reason``. All becomes ``answer.json``.
        """
        store = self._connect()
        run_id, models = self._state.parent_run_id, self._models(store)
        models.settle({row.number for row in self._rows() if row.ending.ranks})
        self._send("answer.json", self._clean(json.dumps(dict(answer), indent=2, default=str)))
        best, value, baseline = (answer.get(name) for name in ("best", "value", "baseline"))
        tags = {"sweepkit.status": str(answer.get("status", "done")), "reason": str(answer.get("reason", ""))}
        if best is not None:
            tags |= {"sweepkit.best_trial": str(best), "sweepkit.best_run": self._run_of(int(best))}
            tags |= {"sweepkit.best_value": f"{value:g}"} if isinstance(value, float) else {}
            if isinstance(value, float) and isinstance(baseline, float):
                tags |= {"sweepkit.baseline_value": f"{baseline:g}", "sweepkit.gain": f"{value - baseline:+g}"}
            done = tags["sweepkit.status"] == "done"
            model = models.crown(int(best), provenance.about(self._data).get("example"), self._data) if done else None
            tags |= {"sweepkit.best_model": f"models:/{model}"} if model else {}
        store.log(
            run_id,
            tags={name: tag(self._clean(text)) for name, text in tags.items()}
            | provenance.description(self._study, self._clean),
        )
        status = {"failed": "FAILED", "interrupted": "KILLED"}.get(tags["sweepkit.status"], "FINISHED")
        store.client.set_terminated(run_id, status)
        self._state.save()

    def link(self, address: str) -> str:
        """Return the address of the compare view: this study's runs, what was searched, and the objective.

        The view is saved in the experiment, where MLflow's own "Share" puts it. Raises StudyNotFound while there is no
        run.
        """
        store = self._connect()
        names = [frozenset(records.hyperparameters(self._place.trial(number), None)) for number in self._state.trials]
        axes = frozenset.intersection(*names) if names else None
        return compare(store, self._study, self._state, address, axes=axes)

    def attach(self, file: Path) -> bool:
        """Put a file among the artifacts of the study's own run; False while there is no run. Disturbs no driver."""
        store = self._connect()
        if self._state.parent_run_id:
            store.client.log_artifact(self._state.parent_run_id, str(file))
        return bool(self._state.parent_run_id)

    def _connect(self) -> Store:
        if self._opened is None:
            self._opened = Store(self._uri, self._place)
        store, state = self._opened, self._state
        if self._sure:
            return store
        experiment_id = store.experiment(self._study.tracking.experiment or self._study.name)
        if (state.study_id, state.experiment_id) != (self._id, experiment_id):
            self._state = state = State(state.path, self._id, experiment_id)
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
        for number in [n for n, trial in state.trials.items() if n not in runs and not parents]:
            del state.trials[number]
        state.save()
        self._sure = True
        return store

    def _deliver(self, store: Store, number: int, row: Trial | None) -> None:
        if self._state.done(self._place, number, row):
            return
        done = self._state.trials.get(number, Delivered())
        log = TrialLog(self._place.trial(number))
        events, offset = log.events(done.offset)
        ending = row.ending if row else Ending.running
        if not events and (ending in UNENDED or done.ending == ending):
            return
        first = done.offset == 0 or offset < done.offset
        if not done.run_id:
            done = self._state.trials[number] = Delivered(self._create(store, number, row, events))
        values = records.hyperparameters(log.path.parent, row) if first else {}
        tags = records.attempt_tags(events, log, self._clean)
        restarted = any(isinstance(event, Started) for event in events) and done.ending not in ("", *UNENDED)
        if restarted:
            store.client.update_run(done.run_id, status="RUNNING")
            tags |= {"sweepkit.ending": Ending.running, "reason": ""}
        metrics, epoch_step = records.metrics(events, done.epoch_step)
        if first:
            inputs = provenance.dataset(self._study, self._data, self._clean)
            if inputs:
                store.client.log_inputs(done.run_id, inputs)
        params = self._params(store, done, values, log) if first else {}
        ended = row if row and ending not in UNENDED else None
        if ended:
            metrics += self._outcome(ended, log)
            reason = ended.cause or (log.finished.cause if log.finished else "")
            tags |= {"sweepkit.ending": str(ending), "reason": tag(self._clean(reason))}
        store.log(done.run_id, metrics=metrics, params=params, tags=tags)
        if ended:
            ends = [event.at for event in log.refresh() if isinstance(event, Finished)]
            at = records.milliseconds(ends[-1] if ends else time.time())
            store.client.set_terminated(done.run_id, records.STATUS.get(ending, "FAILED"), at)
        done.offset, done.epoch_step, done.ending = offset, epoch_step, ending
        self._state.save()

    def _outcome(self, row: Trial, log: TrialLog) -> list[Metric]:
        started = log.started
        gpus = records.gpus(self._study, log.path.parent, started.device if started else "")
        return records.outcome(self._study, row, log, gpus)

    def _create(self, store: Store, number: int, row: Trial | None, events: Sequence[Event]) -> str:
        values = records.hyperparameters(self._place.trial(number), row)
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
        given = row.name if row else ""
        name = self._clean(given or records.run_name(self._study, number, origin, values, phase))
        run = store.client.create_run(self._state.experiment_id, began, tags, name)
        return str(run.info.run_id)

    def _params(self, store: Store, done: Delivered, values: Mapping[str, Any], log: TrialLog) -> dict[str, str]:
        whole = {name: self._clean(v) for name, v in records.params(values, log.first_start()).items()}
        fitting = fits(whole, lambda value: f"{value[:200]} … ({len(value):,} characters, whole in params.json)")
        if fitting != whole:
            store.client.log_text(done.run_id, json.dumps(whole, indent=2), "params.json")
        return fitting

    def _models(self, store: Store) -> Models:
        return Models(store, self._study, self._place, self._state, self._clean)

    def _send(self, path: str, content: str) -> None:
        digest = hashlib.sha256(content.encode()).hexdigest()
        if self._state.sent.get(path) != digest:
            self._connect().client.log_text(self._state.parent_run_id, content, path)
            self._state.sent[path] = digest

    def _deleted(self, store: Store, number: int) -> bool:
        done = self._state.trials.get(number)
        if done is None or not done.run_id:
            return False
        try:
            gone = store.client.get_run(done.run_id).info.lifecycle_stage == "deleted"
        except MlflowException as error:
            gone = error.error_code == "RESOURCE_DOES_NOT_EXIST"
        done.gone = gone
        self._state.save()
        return gone

    def _run_of(self, number: int) -> str:
        return self._state.trials.get(number, Delivered()).run_id

    def _clean(self, text: str) -> str:
        return scrub(text, self._known)
