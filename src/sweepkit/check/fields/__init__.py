"""What installed libraries and a user's task accept, read from their sources with ``ast``; imports none of them.

``modules`` and ``classes`` read; ``arguments``, ``models`` and ``tasks`` say where to look. Results are cached until a file
that was read changes.
"""

from __future__ import annotations

from sweepkit.check.fields.classes import Field
from sweepkit.check.fields.modules import UNKNOWN

__all__ = ["UNKNOWN", "Field"]
