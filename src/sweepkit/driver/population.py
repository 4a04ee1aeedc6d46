"""Population-based training: at which evaluations the members meet, who waits, and what each continues with.

Without a scheduler there are no meetings.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sweepkit.backends import Scheduler
from sweepkit.backends.checkpoints import Checkpoints
from sweepkit.search.search import Search
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Scheduled
from sweepkit.trial.trial import Turn


class Population:
    """The members of one study. A waiting member has written its checkpoint and freed its slot."""

    def __init__(self, study: StudyData, search: Search, checkpoints: Checkpoints, scheduler: Scheduler | None) -> None:
        self._search = search
        self._checkpoints = checkpoints
        self._scheduler = scheduler
        self._objective = study.objective
        self._names = list(study.space)
        self._every = int(study.pruner.options.get("perturbation_interval", 1))
        self._first = max(self._every, int(study.pruner.options.get("burn_in_period", 0)))
        self._decided = 0
        """Meetings the scheduler has decided or replayed."""
        self.waiting: dict[int, Evaluated] = {}
        """Member → the evaluation at which it waits."""

    def meets(self, evaluation: int) -> bool:
        """Whether the members meet at this evaluation (from 1)."""
        later = evaluation - self._first
        return self._scheduler is not None and later >= 0 and later % self._every == 0

    def holds(self, number: int, evaluations: Sequence[Evaluated]) -> bool:
        """Whether a member has to wait for a meeting, as its checkpoint is of an evaluation at which none was held yet.

        If so, it is waiting from now on.
        """
        last = evaluations[-1] if evaluations else None
        if last is None or not self.meets(last.number) or self._checkpoints.resumable(number)[1] != last.step:
            return False
        if number in self._search.records.meetings().get(last.number, {}):
            return False
        self.waiting[number] = last
        return True

    def schedule(self, number: int) -> Iterator[Scheduled]:
        """Yield what the meetings so far decided for a member, oldest first."""
        turns = () if self._scheduler is None else self._search.records.schedule(number)
        for turn in turns:
            yield Scheduled(
                trial=number,
                at=time.time(),
                evaluation=turn.evaluation,
                step=turn.step,
                hyperparameters=turn.hyperparameters,
                donor=turn.donor,
            )

    def complete(self, members: Collection[int]) -> bool:
        """Whether every live member is waiting at the meeting."""
        return bool(members) and self.waiting.keys() >= set(members)

    def meet(self) -> list[int]:
        """Hold the earliest meeting that members wait for; return the members that continue.

        A member that arrives late (one that failed and was retried) catches up without a meeting.
        """
        evaluation = min(event.number for event in self.waiting.values())
        going = {number: event for number, event in sorted(self.waiting.items()) if event.number == evaluation}
        if len(going) == len(self.waiting) and evaluation not in self._search.records.meetings():
            self._decide(evaluation, going)
        for number in going:
            del self.waiting[number]
        return list(going)

    def _decide(self, evaluation: int, going: Mapping[int, Evaluated]) -> None:
        """Ask the scheduler, hand over donors' checkpoints, then record the decision.

        A scheduler that is new, in a run that resumes, first replays the meetings of earlier drivers.
        """
        assert self._scheduler is not None
        held = self._search.records.meetings()
        for turns in list(held.values())[self._decided :]:
            self._scheduler.decide({number: self._arriving(number, turn, held) for number, turn in turns.items()})
        members = {}
        for number, event in going.items():
            value = event.values[self._objective.deciding]
            turn = Turn(evaluation=evaluation, step=event.step, value=value, hyperparameters={})
            members[number] = self._arriving(number, turn, held)
        decided = self._scheduler.decide(members)
        for number, turn in decided.items():
            if turn.donor is not None:
                self._checkpoints.adopt(number, turn.donor)
        self._search.records.note_meeting(evaluation, decided)
        self._decided = len(held) + 1

    def _arriving(self, number: int, turn: Turn, held: Mapping[int, Mapping[int, Turn]]) -> Turn:
        """Return a member's turn before it was decided, with the hyperparameters it trained with until then."""
        trained: dict[str, Any] = dict(self._search.row(number).params)
        for earlier, turns in held.items():
            if number in turns and earlier < turn.evaluation:
                trained |= turns[number].hyperparameters
        values = {name: trained[name] for name in self._names if name in trained}
        return replace(turn, hyperparameters=values, donor=None)
