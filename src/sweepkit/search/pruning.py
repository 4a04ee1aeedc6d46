"""Optuna's pruners as a strategy: a trial is stopped for good, or goes on."""

from __future__ import annotations

from collections.abc import Callable

from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from sweepkit.search.read_only import ReadOnlyStorage
from sweepkit.search.records import Records
from sweepkit.search.samplers import quiet_optuna
from sweepkit.search.strategy import Ruling, Seen, Strategy
from sweepkit.trial.events import Evaluated


class Pruning(Strategy):
    """Asks a pruner, made anew for each evaluation; ``view`` is the storage as it may see it.

    ``pruner`` makes it for trials of so many evaluations, None while that is unknown.
    """

    def __init__(
        self,
        records: Records,
        view: Callable[[FrozenTrial], ReadOnlyStorage],
        pruner: Callable[[int | None], BasePruner],
    ) -> None:
        self._records = records
        self._view = view
        self._pruner = pruner

    def report(self, event: Evaluated, seen: Seen) -> Ruling:
        """Return the pruner's answer; what it writes on the trial is attached later, as a pruner may count on it."""
        view = self._view(self._records.get(event.trial))
        with quiet_optuna():
            prune = self._pruner(seen.evaluations).prune(self._records.study(view), view.own)
        return Ruling("prune" if prune else "continue", written=view.written)
