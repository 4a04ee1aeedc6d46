"""What a study ends with: the best confirmed over new seeds, a verdict in words, the winner's export.

Knows no terminal and starts no process; whoever runs a study hands in what ran.
"""

from sweepkit.finish.confirmation import SUFFIX, Confirmation, answer, chosen, confirmed, tested, winners
from sweepkit.finish.export import export
from sweepkit.finish.verdict import Candidate, Verdict, judge

__all__ = [
    "SUFFIX",
    "Candidate",
    "Confirmation",
    "Verdict",
    "answer",
    "chosen",
    "confirmed",
    "export",
    "judge",
    "tested",
    "winners",
]
