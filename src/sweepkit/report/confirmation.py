"""Confirmation runs: which trials are trained again, with which seeds, and what came out. Knows no process and no MLflow.

They are trials of a second search, ``<name>/confirm``, beside the study's own in the same storage: they feed no sampler
and count in no number of trials. Each has a seed of its own that the search never used.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage

from sweepkit.report import rows as results
from sweepkit.report.verdict import Candidate, Verdict, judge
from sweepkit.search.configurations import Proposer
from sweepkit.search.search import Search
from sweepkit.study.paths import Place
from sweepkit.study.study import Confirm, PrunerSpec, StudyData
from sweepkit.trial.trial import Trial

SUFFIX = "/confirm"
ORIGIN = "confirm of "
"""How the origin of a confirmation run begins; the trial's number follows."""
SEEDS_FROM = 1_000_000
"""New seeds begin so far above the study's own; with ``seed_per_trial`` trial N has the study's seed plus N."""


class Confirmation:
    """The confirmation of one study whose search is over for now."""

    def __init__(
        self,
        study: StudyData,
        search: Search,
        storage: BaseStorage,
        *,
        known: Mapping[str, Any],
        proposer: Proposer | None = None,
    ) -> None:
        assert study.confirm is not None
        self.asked: Confirm = study.confirm
        budget = study.budget.model_copy(update={"target": None})
        plain = study.model_copy(update={"pruner": PrunerSpec(), "budget": budget})
        self.study = plain.at(study.home)
        """The study as its confirmation runs see it: nothing is pruned, no target ends it."""
        self._searched = search
        self.search = Search(self.study, storage, known=known, suffix=SUFFIX, proposer=proposer)

    def enqueue(self) -> int:
        """Add the runs that are still missing, seed by seed; return how many there are in all."""
        rows = self.search.trials()
        there = {number: len(_of(number, rows)) for number in self.numbers()}
        first, total = _free_seed(self.study, self._searched.trials()), len(rows)
        for round_ in range(self.asked.seeds):
            for number, count in there.items():
                if count <= round_:
                    seed = first + total
                    self.search.repeat(number, of=self._searched, origin=f"{ORIGIN}{number}", seed=seed)
                    total += 1
        return total

    def numbers(self) -> list[int]:
        """Return the trials that are trained again: the best, then the baseline where it is not among them."""
        rows = self._searched.trials()
        able = results.ranked(self.study, rows)
        if len(self.study.objective.goals) > 1:
            able = results.front(self.study, rows)
        found = [row.number for row in able[: self.asked.top]]
        baseline = results.baseline(rows)
        return found if baseline is None or baseline.number in found else [*found, baseline.number]

    def verdict(self) -> Verdict:
        """Return the verdict over what ended so far."""
        goal, rows = self.study.objective.goals[0], self._searched.trials()
        baseline = results.baseline(rows)
        found = [
            _candidate(rows[number], self.search.trials(), is_baseline=rows[number] == baseline)
            for number in self.numbers()
        ]
        return judge(found, metric=goal.metric, direction=goal.direction, best=_best(self.study, rows))

    def save(self, verdict: Verdict) -> None:
        """Write the verdict beside the confirmation runs."""
        path = verdict_file(self.study.place)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, verdict.to_json())


def confirmed(study: StudyData, rows: Sequence[Trial]) -> dict[str, Any] | None:
    """Return the verdict of a study's confirmation as plain data; None without one, or when a better trial came since."""
    found = read(verdict_file(study.place))
    luck = (found or {}).get("luck")
    return found if luck and luck["number"] == _best(study, rows) else None


def chosen(study: StudyData, rows: Sequence[Trial]) -> Trial | None:
    """Return the study's answer: the trial with the best confirmed mean, before a confirmation the best of the search."""
    verdict = confirmed(study, rows)
    number = verdict["chosen"] if verdict else _best(study, rows)
    return next((row for row in rows if row.number == number), None)


def winners(study: StudyData, rows: Sequence[Trial]) -> list[Trial]:
    """Return the study's answer: the trial that is chosen, or with several goals the Pareto front."""
    if len(study.objective.goals) > 1:
        return results.winners(study, rows)
    found = chosen(study, rows)
    return [found] if found else []


def answer(study: StudyData, rows: Sequence[Trial], *, status: str = "done", reason: str = "") -> dict[str, Any]:
    """Return what a study ended with, as trackers record it: the choice, the verdict behind it, the test where it was."""
    found = results.answer(study, rows, status=status, reason=reason)
    verdict, row, test = confirmed(study, rows), chosen(study, rows), tested(study)
    if verdict and row:
        found |= {"best": row.number, "value": row.value, "confirm": verdict}
    return found | ({"test": test} if test else {})


def tested(study: StudyData) -> dict[str, Any] | None:
    """Return what is recorded of the one evaluation on the test split, or None while there was none."""
    return read(tested_file(study.place))


def verdict_file(place: Place) -> Path:
    """Return where a study's verdict lies."""
    return place.folder / "confirm" / "verdict.json"


def tested_file(place: Place) -> Path:
    """Return where it is recorded that the test split was used, and what came out."""
    return place.folder / "test.json"


def write(path: Path, data: Mapping[str, Any]) -> None:
    """Write plain data, whole or not at all."""
    draft = path.with_suffix(".json.new")
    draft.write_text(json.dumps(data, indent=2) + "\n")
    os.replace(draft, path)


def read(path: Path) -> dict[str, Any] | None:
    """Return the plain data of a file, or None where there is none."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return found


def _best(study: StudyData, rows: Iterable[Trial]) -> int | None:
    found = results.ranked(study, rows)
    return found[0].number if found else None


def _of(number: int, rows: Iterable[Trial]) -> list[Trial]:
    return [row for row in rows if row.origin == f"{ORIGIN}{number}"]


def _candidate(row: Trial, runs: Iterable[Trial], *, is_baseline: bool) -> Candidate:
    mine = [run for run in _of(row.number, runs) if run.ending.counts]
    values = [run.value for run in mine if run.ending.ranks and run.value is not None and math.isfinite(run.value)]
    return Candidate(
        number=row.number,
        values=tuple(values),
        baseline=is_baseline,
        searched=row.value if row.ending.ranks else None,
        lost=len(mine) - len(values),
    )


def _free_seed(study: StudyData, rows: Iterable[Trial]) -> int:
    """Return a seed above all that the search used or may still use."""
    used = (row.params.get("seed") for row in rows)
    return max([study.seed, *(seed for seed in used if isinstance(seed, int))]) + SEEDS_FROM
