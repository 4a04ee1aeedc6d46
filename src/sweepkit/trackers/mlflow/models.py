"""Trials' best checkpoints as MLflow logged models: created, deleted, registered.

``best/`` stays in the trial's folder. If the artifact store is on this machine, the model's files are hard links to it, so that
a checkpoint is stored once and neither needs the other, or copies where the study asks for these; else they are uploaded.
MLflow refuses artifacts that are symbolic links out of its folder.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote, urlsplit

from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from sweepkit.study.files import link_or_copy, remove
from sweepkit.study.paths import ARGUMENTS, BEST, MODEL, Place
from sweepkit.study.secrets import scrub
from sweepkit.study.study import StudyData
from sweepkit.trackers.mlflow import flavor, records
from sweepkit.trackers.mlflow.state import Delivered, State
from sweepkit.trackers.mlflow.store import Store, fit, key, plain
from sweepkit.trial.log import TrialLog

CHAMPION = "champion"
LONGEST = 5000
"""Most characters of a description in MLflow's registry."""
VERSIONS = "mlflow.modelVersions"
"""Tag of a logged model in which MLflow's pages look up its registered versions."""


class Models:
    """The logged models of one study."""

    def __init__(self, store: Store, study: StudyData, place: Place, state: State) -> None:
        self._client = store.client
        self._store = store
        self._study = study
        self._place = place
        self._state = state

    def keep(self, number: int) -> None:
        """Make ``best/`` a model; do nothing without ``best/``, without a run, or if it is a model already."""
        done, best = self._state.trials.get(number), self._place.trial(number) / BEST
        if done is None or not done.run_id or done.gone or done.model == "made":
            return
        if not best.exists() or self._foreign(number):
            return
        (best / ARGUMENTS).unlink(missing_ok=True)
        model = self._begin(number, done)
        folder = _folder(model)
        try:
            if folder is not None:
                self._place_files(best, folder / flavor.MODEL)
            else:
                self._client.log_model_artifacts(done.model_id, str(best), flavor.MODEL)
            loads_with = self._describe(done, folder, best)
        except (FileNotFoundError, shutil.Error):
            if os.path.lexists(best):
                raise
            self.drop(number)  # dropped meanwhile
            return
        self._client.set_logged_model_tags(done.model_id, {"sweepkit.loads_with": loads_with})
        self._measure(number, done)
        self._client.finalize_logged_model(done.model_id, "READY")
        done.model = "registered" if model.tags.get(VERSIONS) else "made"
        self._state.save()

    def drop(self, number: int) -> None:
        """Delete the model with its files, and ``best/``; of a registered model only ``best/``."""
        done, best = self._state.trials.get(number), self._place.trial(number) / BEST
        if done is not None and done.model_id and done.model != "registered":
            done.model = "leaving"
            try:
                model = self._client.get_logged_model(done.model_id)
                self._remove_files(model)
                self._client.delete_logged_model(done.model_id)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
            done.model_id = done.model = ""
            self._state.save()
        if not self._place.leads_out(number):
            remove(best)
            remove(best.with_name(MODEL))

    def settle(self, ranked: set[int]) -> None:
        """Make models and ``best/`` folders consistent after an earlier driver was interrupted; ``ranked`` keep theirs."""
        for number, done in self._state.trials.items():
            has_best = os.path.lexists(self._place.trial(number) / BEST)
            if done.model_id and not has_best:
                self.drop(number)
            elif number in ranked:
                self.keep(number)

    def crown(self, number: int, example: Any, data: Path | None, said: str = "") -> str | None:
        """Give the winner's model an input example and, if the study asks for it, a registered version; return its id.

        ``said`` is the study's answer, which becomes the version's description.
        """
        self.keep(number)
        done = self._state.trials.get(number)
        if done is None or done.model not in ("made", "registered"):
            return None
        best = self._place.trial(number) / BEST
        if best.exists():
            example = example if example is not None else flavor.example_of(best, data)
            example = scrub(example) if isinstance(example, str) else example
            if example is not None:
                model = self._client.get_logged_model(done.model_id)
                self._describe(done, _folder(model), best.resolve(), example)
        if self._study.tracking.register_as:
            self._register(self._study.tracking.register_as, done, scrub(said))
        return done.model_id

    def _begin(self, number: int, done: Delivered) -> LoggedModel:
        """Return the model that this driver or an earlier one began for the trial, else a new one."""
        where = f"source_run_id = '{done.run_id}'"
        found = self._client.search_logged_models([self._state.experiment_id], where, max_results=1)
        if found:
            model = found[0]
        else:
            values = records.hyperparameters(self._place.trial(number), None)
            params = {key(name): fit(scrub(text)) for name, text in records.params(self._study, values, None).items()}
            model = self._client.create_logged_model(
                self._state.experiment_id,
                name=plain(f"{self._place.name}-{number:04d}"),
                source_run_id=done.run_id,
                tags={
                    "sweepkit.study": self._place.name,
                    "sweepkit.trial": str(number),
                    "sweepkit.id": self._state.study_id,
                },
                params=params,
                model_type="transformers",
            )
        done.model_id, done.model = model.model_id, "making"
        self._state.save()
        return model

    def _describe(self, done: Delivered, folder: Path | None, weights: Path, example: Any = None) -> str:
        """Write the MLmodel beside the weights, or upload it; return how to load the model."""
        names = {"run_id": done.run_id, "model_id": done.model_id}
        if folder is not None:
            return flavor.write(folder, weights, example=example, **names)
        with TemporaryDirectory(prefix="sweepkit-") as temporary:
            loads_with = flavor.write(Path(temporary), weights, example=example, **names)
            self._client.log_model_artifacts(done.model_id, temporary)
            return loads_with

    def _measure(self, number: int, done: Delivered) -> None:
        """Link the model to the metrics of the evaluation that its checkpoint belongs to."""
        log = TrialLog(self._place.trial(number))
        checkpoint, evaluations = log.best_checkpoint, log.evaluations
        wanted = [e for e in evaluations if checkpoint is not None and e.number == checkpoint.evaluation]
        if not evaluations:
            return
        event = (wanted or evaluations)[-1]
        numbers, _ = records.metrics([event], event.step)
        self._store.log(done.run_id, metrics=numbers, model_id=done.model_id)
        run = self._client.get_run(done.run_id)
        known = {output.model_id for output in run.outputs.model_outputs} if run.outputs else set()
        if done.model_id not in known:
            self._client.log_outputs(done.run_id, [LoggedModelOutput(done.model_id, event.step)])

    def _register(self, name: str, done: Delivered, said: str) -> None:
        try:
            self._client.create_registered_model(name, description=scrub(self._study.question)[:LONGEST] or None)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):
                raise
        model = self._client.get_logged_model(done.model_id)
        versions = self._client.search_model_versions(f"name = '{name}'", max_results=1000)
        version = next((v for v in versions if v.source == model.artifact_location), None)
        if version is None:
            version = self._client.create_model_version(
                name, model.artifact_location, done.run_id, model_id=done.model_id, await_creation_for=0
            )
        description = f"{self._place.name}, trial {model.tags['sweepkit.trial']}. {said}".strip()[:LONGEST]
        if version.description != description:
            self._client.update_model_version(name, version.version, description)
        seen = json.loads(model.tags.get(VERSIONS, "[]"))
        mine = {"name": name, "version": version.version}
        if mine not in seen:
            self._client.set_logged_model_tags(done.model_id, {VERSIONS: json.dumps([*seen, mine])})
        self._client.set_registered_model_alias(name, CHAMPION, str(version.version))
        done.model = "registered"
        self._state.save()

    def _foreign(self, number: int) -> bool:
        """Whether ``best/`` is somebody else's folder: a link that does not lead to a model of this project's MLflow."""
        best = self._place.trial(number) / BEST
        return self._place.leads_out(number) or (best.is_symlink() and not self._place.holds_model(best.resolve()))

    def _place_files(self, best: Path, target: Path) -> None:
        """Put the files of ``best/`` into the model, whole or not at all, and link to them from the trial's folder."""
        if not target.exists():
            part = target.with_name("model.part")
            remove(part)
            copies = self._study.tracking.copy_models
            shutil.copytree(best, part, copy_function=shutil.copy2 if copies else link_or_copy)
            os.rename(part, target)
        if not best.is_symlink():  # as earlier versions left it
            link = best.with_name(MODEL)
            remove(link)
            link.symlink_to(os.path.relpath(target.resolve(), best.parent.resolve()), target_is_directory=True)

    def _remove_files(self, model: LoggedModel) -> None:
        folder = _folder(model)
        if folder is not None:
            shutil.rmtree(folder.parent if folder.parent.name == model.model_id else folder, ignore_errors=True)
            return
        repository: Any = get_artifact_repository(model.artifact_location, tracking_uri=self._store.uri)
        repository.delete_artifacts()


def _folder(model: LoggedModel) -> Path | None:
    """Return the model's folder if its files are on this machine, else None."""
    location = urlsplit(model.artifact_location)
    return Path(unquote(location.path)) if location.scheme in ("", "file") else None
