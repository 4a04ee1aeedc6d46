"""Connects Tune to a session: a searcher, a callback, a stopper and a scheduler that share one :class:`Link`.

Whatever the session raises is kept and ends the experiment; Tune would replace it by an error of its own.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import ray
from ray import cloudpickle, tune
from ray.exceptions import RayActorError
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from sweepkit.backends import Session
from sweepkit.backends.ray import private
from sweepkit.backends.ray.files import DriverFiles
from sweepkit.study.errors import StudyFailed
from sweepkit.trial.events import Evaluated, Event, Finished, from_json
from sweepkit.trial.trial import Ending, Reason, TrialSpec


class _Unpickled:
    """Pickles as a plain object: Tune pickles its parts for a restore that is never used."""

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        return object, ()


class Link(_Unpickled):
    """Carries trials, events and answers between Tune and the session."""

    def __init__(self, session: Session, mailbox: Any, files: DriverFiles) -> None:
        self.session = session
        self._files = files
        self.open: dict[str, int] = {}
        """Tune's trial id → our trial's number, from its proposal to its end."""
        self.failure: BaseException | None = None
        self.stopper = _Stopper(self)
        self._mailbox = mailbox
        self._sent: set[tuple[int, str]] = set()

    def ask(self, trial_id: str) -> TrialSpec | None:
        """Return the next trial to start."""
        if self.failure:
            return None
        try:
            spec = self.session.next()
            if spec is None:
                return None
            self._files.send(spec)
            ray.get(self._mailbox.take.remote(spec.number))  # answers left for an actor that was lost
        except Exception as error:  # noqa: BLE001  # raised again when Tune is done
            self.failure = error
            return None
        self.open[trial_id] = spec.number
        return spec

    def hear(self, trial_id: str, event: Event) -> None:
        """Pass an event to the session and its answer to the trial; events after the trial's end are dropped."""
        if trial_id not in self.open or self.failure:
            return
        if isinstance(event, Finished):
            del self.open[trial_id]
        try:
            answer = self.session.hear(self._files.receive(event))
        except Exception as error:  # noqa: BLE001  # raised again when Tune is done
            self.failure = error
            return
        if answer and isinstance(event, Evaluated):
            self.tell(event.trial, answer)

    def tell(self, number: int, word: str) -> None:
        """Leave an answer for a trial; returns once the mailbox has it."""
        ray.get(self._mailbox.put.remote(number, word))

    def tick(self, trials: list[Any]) -> None:
        """Check the budgets; pass a stop on to running trials, and end those that wait for a slot."""
        try:
            self.session.tick()
        except Exception as error:  # noqa: BLE001  # raised again when Tune is done
            self.failure = error
            return
        word = "kill" if self.session.killing else "stop" if self.session.stopping else ""
        for trial in trials if word else ():
            number = self.open.get(trial.trial_id)
            if number is None:
                continue
            if trial.status in ("PENDING", "PAUSED"):
                self.hear(trial.trial_id, Finished(trial=number, at=time.time(), ending="stopped"))
            elif (number, word) not in self._sent:
                self._sent.add((number, word))
                self.tell(number, word)


class _Stopper(_Unpickled, tune.Stopper):
    """Ends the experiment once the session failed, or once it is stopping and no trial is open."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Whether to end the experiment now."""
        return self._link.failure is not None or (self._link.session.stopping and not self._link.open)


class Asker(_Unpickled, Searcher):
    """Tune's searcher: proposes the session's next trial."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the next trial's spec; None while a retry may still follow, FINISHED once nothing runs any more."""
        spec = self._link.ask(trial_id)
        if spec is None:
            return None if self._link.open else cast(dict[str, Any], Searcher.FINISHED)
        return {"spec": spec.to_json()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the callback already passed the events on."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: Optuna's storage holds the search."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: Optuna's storage holds the search."""


class Hearer(_Unpickled, tune.Callback):
    """Turns Tune's hooks into events for the session."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Check the budgets once per step of Tune's loop."""
        self._link.tick(trials)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Pass every event to the session."""
        for line in result.pop("events", ()):
            self._link.hear(trial.trial_id, from_json(line))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the trial as lost if its node or process died; fail the study if the actor raised."""
        number = self._link.open.get(trial.trial_id)
        if number is None:
            return
        path = trial.pickled_error_file  # Tune's own reader expects a copy that does not exist yet
        error = cloudpickle.loads(Path(path).read_bytes()) if path else None
        if isinstance(error, RayActorError) and not error.actor_init_failed:
            cause = "lost: the Ray node or actor it ran on"
            end = Finished(trial=number, at=time.time(), ending=Ending.failed, reason=Reason.lost, cause=cause)
            self._link.hear(trial.trial_id, end)
            return
        why = getattr(error, "cause", None) or error
        self._link.failure = why if isinstance(why, StudyFailed) else StudyFailed(f"a Ray actor failed: {why}")


class Warm(_Unpickled, FIFOScheduler):
    """Runs trials in the order of their proposals, and keeps an actor per slot.

    Left alone, Tune keeps no more idle actors than there are trials waiting for one: of two trials that end at once one
    loses its actor, and the next trial starts cold. It also gives an idle actor to the trial that waits longest and stops
    the one being started for that trial: where trials are shorter than a start, a slot would never be warm.
    """

    def __init__(self, count: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Tune's class has no types
        self._count = count

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Let Tune keep as many actors as there are slots, from the first trial on."""
        if self._count:
            private.keep_actors(tune_controller, trial, self._count)
            self._count = 0

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Give the free actor to a new trial; one that was asked for earlier has an actor under way."""
        return private.startable(tune_controller) or super().choose_trial_to_run(tune_controller)
