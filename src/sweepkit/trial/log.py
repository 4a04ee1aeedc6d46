"""A trial's own log, ``events.jsonl``: the one writer and the one reader of it. Knows no one who reads what it says.

One event per line, in the order they were said. The log is what resuming, the tracker and the report start from, so it
says nothing twice: a trial that goes on from a checkpoint repeats steps that an earlier attempt had said already.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from sweepkit.study.paths import EVENTS
from sweepkit.trial.events import Checkpointed, Evaluated, Event, Finished, Logged, Scheduled, Started, from_json
from sweepkit.trial.trial import Ending, Reason

E = TypeVar("E", bound=Event)


class TrialLog:
    """The log of the trial whose folder is given; nothing is written before the first :meth:`append`.

    Reading is safe while another process writes: only whole lines count. Writing is for one process, the driver.
    """

    def __init__(self, folder: Path) -> None:
        self._file: int | None = None
        self.path = folder / EVENTS
        self._said: list[Event] = []
        self._offset = 0
        self._steps: dict[int, set[str]] = {}
        self._evaluated: set[int] = set()

    def append(self, event: Event) -> bool:
        """Write an event at once; return whether there was anything new in it.

        What was said of a step already (a metric, an evaluation, a change of the schedule) is left out. A last line that
        a killed writer left half-written is cut first; if the disk is full, what was written of this line is cut again
        and OSError is raised. The file is open from the first event of an attempt to its Finished.
        """
        if self._file is None:
            self._open()
        fresh = self._unsaid(event)
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
        if end == self._offset:  # nobody else wrote, so that what it says is known without reading it again
            self._take(fresh)
            self._offset = end + len(line)
        else:
            self.refresh()
        if isinstance(event, Finished):
            self.close()
        return True

    def close(self) -> None:
        """Close the file; the next :meth:`append` opens it again."""
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
        """Return the events from a byte offset on, and the offset behind the last whole line.

        An offset behind the end of the file belongs to an older log and counts as 0. No file: no events.
        """
        try:
            with self.path.open("rb") as file:
                if offset > os.fstat(file.fileno()).st_size:
                    offset = 0
                file.seek(offset)
                data = file.read()
        except FileNotFoundError:
            return [], 0
        whole = data[: data.rfind(b"\n") + 1]
        return [from_json(line) for line in whole.splitlines()], offset + len(whole)

    @property
    def size(self) -> int:
        """Bytes of the log, a half-written last line included; 0 where there is none."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def refresh(self) -> Sequence[Event]:
        """Return all events, reading what was added since the last time."""
        if self.size < self._offset:
            self._said, self._offset, self._steps, self._evaluated = [], 0, {}, set()
        more, self._offset = self.events(self._offset)
        for event in more:
            self._take(event)
        return self._said

    def first_start(self) -> Started | None:
        """Return the start of the first attempt, reading no further than it."""
        try:
            with self.path.open("rb") as file:
                events = (from_json(line) for line in file if line.endswith(b"\n"))
                return next((event for event in events if isinstance(event, Started)), None)
        except FileNotFoundError:
            return None

    @property
    def started(self) -> Started | None:
        """The start of the last attempt."""
        return _last(self._all(Started))

    @property
    def finished(self) -> Finished | None:
        """The end of the last attempt; None while it runs or when nothing says how it ended."""
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
        """How many attempts failed, those left out that lost their machine."""
        failed = [event for event in self._all(Finished) if event.ending == Ending.failed]
        return sum(event.reason is not Reason.lost for event in failed)

    @property
    def losses(self) -> int:
        """How many attempts lost the machine they ran on."""
        return sum(event.reason is Reason.lost for event in self._all(Finished))

    @property
    def out_of_memory(self) -> int:
        """How many attempts ran out of memory."""
        return sum(event.ending == Ending.infeasible for event in self._all(Finished))

    @property
    def seconds(self) -> float:
        """Seconds of all attempts: what each said at its end; of one that said no end, up to the last it said."""
        total = begin = last = 0.0
        for event in self.refresh():
            if isinstance(event, Scheduled):
                continue  # told while nothing runs
            if isinstance(event, Started):
                total += last - begin
                begin = event.at
            last = event.at
            if isinstance(event, Finished):
                total += event.seconds
                begin = last
        return total + last - begin

    @property
    def best_checkpoint(self) -> Checkpointed | None:
        """The last ``best`` checkpoint the trial wrote, whether or not it was kept."""
        return _last([event for event in self._all(Checkpointed) if event.role == "best"])

    def _all(self, kind: type[E]) -> list[E]:
        return [event for event in self.refresh() if isinstance(event, kind)]

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.refresh()
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        if os.fstat(self._file).st_size > self._offset:
            os.ftruncate(self._file, self._offset)

    def _unsaid(self, event: Event) -> Event | None:
        if isinstance(event, Evaluated):
            return None if event.step in self._evaluated else event
        if isinstance(event, Scheduled):
            return None if event.evaluation in {turn.evaluation for turn in self._all(Scheduled)} else event
        if isinstance(event, Logged):
            said = self._steps.get(event.step, set())
            metrics = {name: value for name, value in event.metrics.items() if name not in said}
            return replace(event, metrics=metrics) if metrics else None
        return event

    def _take(self, event: Event) -> None:
        self._said.append(event)
        if isinstance(event, Evaluated):
            self._evaluated.add(event.step)
        elif isinstance(event, Logged):
            self._steps.setdefault(event.step, set()).update(event.metrics)


def _last(events: Sequence[E]) -> E | None:
    return events[-1] if events else None
