"""Which checkpoints stay on disk: the best K trials' and what a running trial needs to go on. Knows no results."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from sweepkit.paths import Place


class Shelf:
    """The checkpoints of one study."""

    def __init__(self, place: Place, *, keep: int, limit_bytes: float | None) -> None:
        self._place = place
        self._keep = keep
        self._limit = limit_bytes

    def recover(self, number: int) -> None:
        """Bring a trial's folder into a whole state after its process died in the middle of writing."""
        folder = self._place.trial(number)
        best, old = folder / "best", folder / "best.old"
        if old.exists() and not best.exists():
            os.rename(old, best)
        for rest in (old, folder / "best.new", folder / "spec.new"):
            remove(rest)

    def ended(self, number: int, *, keeps_best: bool) -> None:
        """A trial ended for good: it needs no resumable checkpoint any more, and its best only if it may be ranked."""
        folder = self._place.trial(number)
        remove(folder / "last")
        if not keeps_best:
            remove(folder / "best")

    def surplus(self, ranked: Sequence[int]) -> list[int]:
        """Return the ranked trials (best first) whose best checkpoint should go.

        Those are the ones beyond K, then, worst first, what is over the disk limit; never the study's best.
        """
        holders = [number for number in ranked if os.path.lexists(self._place.trial(number) / "best")]
        going = holders[self._keep :]
        if self._limit is not None:
            kept = holders[: self._keep]
            excess = self.used() - sum(self.size(number) for number in going) - self._limit
            while excess > 0 and len(kept) > 1:
                excess -= self.size(kept[-1])
                going.append(kept.pop())
        return going

    def size(self, number: int) -> int:
        """Bytes of a trial's best checkpoint."""
        return _bytes([self._place.trial(number) / "best"])

    def used(self) -> int:
        """Bytes of all checkpoints of the study."""
        trials = self._place.trials
        return (
            _bytes(trial / part for trial in trials.iterdir() for part in ("best", "best.new", "last"))
            if trials.exists()
            else 0
        )


def remove(path: Path) -> None:
    """Remove a file, folder or link (and not what the link points to), if it is there."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def _bytes(folders: Iterable[Path]) -> int:
    total = 0
    for folder in folders:
        for parent, _, names in os.walk(folder.resolve() if folder.is_symlink() else folder):
            for name in names:
                try:
                    total += (Path(parent) / name).stat().st_size
                except OSError:
                    continue  # removed meanwhile
    return total
