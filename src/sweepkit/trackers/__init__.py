"""Trackers mirror a study somewhere people look; this is what each can do, the one that does nothing, and the courier.

A tracker reads what it delivers from the trials' own logs, so it may come late, fail and be asked again.
Knows no MLflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from sweepkit.trackers.courier import Courier

__all__ = ["Courier", "Silent", "Tracker"]


class Tracker(Protocol):
    """Where a study is recorded. Every method may raise and may be called again: none does anything twice."""

    def open(self) -> None:
        """Find or create the study's place in the store."""

    def sync(self) -> None:
        """Deliver what the trials' logs and endings say and was not delivered yet."""

    def keep(self, number: int) -> None:
        """Make a trial's ``best/`` a model of the store; without ``best/`` there is nothing to do."""

    def drop(self, number: int) -> None:
        """Take a trial's model out of the store, with its files and ``best/``."""

    def close(self, answer: Mapping[str, Any]) -> None:
        """End the study's own run with its answer: ``best`` (trial number), ``value``, ``baseline``, ``status``, …"""

    def behind(self) -> int:
        """Return how many trials have something undelivered; asks the disk only."""


class Silent:
    """The tracker that records nothing."""

    def open(self) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Do nothing."""

    def keep(self, number: int) -> None:
        """Do nothing: ``best/`` stays where it is."""

    def drop(self, number: int) -> None:
        """Do nothing: whoever keeps the checkpoints removes ``best/``."""

    def close(self, answer: Mapping[str, Any]) -> None:
        """Do nothing."""

    def behind(self) -> int:
        """Return 0."""
        return 0
