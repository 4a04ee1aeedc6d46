"""The live picture of a run in a notebook: one piece of HTML and SVG, which needs no network, replaced every second."""

from __future__ import annotations

import math
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from types import TracebackType
from typing import Self

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table

from sweepkit.report import terminal
from sweepkit.report.answer import Answer
from sweepkit.report.style import ACCENT, ENDINGS, window
from sweepkit.report.watch import Board, Outcome, Watcher
from sweepkit.study import words
from sweepkit.study.files import first_line
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Event, Started
from sweepkit.trial.trial import Ending, Trial

SECONDS_BETWEEN = 1.0
NOTES_MOST = 2
FAILURES_MOST = 3
CURVES_MOST = 60
"""Up to this many learning curves are drawn: the latest trials' and the best one's."""
WIDTH, HEIGHT = 420, 190
LEFT, RIGHT, TOP, BOTTOM = 48, 8, 8, 20

Curve = Sequence[tuple[float, float]]
"""(epoch, the first goal's metric), oldest first."""

STYLE = f"""
<style>
.sweepkit{{font:13px/1.45 system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;max-width:1000px;padding:2px 0}}
.sweepkit .soft{{opacity:.65}}.sweepkit .parts{{display:flex;flex-wrap:wrap;gap:8px 32px;align-items:flex-start}}
.sweepkit h4{{font-size:12px;font-weight:600;opacity:.65;margin:10px 0 2px}}
.sweepkit .bar{{height:6px;border-radius:3px;background:rgba(128,128,128,.25);overflow:hidden;margin:5px 0 2px}}
.sweepkit .bar i{{display:block;height:100%;background:{ENDINGS[Ending.complete]}}}
.sweepkit table{{border-collapse:collapse;font-size:12px;margin:0;font-variant-numeric:tabular-nums}}
.sweepkit table td,.sweepkit table th{{padding:2px 14px 2px 0;text-align:left;white-space:nowrap;border:0;background:none}}
.sweepkit table th{{font-weight:400;opacity:.65;border-bottom:1px solid rgba(128,128,128,.35)}}
.sweepkit table .n{{text-align:right}}.sweepkit table tr.first td{{font-weight:600}}
.sweepkit td .bar{{width:70px;margin:0}}.sweepkit td .bar i{{background:{ENDINGS[Ending.running]}}}
.sweepkit svg text{{font-size:10px;fill:currentColor;opacity:.65}}.sweepkit .wrong{{color:{ENDINGS[Ending.diverged]}}}
</style>
"""


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel, whose outputs can be replaced."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class LivePicture(Watcher):
    """A watcher that draws the run in the output of a cell; a thread of its own redraws it."""

    def __init__(self) -> None:
        self._id = f"sweepkit-{uuid.uuid4().hex}"
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._board: Board | None = None
        self._curves: dict[int, list[tuple[float, float]]] = {}
        self._notes: list[str] = []
        self._outcome: Outcome | None = None
        self._answer = ""
        self._error = ""
        self._ticker = threading.Thread(target=self._tick, name="sweepkit view", daemon=True)

    def __enter__(self) -> Self:
        self.show()
        self._ticker.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._ticker.join()
        if self._board is not None:
            self._board.running.clear()
        if error is not None:
            self._error = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        self._publish(update=True)

    def show(self) -> None:
        """Show the picture in the current cell as well; it is updated wherever it was shown."""
        self._publish(update=False)

    def _tick(self) -> None:
        while not self._over.wait(SECONDS_BETWEEN):
            self._publish(update=True)

    def _publish(self, *, update: bool) -> None:
        from IPython.display import display

        with self._lock:
            content = {"text/html": self._html(), "text/plain": self._text()}
        display(content, raw=True, display_id=self._id, update=update)

    def on_open(self, study: StudyData, rows: list[Trial]) -> None:
        """Draw the trials of earlier runs."""
        from sweepkit.report.evidence import courses

        curves = {
            number: [(event.epoch, event.values[0]) for event in course.evaluations if event.values]
            for number, course in courses(study.place.trials, rows).items()
        }
        with self._lock:
            self._board, self._curves = Board.at_start(study, rows), curves

    def on_note(self, text: str) -> None:
        """Show the note below the picture until two others follow."""
        with self._lock:
            self._notes.append(text)

    def on_event(self, event: Event) -> None:
        """Move the trial on."""
        with self._lock:
            if self._board is None:
                return
            self._board.add(event)
            if isinstance(event, Started) and not event.resumed:
                self._curves[event.trial] = []
            elif isinstance(event, Evaluated) and event.values:
                self._curves.setdefault(event.trial, []).append((event.epoch, event.values[0]))

    def on_trial_end(self, row: Trial) -> None:
        """Move the trial to the ended ones."""
        with self._lock:
            if self._board is not None:
                self._board.end(row)

    def on_confirmation(self, board: Board) -> None:
        """Show the confirmation below the search."""
        with self._lock:
            if self._board is not None:
                self._board.confirmation = board

    def on_close(self, outcome: Outcome) -> None:
        """Show the outcome."""
        with self._lock:
            self._outcome = outcome
            if self._board is not None:
                self._answer = Answer.read(self._board.study, outcome.rows).says()

    def _text(self) -> str:
        """Return the picture as one line, for frontends without HTML."""
        board = self._board
        if board is None:
            return self._error or "starting"
        status = self._error or (self._outcome.status if self._outcome else "running")
        counts = [stage.count() for stage in board.stages]
        return "  ".join(fact for fact in (board.study.name, status, *counts, board.best()) if fact)

    def _html(self) -> str:
        board = self._board
        notes = [f"<div class=soft>{escape(note)}</div>" for note in self._notes[-NOTES_MOST:]]
        if board is None:
            error = f"<div class=wrong>{escape(self._error)}</div>" if self._error else ""
            parts = [*(notes or ["starting …"]), error]
        else:
            pruner = board.study.pruner.title
            searching = board.study.sampler.title + ("" if pruner == "none" else f" + {pruner}")
            about = f"{escape(terminal.goals(board.study))} · {escape(searching)}"
            parts = [f"<b>{escape(board.study.name)}</b> <span class=soft>{about}</span>"]
            for stage in board.stages:
                parts += [_bar(stage.done / stage.total)] if stage.total else []
                parts += [f"<div>{stage.count()}{_soft(stage.clock())}</div>"] if self._goes_on else []
            parts += [self._state(board), f"<div class=parts>{self._tables(board)}{_curves(board, self._curves)}</div>"]
            parts += [*_failures(board), *(notes if self._outcome is None else [])]
        return f"{STYLE}<div class=sweepkit>{''.join(parts)}</div>"

    @property
    def _goes_on(self) -> bool:
        return self._outcome is None and not self._error

    def _state(self, board: Board) -> str:
        outcome, going = self._outcome, board.stages[-1]
        if self._goes_on:
            return f"<div class=soft>{going.counts() or 'starting'}</div>"
        if outcome is None or self._error:
            state = f"<span class=wrong>ended with an error: {escape(self._error)}</span>"
        elif outcome.status == "interrupted":
            state = "<b>interrupted</b>: nothing finished is lost; run the cell again to resume"
        elif outcome.status == "failed":
            state = f"<span class=wrong><b>failed</b>: {escape(outcome.reason)}</span>"
        else:
            state = f"<b>done</b>: {escape(outcome.reason)}"
        seconds = outcome.seconds if outcome else time.time() - board.began
        total = f" of {board.total}" if board.total is not None else ""
        counts = [f"{len(board.ended)}{total} trials", *(stage.count() for stage in board.stages[1:])]
        said = f"<div>{escape(self._answer)}</div>" if self._answer else ""
        return f"<div>{state}{_soft(*counts, board.counts(), words.span(int(seconds)))}</div>{said}"

    def _tables(self, board: Board) -> str:
        tables, going = [], board.stages[-1]
        if top := board.top:
            title = "Pareto front" if board.answer.several else "best in the search" if board.confirmation else "best"
            best = terminal.trials(board.answer, top)
            tables.append(f"<h4>{title}</h4>{_html(best)}")
        if self._goes_on and (moments := dict(sorted(going.running.items()))):
            tables.append(f"<h4>training now</h4>{_html(terminal.running(going.study, moments))}")
        return f"<div>{''.join(tables)}</div>" if tables else ""


