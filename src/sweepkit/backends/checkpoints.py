"""Which checkpoints stay on disk: the best K trials' and what a running trial resumes from.

Room is made before a trial writes, so that the disk limit holds at every moment.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from sweepkit.study.damage import find_damage, note, put_aside, settle
from sweepkit.study.errors import StudyFailed
from sweepkit.study.files import link_or_copy, make_own, remove
from sweepkit.study.paths import BEST, BEST_OLD, CHECKPOINTS, LAST, LAST_NEW, MODEL, TORN, Place

RESUMABLE_PER_MODEL = 3.0
"""A resumable checkpoint is the model and, with Adam, two numbers more per weight."""


class Checkpoints:
    """The checkpoints of one study.

    ``limit_bytes`` is for all of them, ``paused_bytes`` for the resumable ones of paused trials. ``model_bytes`` is the size of
    a model, where it is known before the first one is written. Trials in ``pinned`` have a best checkpoint that the tracker
    needs too: it may leave the trial's folder, not the disk.
    """

    def __init__(
        self,
        place: Place,
        *,
        limit_bytes: float | None,
        paused_bytes: float | None = None,
        model_bytes: float = 0.0,
        pinned: Iterable[int] = (),
    ) -> None:
        self._place = place
        self._limit = limit_bytes
        self._paused_limit = paused_bytes
        self._sizes = {"best": model_bytes, "last": RESUMABLE_PER_MODEL * model_bytes}
        self._coming: dict[int, dict[str, float]] = {}
        self._pinned = frozenset(pinned)
        folders = place.trials.iterdir() if place.trials.exists() else ()
        self._holding = {
            int(folder.name)
            for folder in folders
            if folder.name.isdigit() and any(os.path.lexists(folder / p) for p in CHECKPOINTS)
        }

    def folder(self, number: int) -> Path:
        """Return a trial's folder. Raises StudyFailed where a link leads out of the study's folder."""
        folder = self._place.trial(number)
        if self._place.leads_out(number):
            raise StudyFailed(
                f"{folder} is a link, or lies behind one; put the folder itself there, or remove the link"
            )
        return folder

    def recover(self, number: int) -> None:
        """Make a trial's folder consistent after its process died in the middle of writing."""
        folder = self.folder(number)
        best, old = folder / BEST, folder / BEST_OLD
        if old.exists() and not best.exists():
            os.rename(old, best)
        for part in (old, *folder.glob("*.new")):
            remove(part)

    def resumable(self, number: int) -> tuple[Path | None, int]:
        """Return the checkpoint that a trial can resume from and its step; (None, 0) where there is none.

        What lies in ``last/`` is complete, whether or not its trial lived to report it. One that is not as it was written is
        set aside, and a note says so.
        """
        last = self._place.trial(number) / LAST
        steps = {path: path.name.rpartition("-")[2] for path in last.glob("*-*")}
        found = sorted(((int(step), path) for path, step in steps.items() if step.isdigit()), reverse=True)
        whole: tuple[Path | None, int] = (None, 0)
        torn: list[Path] = []
        for step, path in found:
            if not (name := find_damage(path)):
                whole = path, step
                break
            torn.append(path / name)
            put_aside(path)
        for each in torn:
            goes_on = f"resumes from step {whole[1]}" if whole[0] else "starts over"
            note(f"{each} is not as it was written (kept in {each.parent.name}{TORN}); trial {number} {goes_on}")
        return whole

    def forget(self, number: int) -> None:
        """Remove what a trial could resume from."""
        remove(self.folder(number) / LAST)

    def adopt(self, number: int, donor: int) -> None:
        """Replace a trial's resumable checkpoint by the donor's, stored once for both. Raises StudyFailed without one.

        Calling it again changes nothing, or completes a call that was cut off.
        """
        checkpoint, _ = self.resumable(donor)
        if checkpoint is None:
            raise StudyFailed(
                f"trial {donor} has no checkpoint that trial {number} could continue from; run the same command"
            )
        last = self._place.trial(number) / LAST
        found = last / f"from-{donor}-{checkpoint.name}"
        if not found.exists():
            new = last.with_name(LAST_NEW) / found.name
            remove(new)
            shutil.copytree(checkpoint, new, copy_function=link_or_copy)
            settle(new)
            make_own(last)
            os.rename(new, found)
        for other in last.iterdir():
            if other != found:
                remove(other)

    def wrote(self, number: int, role: str, path: Path) -> None:
        """Note that a checkpoint (``best`` or ``last``) is complete on disk."""
        self._holding.add(number)
        self._sizes[role] = float(_bytes(path))
        self._coming.get(number, {}).pop(role, None)

    def end(self, number: int, *, keeps_best: bool) -> None:
        """Remove the resumable checkpoint of a trial that ended for good, and its best one unless that is kept."""
        folder = self.folder(number)
        self._coming.pop(number, None)
        self.recover(number)
        remove(folder / LAST)
        if not keeps_best:
            best = folder / BEST
            for link in (best, folder / MODEL):  # earlier versions made best/ itself the link
                if link.is_symlink() and number not in self._pinned and self._place.holds_model(link.resolve()):
                    remove(link.resolve())
                remove(link)
            self._holding.discard(number)

    def surplus(self, ranked: Sequence[int], keep: int) -> list[int]:
        """Return the ranked trials (best first) whose best checkpoint should go.

        First those beyond the first ``keep``, then, worst first, what exceeds the disk limit; never the study's best.
        """
        return self._going(ranked, keep)[0]

    def before_writing(self, number: int, ranked: Sequence[int], keep: int) -> tuple[list[int], bool]:
        """Return what has to go before a running trial writes, and whether its resumable checkpoint then has room.

        Where nothing that may go makes room for both, only the best has it; that one is always written.
        """
        for parts in (("best", "last"), ("best",)):
            self._coming[number] = {part: self._sizes[part] for part in parts}
            going, fits = self._going(ranked, keep)
            if fits:
                break
        self._holding.add(number)
        return going, fits and "last" in self._coming[number]

    def pause(self, number: int) -> None:
        """Note that a trial writes nothing more until it goes on."""
        self._coming.pop(number, None)

    def find_limit(self, number: int, paused: Sequence[int]) -> str:
        """Return the limit that does not hold once this trial has written and these are paused, by its key; else empty."""
        self._coming[number] = dict(self._sizes)
        self._holding.add(number)
        held = {each: float(_bytes(self._place.trial(each) / LAST)) for each in paused}
        if number in held:
            held[number] = max(held[number], self._sizes["last"])
        if self._paused_limit is not None and sum(held.values()) > self._paused_limit:
            return "checkpoints.paused_gb"
        return "budget.disk_gb" if self._limit is not None and self._used() > self._limit else ""

    def _going(self, ranked: Sequence[int], keep: int) -> tuple[list[int], bool]:
        held = [number for number in ranked if number in self._holding]
        holders = [number for number in held if os.path.lexists(self._place.trial(number) / BEST)]
        kept, going = holders[:keep], holders[keep:]
        if self._limit is None:
            return going, True
        excess = self._used() - sum(_bytes(self._place.trial(number) / BEST) for number in going) - self._limit
        while excess > 0 and len(kept) > 1:
            going.append(kept.pop())
            excess -= _bytes(self._place.trial(going[-1]) / BEST)
        return going, excess <= 0

    def _used(self) -> float:
        """Return the bytes on disk, and those that running trials are about to write."""
        used = sum(_bytes(self._place.trial(number) / part) for number in self._holding for part in CHECKPOINTS)
        return used + sum(sum(parts.values()) for parts in self._coming.values())


def _bytes(folder: Path) -> int:
    """Return the bytes of a folder's files, also through a link; what is removed meanwhile does not count."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(parent) / name).stat().st_size
    return total
