"""Health checks in words: what a study's trials say about the study itself, each with what to do about it.

Pure functions over evidence; knows no page and no terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sweepkit.report.evidence import Evidence
from sweepkit.report.health.effort import search_still_improving, training_still_improving
from sweepkit.report.health.finding import Finding
from sweepkit.report.health.reach import at_an_edge, no_effect
from sweepkit.report.health.trials import duplicates, went_wrong
from sweepkit.report.health.winner import no_gain, pruned_winner, seed_noise

__all__ = ["CHECKS", "Finding", "findings"]

CHECKS: tuple[Callable[[Evidence], Iterator[Finding]], ...] = (
    went_wrong,
    no_gain,
    seed_noise,
    pruned_winner,
    at_an_edge,
    training_still_improving,
    search_still_improving,
    no_effect,
    duplicates,
)
"""All checks, the most pressing first; a new one is a function and a line here."""


SLOW = frozenset({no_effect})
"""Checks that import what takes seconds; a terminal leaves them out."""


def findings(evidence: Evidence, *, quick: bool = False) -> list[Finding]:
    """Return all that was found, the most pressing first; empty for a study in good health."""
    return [finding for check in CHECKS if not (quick and check in SLOW) for finding in check(evidence)]
