"""What runs on the nodes: an actor per slot, with a warm process that forks one trial at a time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ray
from ray import tune

from sweepkit.backends.local.executor import Executor
from sweepkit.backends.ray.files import NodeFiles
from sweepkit.backends.slots import Slot
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Event, Finished, Logged
from sweepkit.trial.trial import Reason, TrialSpec

POLL_SECONDS = 0.1
"""How often an actor looks for a word (stop, prune) while its trial trains."""


@ray.remote(num_cpus=0)
class Mailbox:
    """Carries the driver's words to the actors; each word is taken once."""

    def __init__(self) -> None:
        self._words: dict[int, list[str]] = {}

    def put(self, trial: int, word: str) -> None:
        """Leave a word for a trial."""
        self._words.setdefault(trial, []).append(word)

    def take(self, trial: int) -> list[str]:
        """Return the words left for a trial, oldest first."""
        return self._words.pop(trial, [])


class Actor(tune.Trainable):
    """One slot of the cluster: owns a warm process and forks one trial at a time; each step returns the trial's events."""

    def setup(
        self, config: dict[str, Any], study: str = "", home: str = "", slot: Slot | None = None, mailbox: Any = None
    ) -> None:
        """Start the warm process, which takes seconds, once."""
        assert slot is not None
        self._study = StudyData.model_validate_json(study).at(Path(home))
        self._mailbox = mailbox
        self._files = NodeFiles(self._study)
        slot = Slot(tuple(str(gpu) for gpu in ray.get_gpu_ids()), slot.threads, slot.ranks)
        log = self._study.place.folder / f"warm-{os.uname().nodename}.log"
        self._executor = Executor(self._study, [slot], log=log).__enter__()
        self._executor.wait_ready()
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial; the next step starts it."""
        self._spec = TrialSpec.from_json(new_config["spec"])
        self._begun = False
        return True

    def step(self) -> dict[str, Any]:
        """Return the trial's next events; all but what it logs is passed on at once."""
        number = self._spec.number
        if not self._begun:
            self._executor.start(self._files.receive(self._spec))
            self._begun = True
        events: list[Event] = []
        while True:
            for word in ray.get(self._mailbox.take.remote(number)):
                if word == "kill":
                    self._executor.kill(number, Reason.interrupted, "stopped")
                else:
                    self._executor.answer(number, word)
            events += map(self._files.send, self._executor.poll(POLL_SECONDS))
            if any(not isinstance(event, Logged) for event in events):
                done = isinstance(events[-1], Finished)
                return {"events": [event.to_json() for event in events], "done": done}

    def cleanup(self) -> None:
        """End the warm process and whatever it runs."""
        self._executor.__exit__(None, None, None)
        self._files.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Trials keep their own checkpoints; Tune has none to keep."""
