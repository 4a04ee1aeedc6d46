"""The answer of a study, in one place: which trials are best, which one is chosen, whose checkpoints stay.

:class:`Answer` is pure; :meth:`Answer.read` adds what the study's folder records of its confirmation and test.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sweepkit.report.verdict import Verdict, read_verdict
from sweepkit.study.files import write_whole
from sweepkit.study.paths import Place
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Trial


@dataclass(frozen=True)
class Answer:
    """What the trials of a study amount to.

    With one goal, trials are ordered by it. With several, the Pareto front comes first, and the first goal orders the front
    and the rest.
    """

    study: StudyData
    rows: Sequence[Trial]
    confirmation: Verdict | None = None
    """The last confirmation; it counts while :attr:`verdict` has it."""
    test: Mapping[str, Any] | None = None
    """The one evaluation on the test split: ``trial``, ``at``, ``rows`` and ``metrics``."""

    @classmethod
    def read(cls, study: StudyData, rows: Sequence[Trial]) -> Answer:
        """Return the answer with the confirmation and the test recorded in the study's folder."""
        return cls(study, rows, read_verdict(study.place), read_test(study.place))

    @property
    def several(self) -> bool:
        """Whether the study has several goals."""
        return len(self.study.objective.goals) > 1

    @cached_property
    def ranked(self) -> list[Trial]:
        """Complete trials with finite values, best first; equal ones in the order they were tried."""
        if not self.several:
            return self._ordered
        members = {row.number for row in self.front}
        return [*self.front, *(row for row in self._ordered if row.number not in members)]

    @cached_property
    def front(self) -> list[Trial]:
        """The Pareto-optimal trials, ordered by the first goal: none is as good in every goal and better in one."""
        members: list[Trial] = []
        costs: list[tuple[float, ...]] = []
        for row in self._ordered:  # a trial can only be dominated by one that comes before it
            mine = self._costs(row)
            if not any(other != mine and all(o <= m for o, m in zip(other, mine, strict=True)) for other in costs):
                members.append(row)
                costs.append(mine)
        return members

    @property
    def best(self) -> Trial | None:
        """The trial with the best value in the search; None while there is none, and with several goals."""
        return self.ranked[0] if self.ranked and not self.several else None

    @property
    def verdict(self) -> Verdict | None:
        """The verdict of the confirmation; None without one, and when a better trial came since."""
        luck = self.confirmation.luck if self.confirmation else None
        current = luck is not None and bool(self.ranked) and luck.number == self.ranked[0].number
        return self.confirmation if current else None

    @property
    def chosen(self) -> Trial | None:
        """The trial with the best mean over new seeds; before a confirmation the best of the search."""
        number = self.verdict.chosen if self.verdict else None
        return next((row for row in self.rows if row.number == number), self.best)

    @property
    def winners(self) -> list[Trial]:
        """The chosen trial alone, or with several goals the Pareto front; empty while there is none."""
        if self.several:
            return self.front
        return [self.chosen] if self.chosen else []

    @property
    def baseline(self) -> Trial | None:
        """The baseline, where the study has one."""
        return next((row for row in self.rows if row.origin == "baseline"), None)

    @property
    def target(self) -> Trial | None:
        """The trial that reached ``budget.target``; None while there is none, or no target."""
        wanted, best = self.study.budget.target, self.best
        if wanted is None or best is None or best.value is None:
            return None
        maximize = self.study.objective.goals[0].direction == "maximize"
        return best if (best.value >= wanted if maximize else best.value <= wanted) else None

    def top(self, count: int) -> list[Trial]:
        """Return the best ``count`` trials; with several goals members of the Pareto front only."""
        return (self.front if self.several else self.ranked)[:count]

    def keep(self, count: int) -> int:
        """Return how many of :attr:`ranked` keep their checkpoint: ``count``, or a Pareto front larger than that."""
        return max(count, len(self.front)) if self.several else count

    def gain(self, row: Trial) -> float | None:
        """Return how much better a trial is than the baseline in the first goal (negative: worse); None without both values."""
        if self.baseline is None or not self.baseline.values or not row.values:
            return None
        return self._costs(self.baseline)[0] - self._costs(row)[0]

    def record(self, *, status: str = "done", reason: str = "") -> dict[str, Any]:
        """Return what a study ended with, as trackers record it."""
        row = self.chosen
        found: dict[str, Any] = {
            "status": status,
            "reason": reason,
            "best": row.number if row else None,
            "value": row.value if row else None,
            "baseline": self.baseline.value if self.baseline else None,
        }
        if self.verdict:
            found["confirm"] = self.verdict.to_json()
        return found | ({"test": self.test} if self.test else {})

    @cached_property
    def _ordered(self) -> list[Trial]:
        able = [row for row in self.rows if row.ending.ranks and row.values and all(map(math.isfinite, row.values))]
        return sorted(able, key=lambda row: (self._costs(row), row.number))

    def _costs(self, row: Trial) -> tuple[float, ...]:
        """The values with lower ones better."""
        goals = zip(self.study.objective.goals, row.values, strict=True)
        return tuple(-value if goal.direction == "maximize" else value for goal, value in goals)


def read_test(place: Place) -> dict[str, Any] | None:
    """Return what is recorded of the one evaluation on the test split, or None while there was none."""
    try:
        found: dict[str, Any] = json.loads(place.test_json.read_text())
    except FileNotFoundError:
        return None
    return found


def write_test(place: Place, found: Mapping[str, Any]) -> None:
    """Record the evaluation on the test split, whole or not at all."""
    write_whole(place.test_json, json.dumps(found, indent=2) + "\n")
