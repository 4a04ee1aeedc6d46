"""Views of a study on a terminal: plain lines for a pipe, a live picture, and its state at any time."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Column, Table
from rich.text import Text

from sweepkit.report import terminal
from sweepkit.report.answer import Answer, list_trials
from sweepkit.report.rows import CONFIRM, Reader, endings, hours_by_ending, slot_hours
from sweepkit.report.watch import BEST_SHOWN, Board, Outcome, Watcher, confirming, read_moment, read_state
from sweepkit.study import words
from sweepkit.study.files import first_line
from sweepkit.study.locks import lock_owner, lock_since
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Event, Started
from sweepkit.trial.trial import Ending, Trial

PICTURES_PER_SECOND = 4
SECONDS_BETWEEN_READS = 1.0
PRUNED_SHOWN = 12
GOING_SHOWN = 20
"""Running and paused trials of which a snapshot says how far they came, those with most evaluations first."""


def watcher() -> Lines | Picture:
    """Return the live picture where standard output is a terminal, else plain lines."""
    return Picture() if sys.stdout.isatty() else Lines()


class Lines(Watcher):
    """Prints a line with the time of day per start, evaluation and end, and flushes it at once."""

    def __init__(self) -> None:
        self._console = terminal.console()
        self._board: Board | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def _print(self, text: str) -> None:
        self._console.print(Text(f"{datetime.now():%H:%M:%S}  {text}"), soft_wrap=True)
        self._console.file.flush()

    def on_open(self, study: StudyData, rows: list[Trial]) -> None:
        """Print what is run, and how many trials are done already."""
        self._board = board = Board.at_start(study, rows)
        board.seconds_left()  # begins to look
        total = "trials" if board.total is None else words.plural(board.total, "trial")
        self._print(f"{study.name}: {total}, {terminal.goals(study)}, in {terminal.short_path(study.place.folder)}")
        if board.ended:
            self._print(f"{words.plural(len(board.ended), 'trial')} done before ({endings(board.answer.rows)})")

    def on_note(self, text: str) -> None:
        """Print the note."""
        self._print(text)

    def on_event(self, event: Event) -> None:
        """Print a trial's start or evaluation."""
        if self._board is None:
            return
        self._board.add(event)
        if isinstance(event, Started):
            params = words.settings(self._board.running[event.trial].params)
            attempt = f", attempt {event.attempt}" if event.attempt > 1 else ""
            resumed = f", resumed from step {event.resumed}" if event.resumed else ""
            self._print(f"trial {event.trial} started{attempt}{resumed}: {params}")
        elif isinstance(event, Evaluated):
            values = ", ".join(_metrics(self._board.study, event.values))
            step = f"step {event.step}, epoch {event.epoch:.3g}"
            self._print(f"trial {event.trial} evaluation {event.number}: {values} ({step})")

    def on_trial_end(self, row: Trial) -> None:
        """Print how the trial ended, the best so far, and how many are done."""
        if self._board is None:
            return
        self._board.end(row)
        left = self._board.seconds_left()
        count = f"{self._board.count()} ({self._board.counts()})"
        facts = [_ending(self._board.study, row), self._board.best(), count, words.time_left(left) if left else ""]
        self._print(" · ".join(filter(None, facts)))


