"""A trial's log, ``events.jsonl``: the only code that writes and reads it.

One event per line, in order. Resuming, the tracker and the report start from it, so it holds nothing twice: a trial that
resumes from a checkpoint repeats steps that an earlier attempt has logged.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from sweepkit.study.damage import fault_of, note
from sweepkit.study.errors import DamagedFile, StudyFailed
from sweepkit.study.files import open_own
from sweepkit.study.paths import EVENTS
from sweepkit.trial.events import Checkpointed, Evaluated, Event, Finished, Logged, Scheduled, Started, from_json
from sweepkit.trial.trial import Ending, Reason

E = TypeVar("E", bound=Event)
NO_EVENT = (ValueError, KeyError, TypeError)
"""What :func:`from_json` raises."""
_UNKNOWN = "what it says of the trial's course is not known"


class TrialLog:
    """The log in a trial's folder; the first :meth:`append` creates it.

    Only the driver writes. Reading is safe meanwhile: incomplete lines are ignored.
    """

    def __init__(self, folder: Path) -> None:
        self._file: int | None = None
        self.path = folder / EVENTS
        self._events: list[Event] = []
        self._offset = 0
        self._steps: dict[int, set[str]] = {}
        self._evaluated: set[int] = set()

    def append(self, event: Event) -> bool:
        """Write an event and return whether any of it was new; metrics and evaluations already logged are left out.

        Removes an incomplete last line of a killed writer first. Raises OSError, leaving no incomplete line, where the
        disk is full. The file stays open from an attempt's first event to its Finished.
        """
        if self._file is None:
            self._open()
        fresh = self._new_part(event)
        if fresh is None:
            return False
        assert self._file is not None
        line = (fresh.to_json() + "\n").encode()
        end = os.fstat(self._file).st_size
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError:
            os.ftruncate(self._file, end)
            raise
        if end == self._offset:  # no other writer: no need to read the line back
            self._add(fresh)
            self._offset = end + len(line)
        else:
            self.refresh()
        if isinstance(event, Finished):
            self.close()
        return True

    def close(self) -> None:
        """Close the file; the next :meth:`append` reopens it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> TrialLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def events(self, offset: int = 0) -> tuple[list[Event], int]:
        """Return the events from a byte offset on, and the offset after the last complete line.

        An offset that is not the beginning of a line belongs to an older log and counts as 0. A damaged log has no events; a
        note names it.
        """
        try:
            return self._parsed(offset)
        except DamagedFile as error:
            note(str(error))
            return [], self.size

    @property
    def size(self) -> int:
        """Size in bytes, an incomplete last line included; 0 without a file."""
        try:
            return self.path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return 0

    def refresh(self) -> Sequence[Event]:
        """Return all events; reads only what was added since the last call."""
        if self.size < self._offset:
            self._events, self._offset, self._steps, self._evaluated = [], 0, {}, set()
        more, self._offset = self.events(self._offset)
        for event in more:
            self._add(event)
        return self._events

    def first_start(self) -> Started | None:
        """Return the start of the first attempt without reading further."""
        try:
            with self.path.open("rb") as file:
                events = (from_json(line) for line in file if line.endswith(b"\n"))
                return next((event for event in events if isinstance(event, Started)), None)
        except (OSError, *NO_EVENT):
            return None

    @property
    def started(self) -> Started | None:
        """The start of the last attempt."""
        return _last(self._all(Started))

    @property
    def finished(self) -> Finished | None:
        """The end of the last attempt; None while it runs or where it left no end."""
        ends = [event for event in self.refresh() if isinstance(event, (Started, Finished))]
        return ends[-1] if ends and isinstance(ends[-1], Finished) else None

    @property
    def evaluations(self) -> list[Evaluated]:
        """All evaluations, oldest first."""
        return self._all(Evaluated)

    @property
    def attempts(self) -> int:
        """How often the trial was started."""
        return len(self._all(Started))

    @property
    def crashes(self) -> int:
        """How many attempts failed, not counting those that lost their machine."""
        failed = [event for event in self._all(Finished) if event.ending == Ending.failed]
        return sum(event.reason is not Reason.lost for event in failed)

    @property
    def losses(self) -> int:
        """How many attempts lost the machine they ran on."""
        return sum(event.reason is Reason.lost for event in self._all(Finished))

    @property
    def abandoned(self) -> int:
        """How many of the last attempts left neither an end nor anything new: their driver died with them."""
        count = 0
        for event in self.refresh():
            if isinstance(event, Started):
                count += 1
            elif not isinstance(event, Scheduled):
                count = 0
        return count

    @property
    def out_of_memory(self) -> int:
        """How many attempts ran out of memory that they shared with no other trial."""
        return sum(event.ending == Ending.infeasible and not event.neighbours for event in self._all(Finished))

    @property
    def seconds(self) -> float:
        """Duration of all attempts; one without an end counts up to its last event."""
        ended, left = self._durations()
        return ended + left

    @property
    def open_seconds(self) -> float:
        """Duration of the last attempt up to its last event; 0 where it has an end."""
        return self._durations()[1]

    def _durations(self) -> tuple[float, float]:
        """Return the duration of all attempts but the last, if that has no end, and of the last."""
        total = begin = last = 0.0
        for event in self.refresh():
            if isinstance(event, Scheduled):
                continue  # written while nothing runs
            if isinstance(event, Started):
                total += last - begin
                begin = event.at
            last = event.at
            if isinstance(event, Finished):
                total += event.seconds
                begin = last
        return total, last - begin

    @property
    def spans(self) -> list[tuple[float, float]]:
        """From when to when each attempt ran, by its events, in seconds since the epoch."""
        found: list[tuple[float, float]] = []
        for event in self.refresh():
            if isinstance(event, Started):
                found.append((event.at, event.at))
            elif found and not isinstance(event, Scheduled):
                found[-1] = (found[-1][0], event.at)
        return found

    def lost(self, evaluations: Iterable[int]) -> str:
        """Set the log aside if it is damaged or lacks one of these evaluations; return why, in words; empty for a whole one."""
        try:
            self._parsed(0)
            known = {event.number for event in self.evaluations}
            if any(self.path.parent.glob(f"{EVENTS}.damaged-*")):
                known |= set(evaluations)  # some are of the log that was set aside
            why = "" if known.issuperset(evaluations) else f"{self.path} lacks evaluations that are recorded"
        except DamagedFile as error:
            why = str(error)
        if why and os.path.lexists(self.path):
            aside = self.path.with_name(f"{EVENTS}.damaged-{datetime.now():%Y%m%d-%H%M%S-%f}")
            os.rename(self.path, aside)
            why = f"{why} (kept as {aside.name})"
        return why

    @property
    def best_checkpoint(self) -> Checkpointed | None:
        """The last ``best`` checkpoint that the trial wrote, even if it was deleted since."""
        return _last([event for event in self._all(Checkpointed) if event.role == "best"])

    def _all(self, kind: type[E]) -> list[E]:
        return [event for event in self.refresh() if isinstance(event, kind)]

    def _parsed(self, offset: int) -> tuple[list[Event], int]:
        """Return what :meth:`events` returns. Raises DamagedFile."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, offset - 1))
                if offset and file.read(1) != b"\n":
                    offset = file.seek(0)
                data = file.read()
        except FileNotFoundError:
            return [], 0
        except OSError as error:
            raise DamagedFile(self.path, fault_of(error), _UNKNOWN) from error
        whole = data[: data.rfind(b"\n") + 1]
        try:
            return [from_json(line) for line in whole.splitlines()], offset + len(whole)
        except NO_EVENT as error:
            fault = "holds something that this version of sweepkit cannot read as an event"
            raise DamagedFile(self.path, fault, _UNKNOWN) from error

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.refresh()
        if self.path.is_symlink():
            raise StudyFailed(f"{self.path} is a link; a trial's log is a file of its own: remove the link")
        self._file = open_own(self.path, os.O_RDWR | os.O_APPEND)
        if os.fstat(self._file).st_size > self._offset:
            os.ftruncate(self._file, self._offset)

    def _new_part(self, event: Event) -> Event | None:
        if isinstance(event, Evaluated):
            return None if event.step in self._evaluated else event
        if isinstance(event, Scheduled):
            return None if event.evaluation in {turn.evaluation for turn in self._all(Scheduled)} else event
        if isinstance(event, Logged):
            known = self._steps.get(event.step, set())
            metrics = {name: value for name, value in event.metrics.items() if name not in known}
            return replace(event, metrics=metrics) if metrics else None
        return event

    def _add(self, event: Event) -> None:
        self._events.append(event)
        if isinstance(event, Evaluated):
            self._evaluated.add(event.step)
        elif isinstance(event, Logged):
            self._steps.setdefault(event.step, set()).update(event.metrics)


def _last(events: Sequence[E]) -> E | None:
    return events[-1] if events else None
