"""Makes Tune ask a session what to run and tell it what happened: a callback that is also the stopper, a searcher, a scheduler.

An exception of the session is kept and ends the experiment; Tune would replace it with an error of its own.
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


class _NotPickled:
    """Stays in this process: Tune pickles what it is given, for a restore that never happens."""

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        return object, ()


class SessionCallback(_NotPickled, tune.Callback, tune.Stopper):
    """Passes Tune's results to the session and the session's answers to the actors; stops Tune when the session is over."""

    def __init__(self, session: Session, mailbox: Any, files: DriverFiles) -> None:
        self.session = session
        self.running: dict[str, int] = {}
        """Tune's trial → number of ours, from its spec to its end."""
        self.failure: BaseException | None = None
        """What the session raised, to be raised again when Tune is done."""
        self._mailbox = mailbox
        self._files = files
        self._sent: set[tuple[int, str]] = set()

    def next_spec(self, trial_id: str) -> TrialSpec | None:
        """Return the next trial to start, with its files on their way; None while there is none."""
        if self.failure:
            return None
        try:
            spec = self.session.next()
            if spec is None:
                return None
            self._files.send(spec)
            ray.get(self._mailbox.take.remote(spec.number))  # an answer left over from a lost actor
        except Exception as error:  # noqa: BLE001  # raised again when Tune is done
            self.failure = error
            return None
        self.running[trial_id] = spec.number
        return spec

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Check the budgets; pass a stop on to what runs, and end what waits for a slot."""
        try:
            self.session.tick()
        except Exception as error:  # noqa: BLE001  # raised again when Tune is done
            self.failure = error
            return
        word = "kill" if self.session.killing else "stop" if self.session.stopping else ""
        for trial in trials if word else ():
            number = self.running.get(trial.trial_id)
            if number is None:
                continue
            if trial.status in ("PENDING", "PAUSED"):
                self._handle(trial.trial_id, Finished(trial=number, at=time.time(), ending=Ending.stopped))
            elif (number, word) not in self._sent:
                self._sent.add((number, word))
                self._answer(number, word)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Pass on the events of a step."""
        for line in result.pop("events", ()):
            self._handle(trial.trial_id, from_json(line))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """An actor is gone: with its node or process the trial is lost; by an error of its own the study has failed."""
        number = self.running.get(trial.trial_id)
        if number is None:
            return
        path = trial.pickled_error_file  # Tune's own reader looks where it copies the file to later
        error = cloudpickle.loads(Path(path).read_bytes()) if path else None
        if isinstance(error, RayActorError) and not error.actor_init_failed:
            cause = "lost: the Ray node or actor it ran on"
            end = Finished(trial=number, at=time.time(), ending=Ending.failed, reason=Reason.lost, cause=cause)
            self._handle(trial.trial_id, end)
            return
        why = getattr(error, "cause", None) or error
        self.failure = why if isinstance(why, StudyFailed) else StudyFailed(f"a Ray actor failed: {why}")

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """As a stopper: no single trial is stopped by its results."""
        return False

    def stop_all(self) -> bool:
        """Whether the session failed, or is stopping and nothing runs any more."""
        return self.failure is not None or (self.session.stopping and not self.running)

    def _handle(self, trial_id: str, event: Event) -> None:
        """Pass an event to the session and its answer to the trial; what arrives after the trial's end is ignored."""
        if trial_id not in self.running or self.failure:
            return
        if isinstance(event, Finished):
            del self.running[trial_id]
        try:
            answer = self.session.handle(self._files.receive(event))
        except Exception as error:  # noqa: BLE001  # raised again when Tune is done
            self.failure = error
            return
        if answer and isinstance(event, Evaluated):
            self._answer(event.trial, answer)

    def _answer(self, number: int, word: str) -> None:
        ray.get(self._mailbox.put.remote(number, word))


class SessionSearcher(_NotPickled, Searcher):
    """Tune's searcher: the session's next trial."""

    def __init__(self, callback: SessionCallback) -> None:
        super().__init__()
        self._callback = callback

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the next trial's spec; None while only a retry may still follow, FINISHED when nothing runs any more."""
        spec = self._callback.next_spec(trial_id)
        if spec is None:
            return None if self._callback.running else cast(dict[str, Any], Searcher.FINISHED)
        return {"spec": spec.to_json()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the callback gets every result."""

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the Optuna storage is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: the Optuna storage is the truth."""


class WarmScheduler(_NotPickled, FIFOScheduler):
    """Runs trials in the order in which they were asked for, and keeps an actor per slot.

    Tune keeps no more actors than trials that wait for one; two trials that end at the same moment would cost one
    of the actors, and the next trial a start from cold. And it gives an actor that is free to the trial that waits longest,
    and then ends the one that starts for that trial: where trials are shorter than a start, a slot would never be warm.
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
        """Give the free actor to a new trial; an earlier one has an actor that is being started for it."""
        return private.startable(tune_controller) or super().choose_trial_to_run(tune_controller)
