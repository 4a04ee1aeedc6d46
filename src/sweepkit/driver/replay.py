"""Replays a study: the recorded curves of its trials under another pruner, without training anything."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from optuna import Study
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from sweepkit.backends.virtual import Known, Lap, VirtualBackend
from sweepkit.check.rules.pruning import check_pruner
from sweepkit.check.study_file import read_study, to_yaml
from sweepkit.driver.session import Setup, StudySession
from sweepkit.report.answer import Answer
from sweepkit.report.rows import Reader, read_spent
from sweepkit.report.watch import Watcher
from sweepkit.search.proposer import Proposer
from sweepkit.search.records import EVALUATION, Records, whole
from sweepkit.search.samplers import Nearby
from sweepkit.search.search import Search
from sweepkit.search.storage import open_storage
from sweepkit.study import words
from sweepkit.study.budget import Budget
from sweepkit.study.configurations import Configuration, key_of
from sweepkit.study.errors import InputError, StudyFileError, StudyNotFound
from sweepkit.study.study import StudyData, Tracking
from sweepkit.trackers import tracker_of
from sweepkit.trackers.courier import Courier
from sweepkit.trial.trial import Ending, Trial, TrialSpec

REPLAYED = ("pruner", "search", "backend.parallel", "budget.trials", "budget.worth", "confirm.top")
"""Keys whose effect on recorded curves can be told."""


def replay(study: StudyData, overrides: Iterable[str]) -> Replay:
    """Run the strategy that the overrides (``pruner.type=…``) make of the study over its recorded curves.

    Raises InputError for what no recorded curve can tell of, StudyNotFound without trials.
    """
    overrides = list(overrides)
    for override in overrides:
        key = override.partition("=")[0].strip()
        if not any(key == known or key.startswith(f"{known}.") for known in REPLAYED):
            raise InputError(f"--set {key}: recorded curves cannot show its effect, only that of {', '.join(REPLAYED)}")
    if study.pruner.population:
        raise InputError(f"{study.name} trained a population: its curves are of weights that several trials share")
    recorded = _Recorded(study)
    if not any(row.ending is Ending.complete for row in recorded.rows.values()):
        raise StudyNotFound(f"{study.name} has no trial that was trained to its end, so there is nothing to replay")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.yaml"
        file.write_text(to_yaml(study))
        other = read_study(file, overrides)
        if other.pruner.population:
            raise InputError(f"--set pruner: {other.pruner.type} proposes new configurations, which have no curves")
        longest = max(len(known.laps) for known in recorded.known.values() if known.ending["ending"] is Ending.complete)
        if problems := [problem for each in check_pruner(other, longest) for problem in each]:
            raise StudyFileError(problems)
        return _run(study, _alone(study, other, Path(folder)), recorded, longest)


@dataclass(frozen=True)
class Replay:
    """What a study would have come to by another strategy."""

    recorded: Answer
    replayed: Answer
    cut: Sequence[int]
    """Trials of the record that would have gone on where their curves end."""
    numbers: Mapping[int, int]
    """Trial of the record → trial of the replay."""

    def sentences(self) -> list[str]:
        """Return what can be said of it, the most important first."""
        before, after = (sum(row.seconds or 0.0 for row in each.rows) for each in (self.recorded, self.replayed))
        saved = f"{abs(before - after) / before:.0%} {'less' if after <= before else 'more'}" if before else "as much"
        least = "at least " if self.cut else ""
        said = [f"Training: {least}{words.span(after)} in place of {words.span(before)}, {saved}."]
        said.append(self._winner())
        best = self.replayed.best
        if best is not None and self.recorded.best is not None and best.value != self.recorded.best.value:
            said.append(
                f"The best complete trial would have been {self._back[best.number]}, {words.value(best.value)}."
            )
        if self.cut:
            trials = f"trial{'s' if len(self.cut) > 1 else ''} {words.join([str(each) for each in self.cut])}"
            said.append(
                f"{trials[0].upper()}{trials[1:]} would have continued past the last recorded evaluation; how they would have "
                "ended is unknown."
            )
        missing = sorted(row.number for row in self.recorded.rows if row.number not in self.numbers)
        if missing:
            said.append(f"Not started: trial{'s' if len(missing) > 1 else ''} {words.join(list(map(str, missing)))}.")
        return [
            *said,
            "Only configurations that the study tried have curves: what else it would have tried is unknown.",
        ]

    def _winner(self) -> str:
        best = self.recorded.best
        if best is None:
            return "The study has no best trial."
        title = f"The best trial, {best.number} ({words.value(best.value)}),"
        number = self.numbers.get(best.number)
        if number is None:
            return f"{title} would not have been started."
        row = next(row for row in self.replayed.rows if row.number == number)
        if row.ending is Ending.complete:
            return f"{title} would have been trained to its end."
        cause = f": {row.cause}" if row.cause else ""
        return f"{title} would have been pruned after evaluation {max(row.intermediate, default=0)}{cause}."

    @cached_property
    def _back(self) -> Mapping[int, int]:
        return {new: old for old, new in self.numbers.items()}


class _Recorded:
    """The trials of a study that ended, by key of their hyperparameters; of equal ones the last."""

    def __init__(self, study: StudyData) -> None:
        rows = {row.number: row for row in Reader(study).rows() if row.ending.counts}
        stored = Records(study.name, open_storage(study.place, study), study.objective.goals).all() if rows else []
        replaced = {row.retry_of for row in rows.values()}
        mine = {key_of(row.params): row for row in rows.values() if row.number not in replaced}
        self.rows = mine
        self.known = {key: _known(row, stored[row.number]) for key, row in self.rows.items()}
        self.distributions = {key: each for row in stored for key, each in row.distributions.items()}
        self.baseline = next((stored[row.number] for row in mine.values() if row.origin == "baseline"), None)

    def look_up(self, spec: TrialSpec) -> Known:
        return self.known[key_of(spec.hyperparameters)]


def _known(row: Trial, stored: FrozenTrial) -> Known:
    """Return a trial's course; where an evaluation's seconds were not measured, an equal part of the trial's."""
    facts = [stored.user_attrs[f"{EVALUATION}{number}"] for number in row.intermediate]
    start, seconds = stored.user_attrs.get("start_seconds", 0.0), row.seconds or 0.0
    even = max(0.0, seconds - start) / max(1, len(facts))
    laps = [Lap(each.get("seconds", even), each["metrics"], tuple(each["values"])) for each in facts]
    rest = max(0.0, seconds - start - sum(lap.seconds for lap in laps))
    ending = {"ending": row.ending, "reason": row.reason, "cause": row.cause}
    return Known(laps, start, rest, ending)


