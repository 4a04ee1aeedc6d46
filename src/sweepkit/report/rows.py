"""The trials of a study as rows, as JSON and as a data frame, and the hours they took."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from sweepkit.study.damage import read_or_note
from sweepkit.study.files import jsonable
from sweepkit.study.locks import lock_owner
from sweepkit.study.paths import BEST, Place
from sweepkit.study.secrets import hide
from sweepkit.study.study import StudyData
from sweepkit.trackers import tracker_of
from sweepkit.trial.trial import Ending, Trial

if TYPE_CHECKING:
    import pandas
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

    from sweepkit.search.search import Search

WON = "won"
"""Name of the complete trials' hours; those of other endings have the ending's name."""
CONFIRM = "/confirm"
"""Suffix of the search beside the study's own that holds its confirmation runs."""
_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
CONFIRMED = "confirmation"
"""Name of the confirmation runs' hours."""


def rows(study: StudyData, search: Search) -> list[Trial]:
    """Return the trials of a search with their checkpoints and MLflow runs."""
    return join(study, search.place, search.trials())


def join(study: StudyData, place: Place, trials: Iterable[Trial]) -> list[Trial]:
    """Return the trials with ``checkpoint`` (where ``best/`` exists) and ``mlflow_run`` (where one was delivered)."""
    runs = tracker_of(study, place=place).runs()
    joined = []
    for trial in trials:
        folder = place.trial(trial.number) / BEST
        joined.append(replace(trial, checkpoint=folder if folder.exists() else None, mlflow_run=runs.get(trial.number)))
    return joined


def open_failures(rows: Iterable[Trial]) -> list[Trial]:
    """Return the trials that failed and were not retried."""
    listed = list(rows)
    retried = {row.retry_of for row in listed}
    return [row for row in listed if row.ending is Ending.failed and row.number not in retried]


def hours_by_ending(
    rows: Iterable[Trial], *, confirmed: Iterable[Trial] = (), slot_hours: float | None = None
) -> dict[str, float]:
    """Return hours by ending (``won``, ``pruned``, …); with ``slot_hours`` also ``idle``, the hours no trial used.

    ``confirmed`` are confirmation runs, whose hours are their own; ``slot_hours`` is driver time times the number of slots.
    """
    hours = dict.fromkeys((WON, "pruned", "infeasible", "diverged", "failed"), 0.0)
    for row in rows:
        if row.seconds:
            name = WON if row.ending is Ending.complete else row.ending.value
            hours[name] = hours.get(name, 0.0) + row.seconds / 3600
    hours[CONFIRMED] = sum(row.seconds or 0.0 for row in confirmed) / 3600
    if slot_hours is not None:
        hours["idle"] = max(0.0, slot_hours - sum(hours.values()))
    return hours


def trial_json(study: StudyData, row: Trial) -> dict[str, Any]:
    """Return one trial as plain data with stable keys; ``value`` is a list where the study has several goals.

    ``metrics`` are those of the evaluation that decides the value; ``params`` have the study's fixed values, too. The
    members of a population have a ``schedule`` besides, those that paused or were pruned ``decisions``.
    """
    several = len(study.objective.goals) > 1
    about = {name: value for name, value in hide(study.fixed).items() if name not in ("task.model", "task.data")}
    return {
        "number": row.number,
        "ending": row.ending.value,
        "reason": row.reason and row.reason.value,
        "cause": row.cause,
        "params": jsonable({**about, **row.params}),
        "value": jsonable(row.values) if several and row.values else jsonable(row.value),
        "metrics": jsonable(row.metrics),
        "started": row.started,
        "seconds": row.seconds,
        "checkpoint": jsonable(row.checkpoint),
        "mlflow_run": row.mlflow_run,
        **({"schedule": [jsonable(asdict(turn)) for turn in row.schedule]} if row.schedule else {}),
        **({"decisions": [asdict(decision) for decision in row.decisions]} if row.decisions else {}),
    }


def to_json(study: StudyData, rows: Iterable[Trial]) -> dict[str, Any]:
    """Return a study's trials as plain data with stable keys: what ``sweep show --json`` prints."""
    return {"study": study.name, "trials": [trial_json(study, row) for row in rows]}


