"""What installed libraries and a user's task accept, found by importing them in a child process and remembered.

``describe`` turns classes into plain facts, ``child`` does so in a process of its own, ``facts`` caches the answers;
``arguments``, ``models`` and ``tasks`` say what is asked.
"""

from __future__ import annotations

from sweepkit.check.fields.describe import UNKNOWN, Field

__all__ = ["UNKNOWN", "Field"]
