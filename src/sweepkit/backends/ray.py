"""Trials on Ray Tune, one machine or a cluster: Tune places and watches actors, each of which owns a warm process.

The only module that imports ray. What to try and when to prune stays the session's business: Tune's searcher asks it
for the next trial when a slot is free, its callback hands every event on, and the answers go back through a mailbox
actor, so that a trial is pruned, stopped and resumed by the same words as on one machine.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Signals are the session's; Tune's own loggers and snapshots would write every event a second time.
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from sweepkit.backends import Session
from sweepkit.errors import InputError
from sweepkit.events import Evaluated, Event, Finished, Logged, from_json
from sweepkit.executor import Executor
from sweepkit.slots import Machine, Slot, plan
from sweepkit.study import Study
from sweepkit.trial import TrialSpec

LOST = "lost: its Ray node or actor died"
POLL_SECONDS = 0.2
"""How often an actor looks for a word (stop, prune) while its trial trains."""


@ray.remote(num_cpus=0)
class _Mailbox:
    """Carries the driver's words to the actors; each word is taken once."""

    def __init__(self) -> None:
        self._words: dict[int, list[str]] = {}

    def put(self, trial: int, word: str) -> None:
        self._words.setdefault(trial, []).append(word)

    def take(self, trial: int) -> list[str]:
        return self._words.pop(trial, [])


class _Actor(tune.Trainable):
    """One slot of the cluster: owns a warm process, forks a trial at a time; each step returns what it said."""

    def setup(
        self, config: dict[str, Any], study: str = "", home: str = "", slot: Slot | None = None, mailbox: Any = None
    ) -> None:
        assert slot is not None
        devices = tuple(str(gpu) for gpu in ray.get_gpu_ids())
        place = Study.model_validate_json(study).at(Path(home))
        log = place.place.folder / f"warm-{os.uname().nodename}-{os.getpid()}.log"
        deadline = place.budget.trial_hours * 3600 if place.budget.trial_hours else None
        self._mailbox = mailbox
        self._executor = Executor(
            place, [Slot(devices, slot.threads, slot.ranks)], log=log, deadline_seconds=deadline
        ).__enter__()
        self._executor.wait_ready()
        self._start(config)

    def _start(self, config: dict[str, Any]) -> None:
        self._spec = TrialSpec.from_json(config["spec"])
        self._executor.start(self._spec)

    def step(self) -> dict[str, Any]:
        """Return the trial's next events; an evaluation, a start or the end is passed on at once."""
        number = self._spec.number
        events: list[Event] = []
        while True:
            for word in ray.get(self._mailbox.take.remote(number)):
                if word == "kill":
                    self._executor.kill(number, "stopped")
                else:
                    self._executor.answer(number, word)
            events += self._executor.poll(POLL_SECONDS)
            if any(not isinstance(event, Logged) for event in events):
                done = isinstance(events[-1], Finished)
                return {"events": [event.to_json() for event in events], "done": done}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial into the same warm process."""
        self._start(new_config)
        return True

    def cleanup(self) -> None:
        """End the warm process and whatever it runs."""
        self._executor.__exit__(None, None, None)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Trials keep their own checkpoints; Tune has none to keep."""


