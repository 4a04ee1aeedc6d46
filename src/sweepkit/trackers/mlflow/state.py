"""What has been delivered, kept in the study's ``mlflow.json``. Knows no store.

Losing the file loses nothing: runs are found again by their tags, and everything is delivered once more to a store that
takes the same thing only once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from filelock import FileLock

from sweepkit.study.files import write_whole
from sweepkit.study.paths import Place
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Ending, Trial

UNENDED = (Ending.running, Ending.waiting)

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Delivered:
    """What the store has of one trial. ``offset`` is the position in ``events.jsonl``, ``ending`` the one last told."""

    run_id: str = ""
    offset: int = 0
    epoch_step: int = 0
    """Last step whose epoch was told; a training log and an evaluation of one step share it."""
    ending: str = ""
    model_id: str = ""
    model: str = ""
    """``making``, ``made``, ``registered`` (stays for good) or ``leaving``; empty: there is none."""
    gone: bool = False
    """The run was deleted by hand in MLflow; it is left alone."""


@dataclass
class State:
    """What the store has of a study."""

    path: Path
    study_id: str = ""
    experiment_id: str = ""
    parent_run_id: str = ""
    data: str = ""
    """Folder of the prepared data."""
    sent: dict[str, str] = field(default_factory=dict)
    """Artifact of the parent → digest of what was sent."""
    trials: dict[int, Delivered] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> State:
        """Return what the file holds; a missing or unreadable one counts as empty."""
        state = cls(path)
        try:
            data: dict[str, Any] = json.loads(path.read_text())
            state.trials = {int(number): Delivered(**trial) for number, trial in data.pop("trials").items()}
            for name, value in data.items():
                setattr(state, name, value)
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return cls(path)
        return state

    def done(self, place: Place, number: int, row: Trial | None) -> bool:
        """Whether the store has all there is of a trial."""
        done = self.trials.get(number, Delivered())
        if done.gone:
            return True
        read = TrialLog(place.trial(number)).size == done.offset
        return read and (row is None or row.ending in UNENDED or row.ending == done.ending)

    def behind(self, place: Place, rows: Iterable[Trial]) -> int:
        """Return how many trials have something undelivered."""
        known = {row.number: row for row in rows}
        return sum(not self.done(place, number, known.get(number)) for number in {*folders(place), *known})

    def save(self) -> None:
        """Write the file; a reader sees the old one or the new one."""
        data = {
            "study_id": self.study_id,
            "experiment_id": self.experiment_id,
            "parent_run_id": self.parent_run_id,
            "data": self.data,
            "sent": self.sent,
            "trials": {str(number): asdict(trial) for number, trial in sorted(self.trials.items())},
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, json.dumps(data))


def folders(place: Place) -> set[int]:
    """Return the numbers of the trials that have a folder."""
    if not place.trials.is_dir():
        return set()
    return {int(folder.name) for folder in place.trials.iterdir() if folder.name.isdigit()}


class Sharing(Protocol):
    """Somebody who may share a state with others."""

    turn: FileLock | None
    """Held while something is delivered; None for whoever is alone."""

    def reload(self) -> None:
        """Start from what the others delivered meanwhile."""


S = TypeVar("S", bound=Sharing)


def in_turn(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Let several drivers on one folder deliver one after the other, so that nothing is delivered twice."""

    @wraps(method)
    def turn(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self.turn is None:
            return method(self, *args, **kwargs)
        with self.turn:
            self.reload()
            return method(self, *args, **kwargs)

    return turn
