"""The static check of a study: every rule that holds without running anything, all broken ones reported at once."""

from sweepkit.check.rules import Checked, check, examine, find_problems, wrong_values
from sweepkit.check.rules.names import Consumers, consumers_of, convert_numbers, known_values

__all__ = [
    "Checked",
    "Consumers",
    "check",
    "consumers_of",
    "convert_numbers",
    "examine",
    "find_problems",
    "known_values",
    "wrong_values",
]
