"""The private names of Optuna that sweepkit depends on, all of them; a test holds them to the installed version.

Optuna's storage interface takes trial ids, which its public API does not give; writing several records to a journal at once
needs the file behind a JournalStorage; and a trial suggests by its methods' arguments alone, not by a distribution.
"""

from __future__ import annotations

from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial

NAMES = {"FrozenTrial": "_trial_id", "JournalStorage": "_backend", "Trial": "_suggest"}
"""Optuna's class → private attribute of its instances."""


def trial_id(trial: FrozenTrial) -> int:
    """Return the trial's id in its storage, which counts over all studies there."""
    return trial._trial_id


def suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    """Return what is suggested of a distribution."""
    return trial._suggest(name, distribution)


def journal_backend(storage: BaseStorage) -> Any:
    """Return what a JournalStorage writes its records to; None for any other storage."""
    return getattr(storage, NAMES["JournalStorage"], None)
