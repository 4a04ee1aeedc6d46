"""One thing that is not as it should be in a study. Knows no check."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is not as it should be."""

    check: str
    """Which check said it."""
    says: str
    """What was found, in one sentence."""
    do: str
    """What to do about it."""
    short: str
    """Both in a few words, for a terminal."""
