"""What installed libraries and a user's task accept, read from their sources with ``ast``; imports none of them.

``modules`` and ``classes`` read; ``training``, ``models``, ``searchers`` and ``tasks`` say where to look. Results are
kept until a file that was read changes. Knows no rules: what is wrong with a study is ``check``'s.
"""

from __future__ import annotations

from sweepkit.check.fields.classes import Field
from sweepkit.check.fields.modules import UNKNOWN

__all__ = ["UNKNOWN", "Field"]
