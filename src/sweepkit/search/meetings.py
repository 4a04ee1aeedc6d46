"""What a population decided, meeting by meeting, in the Optuna study's attributes. Knows no rule by which it is decided.

A meeting is one record, so that it was decided for all members or for none, wherever a driver is killed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from sweepkit.search.records import Records
from sweepkit.trial.trial import Turn

MEETING = "meeting:"
"""Study attribute of one meeting, followed by the number of the evaluation at which it was held."""


class Meetings:
    """The meetings of one study's trials."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def all(self) -> dict[int, dict[int, Turn]]:
        """Return evaluation → member → what it went on with, oldest meeting first."""
        found = {
            int(key.removeprefix(MEETING)): {int(number): Turn(**turn) for number, turn in turns.items()}
            for key, turns in self._records.remembered().items()
            if key.startswith(MEETING)
        }
        return dict(sorted(found.items()))

    def note(self, evaluation: int, turns: Mapping[int, Turn]) -> None:
        """Store what a meeting decided, in one record."""
        stored = {str(number): asdict(turn) for number, turn in turns.items()}
        self._records.remember(**{f"{MEETING}{evaluation}": stored})

    def schedule(self, number: int) -> tuple[Turn, ...]:
        """Return a member's turns, oldest first, and see that they stand with its trial."""
        turns = tuple(turns[number] for turns in self.all().values() if number in turns)
        if turns:
            self._records.note(self._records.get(number), schedule=[asdict(turn) for turn in turns])
        return turns
