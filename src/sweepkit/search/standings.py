"""What storage holds of a study's trials: all of them, or one. Knows no sampler and asks for nothing."""

from __future__ import annotations

from optuna.trial import FrozenTrial

from sweepkit.search.ledger import Ledger, row_of
from sweepkit.search.records import Records
from sweepkit.trial.trial import Trial


class Standings:
    """The reading half of a search; whoever extends it sets the records and the ledger that follows them."""

    _records: Records
    _ledger: Ledger

    def trials(self) -> list[Trial]:
        """Return all trials by number."""
        return [self._ledger.rows.get(trial.number) or row_of(trial) for trial in self._read()]

    def row(self, number: int) -> Trial:
        """Return one trial."""
        return row_of(self._records.get(number))

    def _read(self) -> list[FrozenTrial]:
        with self._ledger.turn:
            trials = self._records.all()
            self._ledger.read(trials)
        return trials