class _InOrder(Proposer):
    """Proposes recorded configurations in the order in which they were tried, or any to a strategy that rates them."""

    def __init__(self, study: StudyData, known: Mapping[str, Any], recorded: _Recorded) -> None:
        super().__init__(study, known)
        self.distributions = {**self.distributions, **recorded.distributions}
        self._rows = {key: row for key, row in recorded.rows.items() if row.origin != "baseline"}
        self._turn = 0

    def sample(
        self, sampler: BaseSampler, study: Study, trial: FrozenTrial, fixed: Mapping[str, Any]
    ) -> Configuration | None:
        """Return a recorded configuration that was not tried yet; None where there is none left."""
        others = [each.user_attrs for each in study.get_trials(deepcopy=False) if each.number != trial.number]
        tried = {key_of(each["hyperparameters"]) for each in others}
        left = [row for key, row in self._rows.items() if key not in tried]
        self._turn += isinstance(sampler, Nearby)
        row = left[self._turn % len(left) if isinstance(sampler, Nearby) else 0] if left else None
        return None if row is None else Configuration(row.drawn, row.params)


def _alone(study: StudyData, other: StudyData, folder: Path) -> StudyData:
    """Return the study that is replayed: recorded nowhere, its configurations given, with no other budget than trials."""
    budget = Budget(trials=other.budget.trials, worth=other.budget.worth)
    nothing: dict[str, Any] = {"baseline": None, "enqueue": [], "start_from": [], "tracking": Tracking(uri="none")}
    found = other.model_copy(update={**nothing, "budget": budget, "storage": "journal"}).at(folder)
    found.pruner._home = study.home
    return found


def _run(study: StudyData, other: StudyData, recorded: _Recorded, longest: int) -> Replay:
    other.place.folder.mkdir(parents=True)
    known = {"eval_strategy": "epoch", "num_train_epochs": longest}
    search = Search(other, InMemoryStorage(), _InOrder(other, known, recorded))
    if (first := recorded.baseline) is not None:
        partial = bool(first.user_attrs.get("partial"))
        start = Configuration(first.params, first.user_attrs["hyperparameters"], partial=partial)
        search.records.add(whole(TrialState.WAITING, start, recorded.distributions, origin="baseline"))
    backend = VirtualBackend(_slots(study, other), recorded.look_up)
    courier = Courier(tracker_of(other), warn=lambda text: None)
    session = StudySession(other, search, courier=courier, watch=Watcher(), setup=Setup(slots=backend.slots))
    backend.drive(session)
    session.end_paused()
    numbers = {row.number: recorded.rows[key_of(row.params)].number for row in search.trials()}
    cut = sorted(numbers[number] for number in backend.cut)
    back = {old: new for new, old in numbers.items()}
    return Replay(Answer(study, list(recorded.rows.values())), Answer(other, search.trials()), cut, back)


def _slots(study: StudyData, other: StudyData) -> int:
    """Return trials at a time: as said, else as many as the study had."""
    if isinstance(other.backend.parallel, int):
        return other.backend.parallel
    spent = read_spent(study.place)
    return max(1, round((spent.slot_seconds or 0.0) / spent.seconds)) if spent and spent.seconds else 1