class Picture(Watcher):
    """A live picture on a terminal; trials that went wrong stay above it."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or terminal.console()
        self._board: Board | None = None
        self._spinner = Spinner("dots", Text("starting", style="dim"))
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
        return self._spinner if self._board is None else picture(self._board)

    def on_open(self, study: StudyData, rows: list[Trial]) -> None:
        """Replace the spinner by the picture."""
        self._board = Board.at_start(study, rows)

    def on_note(self, text: str) -> None:
        """Print the note above the picture."""
        self._console.print(Text(text, style="dim"))

    def on_event(self, event: Event) -> None:
        """Move the trial on in the picture."""
        if self._board is not None:
            self._board.add(event)

    def on_trial_end(self, row: Trial) -> None:
        """Move the trial to the ended ones; print it above the picture if it went wrong."""
        if self._board is None:
            return
        self._board.end(row)
        if row.ending in (Ending.failed, Ending.infeasible, Ending.diverged):
            self._console.print(Text(_ending(self._board.study, row), style=terminal.STYLES[row.ending]))

    def on_confirmation(self, board: Board) -> None:
        """Show the confirmation below the search."""
        if self._board is not None:
            self._board.confirmation = board

    def on_close(self, outcome: Outcome) -> None:
        """Remove the picture: the summary follows."""
        self._live.stop()


def picture(board: Board) -> RenderableType:
    """Return the live picture at this moment: the bars of search and confirmation, the running trials, the best."""
    bars = Table.grid(*(Column(no_wrap=True) for _ in range(3)), padding=(0, 1))
    for stage in board.stages:
        bar = ProgressBar(
            stage.total, stage.done, width=32, complete_style="green", finished_style="green", pulse_style="green"
        )
        bars.add_row(bar, Text(stage.count()), Text(stage.clock(), style="dim"))
    parts: list[RenderableType] = [terminal.heading(board.study), bars]
    going = board.stages[-1]
    if counts := going.counts():
        parts.append(Text(counts, style="dim"))
    if moments := dict(sorted(going.running.items())):
        parts.append(Padding(terminal.running(going.study, moments), (1, 0, 0, 0)))
    if top := board.top:
        parts.append(Padding(terminal.trials(board.answer, top), (1, 0, 0, 0)))
    return Group(*parts)


def snapshot(study: StudyData, *, every: bool = False) -> RenderableType:
    """Return a study as it stands now: its progress, the best, what runs, what went wrong, and the hours.

    ``every`` lists all trials in the order tried instead of the best.
    """
    reader = Reader(study)
    rows, confirmations = reader.rows(), reader.beside(CONFIRM).rows()
    answer = Answer.read(study, rows)
    parts: list[RenderableType] = [terminal.heading(study), _state(study, rows, confirmations)]
    if every:
        parts += _section("every trial", terminal.trials(answer, rows, endings=True))
    elif top := answer.top(BEST_SHOWN):
        parts += _leaders(answer, top)
    for ending in () if every else (Ending.running, Ending.paused):
        if going := sorted((row for row in rows if row.ending is ending), key=lambda row: -len(row.intermediate)):
            parts += _section(str(ending), _going(study, going))
    if (pruned := _pruned(study, rows)) and not every:
        parts += _section("pruned", Text(pruned))
    if answer.verdict:
        parts += _section("over new seeds", Group(*map(Text, answer.verdict.sentences())))
    if answer.test:
        reached = f"evaluated once on {answer.test.rows} rows: {words.metrics(answer.test.metrics)}"
        parts += _section("on the test split", Text(f"trial {answer.test.trial}, {reached}"))
    if (wrong := terminal.failures(study, rows)) is not None:
        parts += _section("went wrong", wrong)
    if rows:
        spent = hours_by_ending(rows, confirmed=confirmations, slot_hours=slot_hours(study.place))
        parts += [Text(), terminal.hours(spent)]
    if (best := answer.chosen) and best.checkpoint is not None:
        path = terminal.short_path(best.checkpoint)
        parts.append(Text.assemble(("model  ", "dim"), path, f" (trial {best.number})"))
    return Group(*parts)


def _leaders(answer: Answer, top: Sequence[Trial]) -> list[RenderableType]:
    title = "Pareto front" if answer.several else "best in the search" if answer.verdict else "best"
    told = answer.chosen and answer.versus() and not answer.verdict  # the verdict says it of the means
    said = [f"trial {answer.chosen.number}: {answer.versus()}."] if answer.chosen and told else []
    return _section(title, Group(terminal.trials(answer, top), *map(Text, [*said, *answer.notes()])))


def _going(study: StudyData, rows: list[Trial]) -> RenderableType:
    """Return how far trials have come that have not ended, and what was last decided for each."""
    shown, more = rows[:GOING_SHOWN], len(rows) - GOING_SHOWN
    moments = {row.number: read_moment(study.place, row) for row in shown}
    if rows[0].ending is Ending.paused:  # no time passes for them
        moments = {number: replace(moment, since=None) for number, moment in moments.items()}
    why = {row.number: row.decisions[-1].why for row in shown if row.decisions}
    table = terminal.running(study, moments, why)
    return Group(table, Text(f"and {more} more, listed by --all", style="dim")) if more > 0 else table


def follow(study: StudyData) -> None:
    """Show a running study live until its driver ends or Ctrl-C is pressed, then its snapshot."""
    hint = Text("Ctrl-C leaves this view; the study keeps running", style="dim")
    reader = Reader(study)
    confirmation = reader.beside(CONFIRM)
    since = lock_since(study.place)
    board = Board(study, began=since.timestamp()) if since else Board(study)
    with Live(console=terminal.console(), auto_refresh=False, transient=True) as live:
        try:
            while lock_owner(study.place):
                board.update(reader.rows())
                if runs := confirmation.rows():
                    if board.confirmation is None:
                        board.confirmation = confirming(study, confirmation.place, len(runs), runs)
                        board.confirmation.began = max(board.began, _first_start(runs))
                    board.confirmation.update(runs)
                live.update(Group(picture(board), Text(), hint), refresh=True)
                time.sleep(SECONDS_BETWEEN_READS)
        except KeyboardInterrupt:
            pass
    terminal.show(snapshot(study))


def _first_start(rows: Iterable[Trial]) -> float:
    started = [datetime.fromisoformat(row.started).timestamp() for row in rows if row.started]
    return min(started, default=time.time())


def _metrics(study: StudyData, values: Iterable[float]) -> list[str]:
    return [f"{goal.metric} {words.value(value)}" for goal, value in zip(study.objective.goals, values, strict=False)]


def _ending(study: StudyData, row: Trial) -> str:
    time = f" in {words.span(row.seconds)}" if row.seconds is not None else ""
    values = ", ".join(
        _metrics(study, row.values) if row.ending in (Ending.complete, Ending.pruned, Ending.paused) else []
    )
    facts = ", ".join(part for part in (values, first_line(row.cause)) if part)
    return f"trial {row.number} {row.ending}{time}" + (f": {facts}" if facts else "")


def _section(title: str, content: RenderableType) -> list[RenderableType]:
    return [Text(), Text(title, style="dim"), Padding(content, (0, 0, 0, 2))]


def _state(study: StudyData, rows: list[Trial], confirmations: list[Trial]) -> Text:
    """Return how far the search and its confirmation are, and which process runs them or how that ended."""
    ended, state = [row for row in rows if row.ending.counts], read_state(study, rows)
    total = f" of {study.budget.trials}" if study.budget.trials is not None else ""
    text = Text(f"{len(ended)}{total} trials")
    text.append(f" ({endings(rows)})" if rows else "")
    text.append(f", {_confirmed(confirmations)}" if confirmations else "")
    if owner := lock_owner(study.place) if state.status == "running" else None:
        text.append(f" · running, process {owner[0]} on {owner[1]}", style="cyan")
    else:
        left = study.budget.trials is not None and len(ended) < study.budget.trials and state.status != "done"
        text.append(f" · {state}" + ("; sweep run continues it" if left else ""), style="dim")
    return text


def _pruned(study: StudyData, rows: list[Trial]) -> str:
    """Return which trials were pruned, after how many evaluations, and the best value among them."""
    pruned = [row for row in rows if row.ending is Ending.pruned]
    if not pruned:
        return ""
    after = sorted(max(row.intermediate, default=0) for row in pruned)
    span = f"{after[0]}" if after[0] == after[-1] else f"{after[0]} to {after[-1]}"
    said = f"{list_trials(pruned, PRUNED_SHOWN)}, after {span} evaluation{'' if span == '1' else 's'}"
    valued = [row for row in pruned if row.values and math.isfinite(row.values[0])]
    if not valued or len(study.objective.goals) > 1:
        return said
    best = (max if study.objective.goals[0].direction == "maximize" else min)(valued, key=lambda row: row.values[0])
    reached = f"reached {words.value(best.value)}"
    return f"{said}; it {reached}" if len(pruned) == 1 else f"{said}; the best {reached} (trial {best.number})"


def _confirmed(rows: list[Trial]) -> str:
    return f"{sum(row.ending.counts for row in rows)} of {words.plural(len(rows), 'confirmation run')}"
