"""Trials on Ray Tune, one machine or a cluster: Tune places and watches actors, each of which owns a warm process.

The only package that imports ray. The session decides what to try and when to prune: ``tuning`` makes Tune ask it, ``actor``
is what runs on the nodes.
"""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
import threading
import uuid
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

os.environ.update(
    {
        "RAY_USAGE_STATS_ENABLED": "0",
        # Signals are the session's; Tune's own loggers and snapshots would write every event a second time.
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "36000",
        # Tune prints a table and its own errors; what there is to say, the session says.
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
)

import ray
from ray import tune
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweepkit.backends import Session
from sweepkit.backends.local.executor import Executor
from sweepkit.backends.ray import private
from sweepkit.backends.ray.actor import Actor, Mailbox
from sweepkit.backends.ray.files import DriverFiles, make_scratch
from sweepkit.backends.ray.tuning import SessionCallback, SessionSearcher, WarmScheduler
from sweepkit.backends.slots import Machine, Need, Slot, plan
from sweepkit.study.errors import InputError, StudyFailed
from sweepkit.study.files import first_line, remove
from sweepkit.study.garbage import without_collection
from sweepkit.study.gpus import gpus_here
from sweepkit.study.study import StudyData

STARTS = 2
"""Attempts to start Ray here: on a busy machine the first one may take longer than the 30 s that Ray waits."""


def _start(temporary: Path, **quiet: Any) -> None:
    """Start Ray on this machine, with its files in this folder. Raises InputError."""
    machine = Machine.here()
    for attempt in range(1, STARTS + 1):
        try:
            ray.init(
                num_cpus=machine.cores,
                num_gpus=len(machine.gpus),
                include_dashboard=False,
                _temp_dir=str(temporary / f"r{attempt}"),  # Ray opens its folder to every user
                **quiet,
            )
            return
        except Exception as error:  # a bare one, where a process of Ray does not come up in time
            ray.shutdown()
            if attempt == STARTS:
                raise InputError(f"Ray did not start on this machine: {error}") from error


class RayBackend:
    """Runs a session's trials on a Ray cluster, or on a Ray that it starts on this machine."""

    slots = 0
    description = ""

    def __init__(self, study: StudyData, executor: Executor | None = None, need: Need | None = None) -> None:
        """``executor`` is of no use here: each actor has a warm process of its own."""
        self._study = study
        # Those of a cluster are not known yet.
        self.gpus = study.resources.gpus(found=bool(study.backend.address or gpus_here()))
        self._need = need or Need()

    def drive(self, session: Session) -> None:
        """Run trials until there is nothing left to start and nothing running.

        Raises InputError for a cluster that does not answer, cannot hold a trial or sees no folder for its files, StudyFailed
        when Ray is gone.
        """
        storage = self._study.place.folder / "ray"
        shutil.rmtree(storage, ignore_errors=True)
        with self._connected():
            try:
                self._shared_paths()
                slot, count = self._slots()
                self._fit(session, slot, count, storage)
            except RayError as error:
                raise StudyFailed(f"Ray is gone: {first_line(error)}; run the same command to resume") from error
            finally:
                shutil.rmtree(storage, ignore_errors=True)

    def _fit(self, session: Session, slot: Slot, count: int, storage: Path) -> None:
        files = DriverFiles(self._study)
        # Beside the driver, for a node that is lost must not take it along.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        mailbox = Mailbox.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]  # ray.remote adds it
        callback = SessionCallback(session, mailbox, files)
        actor = tune.with_parameters(
            Actor,
            study=self._study.model_dump_json(by_alias=True, exclude_none=True),
            home=str(self._study.home),
            slot=slot,
            mailbox=mailbox,
        )
        tuner = tune.Tuner(
            tune.with_resources(actor, tune.PlacementGroupFactory([self._bundle(slot)])),
            tune_config=tune.TuneConfig(
                search_alg=SessionSearcher(callback),
                scheduler=WarmScheduler(count),
                num_samples=-1,
                max_concurrent_trials=count,
                reuse_actors=True,
                trial_dirname_creator=str,
            ),
            run_config=tune.RunConfig(
                name=uuid.uuid4().hex[:12],
                storage_path=str(storage),
                callbacks=[callback],
                progress_reporter=tune.CLIReporter(),  # in a notebook Tune's own would wipe away what the cell shows
                stop=callback,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Tune's own, about its own
                logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
                tuner.fit()
        finally:
            ray.kill(mailbox)
            files.close()
            if callback.failure:
                raise callback.failure

    def _bundle(self, slot: Slot) -> dict[str, float]:
        gpus = self._study.resources.gpus(found=bool(slot.devices))
        return {"CPU": float(slot.threads * slot.ranks), **({"GPU": gpus} if gpus else {})}

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Connect to the cluster, or start Ray here for as long as the study runs."""
        if ray.is_initialized():
            yield
            return
        address = self._study.backend.address
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        with ExitStack() as resources:
            with _own_signals(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Ray's own, about its own
                if address:
                    try:
                        ray.init(address=address, **quiet)
                    except (ConnectionError, RayError) as error:
                        raise InputError(f"backend.address: no Ray cluster answers at {address}: {error}") from error
                else:
                    resources.enter_context(private.closed_to_others())
                    temporary = make_scratch()
                    resources.callback(remove, temporary)
                    _start(temporary, **quiet)
            try:
                yield
            finally:
                with _own_signals(), _references_released():
                    ray.shutdown()

    def _shared_paths(self) -> None:
        """Refuse a cluster where some node does not see the study's folder and no path says how files get there."""
        folder = self._study.place.folder
        others = [node for node in _nodes() if node["NodeID"] != ray.get_runtime_context().get_node_id()]
        if self._study.backend.path is not None or not others:
            return
        mark = folder / f".seen-{uuid.uuid4().hex}"
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
        try:
            blind = [node["NodeManagerHostname"] for node in others if not _sees(node["NodeID"], mark)]
        finally:
            mark.unlink()
        if blind:
            raise InputError(
                f"backend.path: node {blind[0]} of the cluster does not see {folder}, which holds the checkpoints; "
                "put the project in a folder that all nodes share, or name an fsspec URL that all reach, such as s3://bucket/folder"
            )

    def _slots(self) -> tuple[Slot, int]:
        """Return what one trial gets and how many run at once on the whole cluster."""
        resources = [node["Resources"] for node in _nodes()]
        cores = [int(there.get("CPU", 0)) for there in resources]
        each = [int(there.get("GPU", 0)) for there in resources]
        size = max(1, int(self._study.resources.gpus(found=any(each))))
        if sum(each) >= size > max(each):
            raise InputError(
                f"backend.gpus_per_trial: {size} asked for, no node of the cluster has more than {max(each)}"
            )
        gpus = tuple(str(index) for index in range(sum(there - there % size for there in each)))
        memory = sum(float(there.get("memory", 0)) for there in resources) / 1e6
        slots = plan(self._study.resources, Machine(gpus, max(1, sum(cores)), memory), self._need)
        slot = slots[0]
        fits = max(1, min((count for count in cores if count), default=1) // slot.ranks)
        return Slot(slot.devices, min(slot.threads, fits), slot.ranks), len(slots)


def _sees(node: str, file: Path) -> bool:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    # By value: a node may have another version of this package, or none yet.
    exists: Any = ray.remote(lambda path: __import__("os").path.exists(path))
    return bool(ray.get(exists.options(num_cpus=0, scheduling_strategy=there).remote(str(file))))


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the signal handlers that the driver has; Ray would set its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _references_released() -> Iterator[None]:
    """Release what Tune's cycles still hold of Ray's objects, and let no thread's collection do so meanwhile.

    An object released in another thread while Ray shuts down ends the process at once, with exit code 1.
    """
    gc.collect()
    with without_collection():
        yield
