"""The answer of a study, in one place: which trials are best, which one is chosen, what it gained, whose checkpoints stay.

:class:`Answer` is pure; :meth:`Answer.read` adds what the study's folder records of its confirmation and test.
"""

from __future__ import annotations

import json
import math
from bisect import insort
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Self

from sweepkit.report.classes import Labels, same_for_all, validation_labels
from sweepkit.report.verdict import Estimate, Verdict, read_verdict
from sweepkit.study import words
from sweepkit.study.damage import read_json, read_or_note
from sweepkit.study.files import write_whole
from sweepkit.study.objective import Goal
from sweepkit.study.paths import Place
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import FROM, Ending, Trial

PAST = {
    Ending.complete: "took over other trials' weights or values",
    Ending.pruned: "was pruned",
    Ending.infeasible: "ran out of memory",
    Ending.diverged: "diverged",
    Ending.failed: "failed",
    Ending.stopped: "was interrupted",
    Ending.paused: "is paused",
    Ending.running: "is still running",
    Ending.waiting: "has not started",
}
"""Why a baseline is not comparable, by its ending; a complete one followed a population's schedule."""


@dataclass(frozen=True)
class FinalTest:
    """Content of ``test.json``: the trial whose model was evaluated on the test split, when, on how many rows, and how."""

    trial: int
    at: str
    rows: int
    metrics: dict[str, float]


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
    test: FinalTest | None = None
    """The one evaluation on the test split."""
    labels: Labels = field(default_factory=Labels)
    """What is known of the labels of the validation split."""

    @classmethod
    def read(cls, study: StudyData, rows: Sequence[Trial], **more: Any) -> Self:
        """Return the answer with what the study's folder records: the confirmation, the test, the labels."""
        test = read_or_note(study.place.test_json, FinalTest, "its result is not shown")
        return cls(study, rows, read_verdict(study.place), test, validation_labels(study.place), **more)

    @property
    def goal(self) -> Goal:
        """The first goal, by which trials are ordered."""
        return self.study.objective.goals[0]

    @property
    def maximize(self) -> bool:
        """Whether more is better, in the first goal."""
        return self.goal.direction == "maximize"

    @property
    def several(self) -> bool:
        """Whether the study has several goals."""
        return len(self.study.objective.goals) > 1

    @property
    def ended(self) -> list[Trial]:
        """Trials that count in the budget."""
        return [row for row in self.rows if row.ending.counts]

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
    def tied(self) -> list[Trial]:
        """The other trials with the best value of the search; with several goals none."""
        best = self.best
        return [row for row in self.ranked if row.values == best.values and row is not best] if best else []

    @property
    def verdict(self) -> Verdict | None:
        """The verdict of the confirmation; None without one, and when a better trial came since."""
        found = self.confirmation
        judged = () if found is None else (*found.lost, *([found.luck.number] if found.luck else []))
        return found if self.ranked and self.ranked[0].number in judged else None

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

    @cached_property
    def baseline(self) -> Trial | None:
        """The baseline, or its last retry; None where the study has none."""
        found = next((row for row in self.rows if row.origin == "baseline"), None)
        for row in self.rows:
            if found is not None and row.retry_of == found.number:
                found = row
        return found

    @cached_property
    def reference(self) -> Trial | None:
        """The baseline where others can be compared with it: trained to its end, with its own values and weights."""
        row = self.baseline
        return row if row and _measured(row) and not row.schedule else None

    @property
    def target(self) -> Trial | None:
        """The trial that reached ``budget.target``; None while there is none, or no target."""
        wanted, best = self.study.budget.target, self.best
        if wanted is None or best is None or best.value is None:
            return None
        return best if self.better(best.value, wanted) >= 0 else None

    def top(self, count: int) -> list[Trial]:
        """Return the best ``count`` trials; with several goals members of the Pareto front only."""
        return (self.front if self.several else self.ranked)[:count]

    def keep(self, count: int) -> int:
        """Return how many of :attr:`ranked` keep their checkpoint: ``count``, or a Pareto front larger than that."""
        return max(count, len(self.front)) if self.several else count

    def better(self, left: float, right: float) -> float:
        """Return by how much ``left`` is better than ``right`` in the first goal; negative where it is worse."""
        return left - right if self.maximize else right - left

    def gain(self, row: Trial) -> float | None:
        """Return how much better a trial is than the baseline in the first goal (negative: worse).

        None unless both were trained to their end.
        """
        against = self.reference
        return self.better(row.values[0], against.values[0]) if against and _measured(row) else None

    @property
    def estimate(self) -> Estimate | None:
        """The chosen trial over new seeds; None before a confirmation."""
        return self.verdict.estimate(self.chosen.number) if self.verdict and self.chosen else None

    def versus(self) -> str:
        """Return how the chosen trial compares with the baseline, as a clause; empty without either.

        By the means over new seeds, where both have one.
        """
        chosen, baseline, verdict = self.chosen, self.baseline, self.verdict
        if chosen is None or baseline is None:
            return ""
        name, gain, base = (
            f"the baseline (trial {baseline.number}",
            self.gain(chosen),
            verdict and verdict.estimate(baseline.number),
        )
        if chosen is baseline and base:
            return "the baseline itself; no other is better over new seeds"
        if chosen is baseline:
            ties = f"{list_trials(self.tied)} reached the same value" if self.tied else "no other is better"
            return f"the baseline itself; {ties if len(self.ranked) > 1 else 'no other is complete'}"
        if verdict and base:
            pair = next(p for p in verdict.comparisons if (p.better, p.worse) == (chosen.number, baseline.number))
            chance = "" if pair.distinguishable else ", a difference that may be chance"
            return f"{words.value(pair.gain)} better than {name}: {words.value(base.mean)}){chance}"
        if gain is None:
            return f"no gain over {name}) can be stated, as it {PAST[baseline.ending]}"
        how = (
            f"{words.value(abs(gain))} {'better' if gain > 0 else 'worse'} than {name}: {words.value(baseline.value)})"
        )
        return (how if gain else f"the same as {name})") + (" in the search" if verdict else "")

    def says(self) -> str:
        """Return the answer as a sentence; empty while there is none."""
        ended = words.plural(len(self.ended), "trial")
        if self.several and self.front:
            are = "is" if len(self.front) == 1 else "are"
            return (
                f"{len(self.front)} of {ended} {are} Pareto-optimal: none is as good in every goal and better in one."
            )
        if self.chosen is None:
            return ""
        what = self.estimate.text if self.estimate else f"the best of {ended}"
        versus = f": {clause}" if (clause := self.versus()) else ""
        return f"Trial {self.chosen.number}, {what}{versus}."

    def ties(self) -> str:
        """Return which trials share the best value, as a sentence; empty for a best trial of its own."""
        if not self.tied or self.best is None:
            return ""
        if len(self.tied) + 1 == len(self.ranked):
            each = "Both" if len(self.ranked) == 2 else f"All {len(self.ranked)}"
            return f"{each} complete trials have the same value, {words.value(self.best.value)}."
        return f"The best value is shared by {list_trials([self.best, *self.tied])}; the first of them is listed as the best."

    def notes(self) -> list[str]:
        """Return what must be known about the answer: ties in the search, a baseline or a best trial that learned nothing."""
        said = [] if self.verdict else [self.ties()]
        if self.reference and (same := same_for_all(self.study, self.reference, self.labels)):
            what, why = same
            said.append(f"The baseline seems to {what} ({why}); a gain over it says little.")
        elif self.chosen and (same := same_for_all(self.study, self.chosen, self.labels)):
            what, why = same
            said.append(f"Trial {self.chosen.number} seems to {what} ({why}).")
        return [sentence for sentence in (*said, self.started_from()) if sentence]

    def started_from(self) -> str:
        """Return which trials earlier studies gave, and what these came to, as a sentence; empty without any."""
        taken = [row for row in self.rows if row.origin.startswith(FROM)]
        listed = words.join([f"{row.number} ({row.origin.removeprefix(FROM)})" for row in taken]) if taken else ""
        if not taken or self.several:
            return listed and f"Taken from earlier studies: {listed}."
        ahead = {mine: next((row for row in self.ranked if (row in taken) is mine), None) for mine in (True, False)}
        best, other = (f"trial {row.number}, {words.value(row.value)}" if row else "none yet" for row in ahead.values())
        return (
            f"Taken from earlier studies: {listed}; best complete trial among them: {best}; among the others: {other}."
        )

    def record(self, *, status: str = "done", reason: str = "") -> dict[str, Any]:
        """Return what a study ended with, as trackers record it; after a confirmation values are means over new seeds."""
        row, against = self.chosen, self.reference
        value, baseline = (row.value if row else None), (against.value if against else None)
        if self.verdict and self.estimate:
            base = self.verdict.estimate(self.baseline.number) if self.baseline else None
            value, baseline = self.estimate.mean, (base.mean if base else None)
        result = "" if value is None else f"{self.goal.metric} {words.value(value)}."
        found: dict[str, Any] = {
            "status": status,
            "reason": reason,
            "best": row.number if row else None,
            "value": value,
            "baseline": baseline,
            "gain": None if value is None or baseline is None else self.better(value, baseline),
            "searched": self.best.value if self.best else None,
            "trials": {str(end): sum(each.ending is end for each in self.rows) for end in Ending if end.counts},
            "says": " ".join(filter(None, [result, self.says(), *self.notes()])),
        }
        if self.verdict:
            found |= {"verdict": self.verdict.conclusion(), "confirm": self.verdict.to_json()}
        return found | ({"test": asdict(self.test)} if self.test else {})

    @cached_property
    def _signs(self) -> list[int]:
        return [-1 if goal.direction == "maximize" else 1 for goal in self.study.objective.goals]

    def joined_by(self, rows: Sequence[Trial]) -> Answer:
        """Return the answer with more trials; those already in it are not ordered again."""
        found, ordered = replace(self, rows=[*self.rows, *rows]), self._ordered.copy()
        for row in filter(_measured, rows):
            insort(ordered, row, key=self._key)
        found.__dict__["_ordered"] = ordered
        return found

    @cached_property
    def _ordered(self) -> list[Trial]:
        return sorted(filter(_measured, self.rows), key=self._key)

    def _key(self, row: Trial) -> tuple[tuple[float, ...], int]:
        return self._costs(row), row.number

    def _costs(self, row: Trial) -> tuple[float, ...]:
        """The values with lower ones better."""
        return tuple(sign * value for sign, value in zip(self._signs, row.values, strict=True))


def _measured(row: Trial) -> bool:
    """Whether a trial was trained to its end and has finite values."""
    return row.ending.ranks and bool(row.values) and all(map(math.isfinite, row.values))


def list_trials(rows: Sequence[Trial], most: int = 6) -> str:
    """Return the trials by number, in words."""
    shown = [str(row.number) for row in rows[:most]]
    more = [f"{len(rows) - most} more"] if len(rows) > most else []
    return f"trial{'s' if len(rows) > 1 else ''} {words.join([*shown, *more])}"


def read_test(place: Place) -> FinalTest | None:
    """Return what is recorded of the one evaluation on the test split, or None while there was none. Raises DamagedFile."""
    advice = (
        "it records that the test split was used: put it back from a copy, or remove it to evaluate on that split again"
    )
    found: FinalTest | None = read_json(place.test_json, FinalTest, advice)
    return found


def write_test(place: Place, found: FinalTest) -> None:
    """Record the evaluation on the test split, whole or not at all."""
    write_whole(place.test_json, json.dumps(asdict(found), indent=2) + "\n")