class _Asker(Searcher):
    """Tune's searcher: the session's next trial."""

    def __init__(self, session: Session, trials: dict[str, int]) -> None:
        super().__init__()
        self._session = session
        self._trials = trials

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the next trial's spec; None while only a retry may still come, the end when nothing runs any more."""
        spec = self._session.next()
        if spec is None:
            return None if self._trials else cast(dict[str, Any], Searcher.FINISHED)
        self._trials[trial_id] = spec.number
        return {"spec": spec.to_json()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The callback heard it already."""

    def save(self, checkpoint_path: str) -> None:
        """The Optuna storage is the truth; there is nothing to save."""

    def restore(self, checkpoint_path: str) -> None:
        """The Optuna storage is the truth; there is nothing to restore."""


class _Hearer(tune.Callback):
    """Turns Tune's hooks into the session's events and carries its answers to the mailbox."""

    def __init__(self, session: Session, trials: dict[str, int], tell: Callable[[int, str], None]) -> None:
        self._session = session
        self._trials = trials
        self._tell = tell
        self._told: set[tuple[int, str]] = set()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Look at budgets; pass a stop on to what runs."""
        self._session.tick()
        word = "kill" if self._session.killing else "stop" if self._session.stopping else ""
        for number in self._trials.values() if word else ():
            if (number, word) not in self._told:
                self._told.add((number, word))
                self._tell(number, word)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Hand every event to the session and its answer to the trial."""
        for line in result["events"]:
            event = from_json(line)
            if isinstance(event, Finished):
                self._trials.pop(trial.trial_id, None)
            answer = self._session.hear(event)
            if answer and isinstance(event, Evaluated):
                self._tell(event.trial, answer)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """An actor died, with its node or alone: the trial's end as the driver sees it."""
        number = self._trials.pop(trial.trial_id, None)
        if number is not None:
            self._session.hear(
                Finished(trial=number, at=time.time(), ending="failed", cause="lost: its Ray node or actor died")
            )


class RayBackend:
    """Runs a session's trials on a Ray cluster, or on a Ray that it starts on this machine."""

    def __init__(self, study: Study, *, trial_memory_mb: float = 0.0) -> None:
        self._study = study
        self._memory_mb = trial_memory_mb

    def drive(self, session: Session) -> None:
        """Run trials until there is nothing left to start and nothing running."""
        started_here = self._connect()
        storage = self._study.place.folder / "ray"
        try:
            slot, count = self._slots()
            self._fit(session, slot, count, storage)
        finally:
            shutil.rmtree(storage, ignore_errors=True)
            if started_here:
                ray.shutdown()

    def _fit(self, session: Session, slot: Slot, count: int, storage: Path) -> None:
        mailbox = _Mailbox.remote()  # type: ignore[attr-defined]  # ray.remote adds it
        trials: dict[str, int] = {}
        backend = self._study.backend
        gpus = (1.0 if slot.devices else 0.0) if backend.gpus_per_trial == "auto" else float(backend.gpus_per_trial)
        bundle = {"CPU": slot.threads * slot.ranks, **({"GPU": gpus} if gpus else {})}
        actor = tune.with_parameters(
            _Actor,
            study=self._study.model_dump_json(by_alias=True, exclude_none=True),
            home=str(self._study.home),
            slot=slot,
            mailbox=mailbox,
        )
        hearer = _Hearer(session, trials, lambda number, word: mailbox.put.remote(number, word))
        tuner = tune.Tuner(
            tune.with_resources(actor, tune.PlacementGroupFactory([bundle])),
            tune_config=tune.TuneConfig(
                search_alg=_Asker(session, trials),
                scheduler=FIFOScheduler(),
                num_samples=-1,
                max_concurrent_trials=count,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=uuid.uuid4().hex[:12],
                storage_path=str(storage),
                callbacks=[hearer],
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        )
        tuner.fit()

    def _connect(self) -> bool:
        """Connect to the cluster, or start Ray here; whether it was started here."""
        if ray.is_initialized():
            return False
        address = self._study.backend.address
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
        if address:
            try:
                ray.init(address=address, **quiet)
            except ConnectionError as error:
                raise InputError(f"backend.address: no Ray cluster answers at {address}: {error}") from error
            self._shared_paths()
            return True
        machine = Machine.here()
        ray.init(num_cpus=machine.cores, num_gpus=len(machine.gpus), include_dashboard=False, **quiet)
        return True

    def _shared_paths(self) -> None:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        hosts = {node["NodeManagerHostname"] for node in nodes}
        if len(hosts) > 1 and self._study.backend.path is None:
            raise InputError(
                f"backend.path: the cluster has {len(hosts)} machines, and what lies in {self._study.place.folder} "
                "stays on one of them; name a folder that all of them share, or an fsspec URL such as s3://bucket/folder"
            )

    def _slots(self) -> tuple[Slot, int]:
        """Return what one trial gets and how many run at once on the whole cluster."""
        there = ray.cluster_resources()
        gpus = tuple(str(i) for i in range(int(there.get("GPU", 0))))
        machine = Machine(gpus, int(there.get("CPU", 1)), Machine.here().memory_mb * max(1, len(ray.nodes())))
        slots = plan(self._study.backend, machine, trial_memory_mb=self._memory_mb)
        return slots[0], len(slots)