def _soft(*facts: str) -> str:
    return f"<span class=soft> · {escape(' · '.join(filter(None, facts)))}</span>" if any(facts) else ""


def _bar(share: float) -> str:
    return f"<div class=bar><i style='width:{100 * min(1.0, share):.1f}%'></i></div>"


def _failures(board: Board) -> list[str]:
    wrong = [row for row in board.answer.rows if row.ending in (Ending.failed, Ending.infeasible, Ending.diverged)]
    lines = [
        f"<div class=wrong>trial {row.number} {row.ending}: {escape(first_line(row.cause))}</div>"
        for row in wrong[-FAILURES_MOST:]
    ]
    more = len(wrong) - len(lines)
    return [*lines, f"<div class=soft>and {more} more that went wrong</div>"] if more else lines


def _html(table: Table) -> str:
    """Return a table of the terminal's views as HTML, with its progress bars."""
    kinds = ["n" if column.justify == "right" else "" for column in table.columns]
    lines = ["".join(f"<th class='{k}'>{_cell(c.header)}</th>" for k, c in zip(kinds, table.columns, strict=True))]
    for row in zip(*(column.cells for column in table.columns), strict=True):
        lines.append("".join(f"<td class='{kind}'>{_cell(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)))
    first = " class=first" if table.rows and table.rows[0].style else ""
    head = f"<tr>{lines[0]}</tr>" if table.show_header else ""
    return f"<table>{head}<tr{first}>{'</tr><tr>'.join(lines[1:])}</tr></table>"


def _cell(content: RenderableType) -> str:
    if isinstance(content, ProgressBar):
        return _bar(content.completed / (content.total or 1.0))
    return escape(str(content))


def _curves(board: Board, curves: Mapping[int, Curve]) -> str:
    """Return the learning curves as SVG: the best thick, the running ones coloured, the others in the background."""
    finite = {number: [point for point in curve if math.isfinite(point[1])] for number, curve in curves.items()}
    winners = {row.number for row in board.answer.winners}
    drawn = {*sorted(n for n, curve in finite.items() if curve)[-CURVES_MOST:], *(winners & finite.keys())}
    goal = board.study.objective.goals[0]
    span = window([y for n in drawn for _, y in finite[n]], maximize=goal.direction == "maximize")
    if span is None:
        return ""
    axes = _Axes(*span, end=max(x for n in drawn for x, _ in finite[n]) or 1.0)
    order = sorted(drawn, key=lambda n: (n in winners, n in board.running, n))
    lines = [_line(number, [axes.at(x, y) for x, y in finite[number]], board, number in winners) for number in order]
    title = f"learning curves, {escape(goal.metric)}"
    return f"<div><h4>{title}</h4><svg width={WIDTH} height={HEIGHT}>{axes.svg()}{''.join(lines)}</svg></div>"


def _line(number: int, points: Sequence[tuple[float, float]], board: Board, winner: bool) -> str:
    """Return a trial's learning curve, with a dot at its end."""
    row = board.ended.get(number)
    going = Ending.paused if number in board.paused else Ending.running
    color = ACCENT if winner else ENDINGS[row.ending if row else going]
    wide, opacity = (2.5, 1.0) if winner else (1.5, 0.9) if row is None else (1.2, 0.55)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    stroke = f"fill=none stroke='{color}' stroke-width={wide} opacity={opacity}"
    x, y = points[-1]
    return (
        f"<polyline points='{path}' {stroke}><title>trial {number}</title></polyline>"
        f"<circle cx={x:.1f} cy={y:.1f} r=2.5 fill='{color}' opacity={opacity} />"
    )


@dataclass(frozen=True)
class _Axes:
    """Epochs from 0 to ``end``, values from ``low`` to ``high``; what lies beyond is drawn at the edge."""

    low: float
    high: float
    end: float

    def at(self, epoch: float, value: float) -> tuple[float, float]:
        share = min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))
        x = LEFT + (WIDTH - LEFT - RIGHT) * epoch / self.end
        return x, HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share

    def svg(self) -> str:
        """Return three grid lines with their values, and the ends of the epochs."""
        shapes = [f"<text x={LEFT} y={HEIGHT - 5}>0</text>"]
        shapes.append(f"<text x={WIDTH - RIGHT} y={HEIGHT - 5} text-anchor=end>epoch {self.end:.3g}</text>")
        for share in (0.06, 0.5, 0.94):
            value = self.low + share * (self.high - self.low)
            _, y = self.at(0, value)
            shapes.append(
                f"<line x1={LEFT} x2={WIDTH - RIGHT} y1={y:.1f} y2={y:.1f} stroke=currentColor opacity=.12 />"
            )
            shapes.append(f"<text x={LEFT - 6} y={y + 3:.1f} text-anchor=end>{words.value(value)}</text>")
        return "".join(shapes)
