"""Makes Tune ask and tell a session: a searcher, a callback, a stopper and a scheduler that share one conversation.

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


class _Here:
    """Stays in this process: Tune pickles what it is given, for a restore that is never asked for."""

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        return object, ()


class Conversation(_Here):
    """Connects Tune to the session: which trials run, the answers waiting for them, and what failed."""

    def __init__(self, session: Session, mailbox: Any, files: DriverFiles) -> None:
        self.session = session
        self._files = files
        self.open: dict[str, int] = {}
        """Tune's trial → number of ours, from being asked for to its end."""
        self.failure: BaseException | None = None
        self.stopper = _Stopper(self)
        self._mailbox = mailbox
        self._told: set[tuple[int, str]] = set()

    def ask(self, trial_id: str) -> TrialSpec | None:
        """Return the next trial to start."""
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
        self.open[trial_id] = spec.number
        return spec

    def hear(self, trial_id: str, event: Event) -> None:
        """Take an event to the session and its answer to the trial; nothing counts that comes after the end."""
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
        """Leave a word for a trial; returns when it is there."""
        ray.get(self._mailbox.put.remote(number, word))

    def tick(self, trials: list[Any]) -> None:
        """Look at budgets; pass a stop on to what runs, and end what waits for a place."""
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
            elif (number, word) not in self._told:
                self._told.add((number, word))
                self.tell(number, word)


class _Stopper(_Here, tune.Stopper):
    """Ends the experiment when the session failed, or when it wants to stop and nothing is left to wait for."""

    def __init__(self, talk: Conversation) -> None:
        self._talk = talk

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Whether everything is to end now."""
        return self._talk.failure is not None or (self._talk.session.stopping and not self._talk.open)


class Asker(_Here, Searcher):
    """Tune's searcher: the session's next trial."""

    def __init__(self, talk: Conversation) -> None:
        super().__init__()
        self._talk = talk

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the next trial's spec; None while only a retry may still come, the end when nothing runs any more."""
        spec = self._talk.ask(trial_id)
        if spec is None:
            return None if self._talk.open else cast(dict[str, Any], Searcher.FINISHED)
        return {"spec": spec.to_json()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The callback heard it already."""

    def save(self, checkpoint_path: str) -> None:
        """The Optuna storage is the truth; there is nothing to save."""

    def restore(self, checkpoint_path: str) -> None:
        """The Optuna storage is the truth; there is nothing to restore."""


class Hearer(_Here, tune.Callback):
    """Turns Tune's hooks into the session's events."""

    def __init__(self, talk: Conversation) -> None:
        self._talk = talk

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune turns once more."""
        self._talk.tick(trials)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Hand every event to the session."""
        for line in result.pop("events", ()):
            self._talk.hear(trial.trial_id, from_json(line))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """An actor is gone: with its node or process the trial is lost; by an error of its own the study is."""
        number = self._talk.open.get(trial.trial_id)
        if number is None:
            return
        path = trial.pickled_error_file  # Tune's own reader looks where it copies the file to later
        error = cloudpickle.loads(Path(path).read_bytes()) if path else None
        if isinstance(error, RayActorError) and not error.actor_init_failed:
            cause = "lost: the Ray node or actor it ran on"
            end = Finished(trial=number, at=time.time(), ending=Ending.failed, reason=Reason.lost, cause=cause)
            self._talk.hear(trial.trial_id, end)
            return
        why = getattr(error, "cause", None) or error
        self._talk.failure = why if isinstance(why, StudyFailed) else StudyFailed(f"a Ray actor failed: {why}")


class Warm(_Here, FIFOScheduler):
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
        """Give the free actor to a new trial; one that was asked for earlier has an actor under way."""
        return private.startable(tune_controller) or super().choose_trial_to_run(tune_controller)