def study_json(study: StudyData, rows: Sequence[Trial], ahead: Sequence[Trial], state: str) -> dict[str, Any]:
    """Return a study's line in ``sweep list --json``, with stable keys; ``best`` is a trial (several goals: a list).

    ``ahead`` are the trials that are its answer; ``state`` is that of :func:`read_state`.
    """
    found = [trial_json(study, row) for row in ahead]
    several = len(study.objective.goals) > 1
    return {
        "name": study.name,
        "question": study.question,
        "goals": [goal.model_dump() for goal in study.objective.goals],
        "trials": sum(row.ending.counts for row in rows),
        "budget_trials": study.budget.trials,
        "running": lock_owner(study.place) is not None,
        "state": state,
        "started": min((row.started for row in rows if row.started), default=None),
        "best": found if several else (found[0] if found else None),
        "folder": str(study.place.folder),
    }


def frame(study: StudyData, rows: Iterable[Trial]) -> pandas.DataFrame:
    """Return one line per trial: its facts, a column per goal and further metric, and ``params.NAME`` columns."""
    import pandas

    lines = []
    for row in rows:
        facts = trial_json(study, row)
        params, metrics = facts.pop("params"), facts.pop("metrics")
        del facts["value"]
        goals = {
            goal.metric: row.values[index] if index < len(row.values) else math.nan
            for index, goal in enumerate(study.objective.goals)
        }
        origin = {"origin": row.origin, "attempts": row.attempts}
        others = {name: value for name, value in metrics.items() if name not in goals}
        lines.append(
            {**facts, **origin, **goals, **others, **{f"params.{name}": value for name, value in params.items()}}
        )
    return pandas.DataFrame(lines)


@dataclass(frozen=True)
class Spent:
    """Content of ``spent.json``: seconds of drivers, and these times their slots; None where that is not known."""

    seconds: _Seconds
    slot_seconds: _Seconds | None = None


def read_spent(place: Place) -> Spent | None:
    """Return what is recorded of the time spent; None without a record and, after a note, where it is damaged."""
    found: Spent | None = read_or_note(place.spent_json, Spent, "the hours without a trial are not known")
    return found


def slot_hours(place: Place) -> float | None:
    """Return the hours that slots were available, summed over resumes; None where they were not recorded."""
    spent = read_spent(place)
    return None if spent is None or spent.slot_seconds is None else spent.slot_seconds / 3600


class Reader:
    """Reads a study's trials from its storage, without a lock and without writing."""

    def __init__(self, study: StudyData, *, suffix: str = "") -> None:
        self._study = study
        self.place = replace(study.place, name=study.name + suffix)
        """Place of the trials; with a suffix that of the search beside the study's own (confirmation runs)."""
        self._storage: BaseStorage | None = None

    def rows(self) -> list[Trial]:
        """Return the trials at this moment, none for a study that never ran; a trial whose driver is gone is ``stopped``."""
        from sweepkit.search.records import row_of
        from sweepkit.search.storage import ensure_whole

        logged, stored = self.place.next_number(), self._stored()
        ensure_whole(self._study, self.place, logged, len(stored))
        trials = join(self._study, self.place, map(row_of, stored))
        if self._study.storage != "journal" or lock_owner(self._study.place) is not None:
            return trials
        return [replace(row, ending=Ending.stopped) if row.ending is Ending.running else row for row in trials]

    def beside(self, suffix: str) -> Reader:
        """Return a reader of another search in the same storage, which both share."""
        other = Reader(self._study, suffix=suffix)
        other._storage = self._open()
        return other

    def _stored(self) -> list[FrozenTrial]:
        storage = self._open()
        try:
            return (
                storage.get_all_trials(storage.get_study_id_from_name(self.place.name), deepcopy=False)
                if storage
                else []
            )
        except KeyError:
            return []

    def _open(self) -> BaseStorage | None:
        from sweepkit.search.storage import open_storage

        if self._storage is None and (self._study.storage != "journal" or self._study.place.journal.exists()):
            self._storage = open_storage(self._study.place, self._study)
        return self._storage


def read(study: StudyData) -> list[Trial]:
    """Return a study's trials at this moment; see :class:`Reader`."""
    return Reader(study).rows()


def endings(rows: Iterable[Trial]) -> str:
    """Return the number of trials by ending, for example ``8 complete, 3 pruned, 1 failed``."""
    counts = Counter(row.ending for row in rows)
    return ", ".join(f"{counts[ending]} {ending}" for ending in Ending if counts[ending])
