"""What ``sweep run`` shows meanwhile: a live picture on a terminal, plain lines in a pipe. Knows no process."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.spinner import Spinner
from rich.text import Text

from sweepkit.report import rows as results
from sweepkit.report import tables
from sweepkit.report.moments import Moment, fraction, hyperparameters, moment
from sweepkit.study import words
from sweepkit.study.paths import Place
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Event, Started
from sweepkit.trial.trial import Ending, Trial

if TYPE_CHECKING:
    from sweepkit.report.watch import Outcome

BEST_SHOWN = 5
PICTURES_PER_SECOND = 4


@dataclass
class Board:
    """Everything a picture of a study is made of: ended trials, and where the running ones have got to."""

    study: StudyData
    place: Place
    ended: dict[int, Trial] = field(default_factory=dict)
    running: dict[int, Moment] = field(default_factory=dict)

    def take(self, rows: Iterable[Trial]) -> None:
        """Take over trials of earlier runs, or read again from storage."""
        for row in rows:
            if row.ending.counts:
                self.ended[row.number] = row
                self.running.pop(row.number, None)
            elif row.ending is Ending.running:
                self.running[row.number] = moment(self.place, row)

    def event(self, event: Event) -> None:
        """Take in what a trial says."""
        if isinstance(event, Started) and event.trial not in self.running:
            given = hyperparameters(self.place, event.trial)
            self.running[event.trial] = Moment(params=given)
        if event.trial in self.running:
            self.running[event.trial] = self.running[event.trial].after(event)

    def end(self, row: Trial) -> None:
        """Take in a finished trial."""
        self.running.pop(row.number, None)
        if row.ending.counts:
            self.ended[row.number] = row

    @property
    def rows(self) -> list[Trial]:
        """Ended trials, by number."""
        return sorted(self.ended.values(), key=lambda row: row.number)

    @property
    def total(self) -> int | None:
        """Trials the budget allows."""
        return self.study.budget.trials

    @property
    def done(self) -> float:
        """Trials done, those half trained counted as the half they are."""
        halves = (fraction(self.study, now) or 0.0 for now in tuple(self.running.values()))
        return len(self.ended) + sum(halves)

    def best(self) -> str:
        """Return the best so far in words, for example ``best 0.874 (trial 7)``, or nothing."""
        found = results.winners(self.study, self.rows)
        if len(self.study.objective.goals) > 1:
            return f"Pareto front of {len(found)}" if found else ""
        return f"best {words.value(found[0].value)} (trial {found[0].number})" if found else ""


class Lines:
    """Plain lines, one per start, evaluation and end, each with the time of day; flushed at once."""

    def __init__(self) -> None:
        self._console = tables.console()
        self._board: Board | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def _say(self, text: str) -> None:
        self._console.print(Text(f"{datetime.now():%H:%M:%S}  {text}"), soft_wrap=True)
        self._console.file.flush()

    def opened(self, study: StudyData, rows: list[Trial]) -> None:
        """Say what begins and what is there already."""
        self._board = board = Board(study, study.place)
        board.take(rows)
        board.running.clear()
        total = "trials" if board.total is None else words.plural(board.total, "trial")
        self._say(f"{study.name}: {total}, {tables.goals(study)}, in {tables.shown(board.place.folder)}")
        if board.ended:
            self._say(f"{words.plural(len(board.ended), 'trial')} done before ({results.endings(board.rows)})")

    def said(self, text: str) -> None:
        """Pass a line on."""
        self._say(text)

    def event(self, event: Event) -> None:
        """Say that a trial started or was evaluated."""
        if self._board is None:
            return
        self._board.event(event)
        if isinstance(event, Started):
            params = words.settings(self._board.running[event.trial].params)
            resumed = f", goes on from step {event.resumed}" if event.resumed else ""
            attempt = f", attempt {event.attempt}" if event.attempt > 1 else ""
            self._say(f"trial {event.trial} started{attempt}{resumed}: {params}")
        elif isinstance(event, Evaluated):
            found = ", ".join(_named(self._board.study, event.values))
            where = f"step {event.step}, epoch {event.epoch:.3g}"
            self._say(f"trial {event.trial} evaluation {event.number}: {found} ({where})")

    def ended(self, row: Trial) -> None:
        """Say how a trial ended, what is best now, and how many are done."""
        if self._board is None:
            return
        self._board.end(row)
        facts = [_ending(self._board.study, row), self._board.best(), _count(self._board)]
        self._say(" · ".join(fact for fact in facts if fact))

    def closed(self, outcome: Outcome) -> None:
        """Say nothing: the summary follows."""


class Picture:
    """A live picture: one bar for the study, one line per running trial, the best five; failures stay above it."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or tables.console()
        self._board: Board | None = None
        self._progress = progress()
        self._starting = Spinner("dots", Text("starting", style="dim"))
        self._live = Live(
            console=self._console,
            get_renderable=self._render,
            refresh_per_second=PICTURES_PER_SECOND,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def _render(self) -> RenderableType:
        return self._starting if self._board is None else picture(self._board, self._progress)

    def opened(self, study: StudyData, rows: list[Trial]) -> None:
        """Begin the picture."""
        board = Board(study, study.place)
        board.take(rows)
        board.running.clear()
        begin(self._progress, board)
        self._board = board

    def said(self, text: str) -> None:
        """Write a line above the picture."""
        self._console.print(Text(text, style="dim"))

    def event(self, event: Event) -> None:
        """Take in what a trial says."""
        if self._board is not None:
            self._board.event(event)

    def ended(self, row: Trial) -> None:
        """Take in a finished trial; what went wrong is written above the picture."""
        if self._board is None:
            return
        self._board.end(row)
        if row.ending in (Ending.failed, Ending.infeasible, Ending.diverged):
            self._console.print(Text(_ending(self._board.study, row), style=tables.STYLES[row.ending]))

    def closed(self, outcome: Outcome) -> None:
        """Take the picture away: the summary follows."""
        self._live.stop()


class TimeLeft(ProgressColumn):
    """The time left by the speed since the start, or nothing while that is unknown."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """Return the column for one task."""
        left = task.time_remaining
        spent = words.span(int(task.elapsed or 0))
        text = spent if left is None or task.total is None else f"{spent}, {words.span(int(left))} left"
        return Text(text, style="dim")


def progress() -> Progress:
    """Return the bar of a study, not yet begun."""
    return Progress(
        BarColumn(bar_width=32, complete_style="green", finished_style="green", pulse_style="green"),
        TextColumn("{task.fields[count]}"),
        TimeLeft(),
        auto_refresh=False,
        speed_estimate_period=1e9,  # the whole run: trials end in lumps
    )


def begin(bar: Progress, board: Board, *, since: datetime | None = None) -> None:
    """Put the study on its bar, begun now or at ``since``; what is done already does not count for the speed."""
    task = bar.add_task(board.study.name, total=board.total, completed=len(board.ended), count="")
    if since is not None:
        bar.tasks[task].start_time = bar.get_time() - (datetime.now() - since).total_seconds()


def picture(board: Board, bar: Progress) -> RenderableType:
    """Return the picture of a study at this moment."""
    for task in bar.tasks:
        bar.update(task.id, completed=board.done, count=_count(board))
    rows = board.rows
    parts: list[RenderableType] = [tables.heading(board.study), bar.get_renderable()]
    if moments := dict(sorted(board.running.items())):
        parts.append(Padding(tables.running(board.study, moments), (1, 0, 0, 0)))
    if top := shown(board.study, rows):
        table = tables.trials(board.study, top, against=results.baseline(rows))
        parts.append(Padding(table, (1, 0, 0, 0)))
    return Group(*parts)


def shown(study: StudyData, rows: list[Trial]) -> list[Trial]:
    """Return the trials worth a line: the best five, or the beginning of the Pareto front."""
    found = results.front(study, rows) if len(study.objective.goals) > 1 else results.ranked(study, rows)
    return found[:BEST_SHOWN]


def watcher() -> Lines | Picture:
    """Return the view that fits where standard output goes."""
    return Picture() if sys.stdout.isatty() else Lines()


def _named(study: StudyData, values: Iterable[float]) -> list[str]:
    return [f"{goal.metric} {words.value(value)}" for goal, value in zip(study.objective.goals, values, strict=False)]


def _ending(study: StudyData, row: Trial) -> str:
    time = f" in {words.span(row.seconds)}" if row.seconds is not None else ""
    facts = ", ".join(_named(study, row.values) if row.ending in (Ending.complete, Ending.pruned) else [])
    tail = ", ".join(part for part in (facts, words.first_line(row.cause)) if part)
    return f"trial {row.number} {row.ending}{time}" + (f": {tail}" if tail else "")


def _count(board: Board) -> str:
    done = len(board.ended)
    return f"{done}/{board.total}" if board.total is not None else words.plural(done, "trial")
