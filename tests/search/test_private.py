"""The private names of Optuna that the search depends on exist in the installed version."""

from __future__ import annotations

import optuna
import pytest

from sweepkit.search.private import NAMES

INSTANCES = {
    "FrozenTrial": lambda: optuna.trial.create_trial(value=1.0),
    "JournalStorage": lambda: optuna.storages.JournalStorage(InMemoryBackend()),
    "Trial": lambda: optuna.create_study().ask(),
}


class InMemoryBackend(optuna.storages.journal.BaseJournalBackend):
    """A journal without a file."""

    def read_logs(self, log_number_from: int) -> list[dict[str, object]]:
        """Return nothing."""
        return []

    def append_logs(self, logs: list[dict[str, object]]) -> None:
        """Forget the records."""


@pytest.mark.parametrize("name", NAMES)
def test_optuna_still_has_the_private_name(name: str) -> None:
    there = hasattr(INSTANCES[name](), NAMES[name])
    assert there, f"optuna {optuna.__version__}: {name} has no {NAMES[name]} any more; see sweepkit.search.private"
