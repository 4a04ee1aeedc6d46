"""A study's trials as a population: where they meet, who waits there, and what each trains with next.

In a study without a scheduler nobody ever meets. Knows no process and no rule by which a scheduler decides.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sweepkit.backends import Member, Scheduler
from sweepkit.backends.checkpoints import Shelf
from sweepkit.search.search import Search
from sweepkit.study.rule import ValueRule
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Scheduled
from sweepkit.trial.trial import Turn


class Population:
    """The members that train side by side; a member that waits has written its checkpoint and left its slot."""

    def __init__(self, study: StudyData, search: Search, shelf: Shelf, scheduler: Scheduler | None) -> None:
        self._search = search
        self._shelf = shelf
        self._scheduler = scheduler
        self._rule = ValueRule(study.objective)
        self._names = list(study.space)
        self._every = int(study.pruner.options.get("perturbation_interval", 1))
        self._first = max(self._every, int(study.pruner.options.get("burn_in_period", 0)))
        self._known = 0
        """Meetings the scheduler has seen."""
        self.waiting: dict[int, Evaluated] = {}
        """Member → the evaluation at which it waits."""

    def meets(self, evaluation: int) -> bool:
        """Whether the members meet at this evaluation (from 1)."""
        later = evaluation - self._first
        return self._scheduler is not None and later >= 0 and later % self._every == 0

    def holds(self, number: int, evaluations: Sequence[Evaluated]) -> bool:
        """Whether a member that could go on has to wait for a meeting; it then does."""
        last = evaluations[-1] if evaluations else None
        if last is None or not self.meets(last.number) or self._shelf.resumable(number)[1] != last.step:
            return False
        if number in self._search.meetings.all().get(last.number, {}):
            return False
        self.waiting[number] = last
        return True

    def schedule(self, number: int) -> Iterator[Scheduled]:
        """Yield what the meetings so far decided for a member, oldest first, as it is told."""
        turns = () if self._scheduler is None else self._search.meetings.schedule(number)
        for turn in turns:
            yield Scheduled(
                trial=number,
                at=time.time(),
                evaluation=turn.evaluation,
                step=turn.step,
                hyperparameters=turn.hyperparameters,
                donor=turn.donor,
            )

    def all_there(self, members: Collection[int]) -> bool:
        """Whether nobody of these, who all are to be trained to their end, is to be waited for any more."""
        return bool(members) and self.waiting.keys() >= set(members)

    def meet(self) -> list[int]:
        """Hold the meeting of the members that wait, all there are; return those who then go on.

        Who came late (a failed member that is tried again) catches up without a meeting.
        """
        here = min(event.number for event in self.waiting.values())
        going = {number: event for number, event in sorted(self.waiting.items()) if event.number == here}
        if len(going) == len(self.waiting) and here not in self._search.meetings.all():
            self._decide(here, going)
        for number in going:
            del self.waiting[number]
        return list(going)

    def _decide(self, here: int, going: Mapping[int, Evaluated]) -> None:
        """Ask the scheduler, let members have what they go on from, and then record it."""
        assert self._scheduler is not None
        held = self._search.meetings.all()
        for evaluation, turns in list(held.items())[self._known :]:  # an earlier driver's
            members = {number: self._member(number, turn.value, held, evaluation) for number, turn in turns.items()}
            self._scheduler.decide(evaluation, members)
        values = {number: event.values[self._rule.deciding] for number, event in going.items()}
        members = {number: self._member(number, value, held, here) for number, value in values.items()}
        choices = self._scheduler.decide(here, members)
        for number, choice in choices.items():
            if choice.donor is not None:
                self._shelf.adopt(number, choice.donor)
        decided = {
            number: Turn(
                evaluation=here,
                step=going[number].step,
                value=values[number],
                hyperparameters=choice.hyperparameters,
                donor=choice.donor,
            )
            for number, choice in choices.items()
        }
        self._search.meetings.note(here, decided)
        self._known = len(held) + 1

    def _member(self, number: int, value: float, held: Mapping[int, Mapping[int, Turn]], here: int) -> Member:
        """Return a member as it came to the meeting ``here`` with a value of the deciding goal."""
        given: dict[str, Any] = dict(self._search.row(number).params)
        for evaluation, turns in held.items():
            if number in turns and evaluation < here:
                given |= turns[number].hyperparameters
        return Member(self._rule.key_of(value), {name: given[name] for name in self._names if name in given})
