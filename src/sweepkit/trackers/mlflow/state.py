"""What has been delivered, kept in the study's ``mlflow.json``.

Losing the file loses nothing: runs are found again by their tags, and delivering the same thing twice changes nothing in
the store.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import ConfigDict

from sweepkit.study.damage import read_or_note
from sweepkit.study.files import write_whole
from sweepkit.study.paths import Place
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Ending, Trial

UNENDED = (Ending.running, Ending.waiting, Ending.paused)


@dataclass
class Delivered:
    """What the store has of one trial."""

    run_id: str = ""
    offset: int = 0
    """Bytes of the trial's log that are delivered."""
    epoch_step: int = 0
    """Last step whose epoch is delivered; a training log and an evaluation at the same step share it."""
    ending: str = ""
    """The last ending delivered."""
    model_id: str = ""
    model: str = ""
    """``making``, ``made``, ``registered`` (never deleted) or ``leaving``; empty: there is none."""
    gone: bool = False
    """The run was deleted in MLflow by a user; it is left alone."""

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass
class State:
    """What the store has of a study."""

    study_id: str
    trials: dict[int, Delivered]
    experiment_id: str = ""
    parent_run_id: str = ""
    data: str = ""
    """Folder of the prepared data."""
    sent: dict[str, str] = field(default_factory=dict)
    """Path of a parent run's artifact → digest of what was sent."""
    store: str = ""
    """Digest of the store's address and the experiment's name."""
    closed: str = ""
    """Digest of the answer that the parent run ended with; empty while it is open."""
    path: Path = field(init=False)
    changed: bool = field(init=False, default=False)
    """Whether a trial was delivered since the last :meth:`save`."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    @classmethod
    def load(cls, path: Path) -> State:
        """Return what the file holds; a missing or, after a note, damaged file counts as empty."""
        meaning = "runs are found again by their tags, and everything is delivered again"
        state: State = read_or_note(path, cls, meaning) or cls("", {})
        state.path = path
        return state

    def begun(self, study_id: str, experiment_id: str) -> State:
        """Return the state of a study of which this experiment has nothing yet."""
        state = State(study_id, {}, experiment_id)
        state.path = self.path
        return state

    def is_delivered(self, place: Place, number: int, row: Trial | None) -> bool:
        """Whether everything of a trial is delivered."""
        done = self.trials.get(number, Delivered())
        if done.gone:
            return True
        read = TrialLog(place.trial(number)).size in (0, done.offset)
        return read and (row is None or row.ending in UNENDED or row.ending == done.ending)

    def behind(self, place: Place, rows: Iterable[Trial]) -> int:
        """Return how many trials have something undelivered."""
        known = {row.number: row for row in rows}
        return sum(not self.is_delivered(place, number, known.get(number)) for number in folders(place) | known.keys())

    def save(self) -> None:
        """Write the file; a reader sees the old one or the new one.

        It is not flushed to the disk, which costs up to 10 ms: what a power failure takes is delivered again.
        """
        data = {name: value for name, value in vars(self).items() if name not in ("path", "changed")}
        data["trials"] = {str(number): asdict(trial) for number, trial in sorted(self.trials.items())}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, json.dumps(data), durable=False)
        self.changed = False


def folders(place: Place) -> set[int]:
    """Return the numbers of the trials that have a folder."""
    if not place.trials.is_dir():
        return set()
    return {int(folder.name) for folder in place.trials.iterdir() if folder.name.isdigit()}
