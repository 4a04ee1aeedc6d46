"""Every error that sweepkit raises on purpose, as one tree.

::

    SweepError                      exit code
    ├── InputError                  2   the study, an option or an argument is not valid
    │   ├── StudyFileError          2   a study (file or object) breaks rules; has every Problem
    │   ├── StudyChanged            2   the study differs from the one its trials were run with
    │   ├── StudyLocked             2   another driver runs this study
    │   ├── StudyNotFound           2   no such study, trial or checkpoint
    │   └── MissingExtra            2   an optional dependency is not installed
    ├── StudyFailed                 1   the study had to stop (warm process died, same failure in a row, disk full)
    │   └── DamagedFile             1   a file that the study cannot do without is not what was written
    └── TrialFailed                 –   one trial failed; the study continues

    TrialInterrupted (BaseException)    a trial is to stop; not an error, so ``except Exception`` cannot swallow it
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

FOREIGN = BaseException
"""What other people's code may raise; ``sys.exit`` in a task ends the trial, not the process that has to report it."""

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
"""An OSError's ``errno`` when a disk or a quota is full."""
NO_SPACE = "no space left on the disk; free some space and run the same command"


@dataclass(frozen=True)
class Problem:
    """One broken rule in a study.

    ``path`` is the dotted key (``space.learning_rate``), ``message`` the rule, what was found and what to do. ``file``
    and ``line`` (from 1) are set if the study came from a file.
    """

    path: str
    message: str
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else (self.file or "")
        named = not self.path or where == f"--set {self.path}"
        return f"{where}: {self.message}" if named else f"{where} {self.path}: {self.message}".strip()


class SweepError(Exception):
    """Root of all errors raised on purpose."""

    exit_code = 1


class InputError(SweepError):
    """The study, an option or an argument is not valid."""

    exit_code = 2


class StudyFileError(InputError):
    """A study breaks one or more rules; ``problems`` has all of them, in file order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class StudyChanged(InputError):
    """The study differs from the one its trials were run with in a key that may not change."""


class StudyLocked(InputError):
    """Another driver holds the study's lock."""


class StudyNotFound(InputError):
    """The study, trial or checkpoint does not exist."""


class MissingExtra(InputError):
    """A feature needs an optional dependency that is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an extra that is not installed: pip install 'sweepkit[{extra}]'")


class StudyFailed(SweepError):
    """The study had to stop; finished trials are kept, and the same command resumes it."""


class DamagedFile(StudyFailed):
    """A file of a study is not what was written there; ``fault`` says how, ``advice`` what to do."""

    def __init__(self, path: Path | str, fault: str, advice: str) -> None:
        super().__init__(f"{path} {fault}; {advice}")


class TrialFailed(SweepError):
    """One trial failed; the message becomes its cause."""


class TrialInterrupted(BaseException):
    """Raised inside a trial that is to stop; ``answer`` is the driver's (``prune`` or ``stop``)."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        super().__init__(answer)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean X?"`` for the closest known name; empty if none is close."""
    found = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else ""
