"""The pictures of ``sweep show``: a study read from storage, once or again and again while it runs. Knows no driver."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.text import Text

from sweepkit.report import live as view
from sweepkit.report import rows as results
from sweepkit.report import tables
from sweepkit.report.confirmation import SUFFIX, confirmed, winners
from sweepkit.report.moments import moment
from sweepkit.study import words
from sweepkit.study.locks import lock_since
from sweepkit.trial.trial import Ending, Trial

if TYPE_CHECKING:
    from sweepkit.study.study import StudyData

SECONDS_BETWEEN_LOOKS = 1.0


def still(study: StudyData, *, every: bool = False) -> RenderableType:
    """Return a study as it stands now: how far it is, the best, what runs, what failed, and the hours."""
    reader = results.Reader(study)
    rows, again = reader.rows(), reader.beside(SUFFIX).rows()
    verdict = confirmed(study, rows)
    parts: list[RenderableType] = [tables.heading(study), _state(study, rows, again)]
    if every:
        parts += _section("every trial", tables.trials(study, rows, against=results.baseline(rows), endings=True))
    elif top := view.shown(study, rows):
        title = "Pareto front" if len(study.objective.goals) > 1 else "best in the search" if verdict else "best"
        parts += _section(title, tables.trials(study, top, against=results.baseline(rows)))
    moments = {row.number: moment(study.place, row) for row in rows if row.ending is Ending.running}
    if moments and not every:
        parts += _section("running", tables.running(study, moments))
    if verdict and not every:
        parts += _section("confirmed", Group(*map(Text, verdict["sentences"])))
    if (wrong := tables.failures(study, rows)) is not None:
        parts += _section("went wrong", wrong)
    if rows:
        spent = results.ledger(rows, confirmed=again, slot_hours=results.slot_hours(study.place))
        parts += [Text(), tables.hours(spent)]
    found = winners(study, rows)
    if len(found) == 1 and found[0].checkpoint is not None:
        parts.append(
            Text.assemble(("model  ", "dim"), tables.shown(found[0].checkpoint), f" (trial {found[0].number})")
        )
    return Group(*parts)


def follow(study: StudyData) -> None:
    """Show a running study live until its driver ends or Ctrl-C ends the looking."""
    board = view.Board(study, study.place)
    bar = view.progress()
    out = tables.console()
    hint = Text("Ctrl-C ends the looking, not the study", style="dim")
    reader = results.Reader(study)
    confirmation = reader.beside(SUFFIX)
    board.take(reader.rows())
    view.begin(bar, board, since=lock_since(study.place))
    with Live(console=out, auto_refresh=False, transient=True) as live:
        try:
            while results.driver(study.place):
                board.take(reader.rows())
                again = confirmation.rows()
                how_far = [Text(), Text(_again(again), style="cyan")] if again else []
                live.update(Group(view.picture(board, bar), *how_far, Text(), hint), refresh=True)
                time.sleep(SECONDS_BETWEEN_LOOKS)
        except KeyboardInterrupt:
            pass
    tables.show(still(study))


def _section(title: str, content: RenderableType) -> list[RenderableType]:
    return [Text(), Text(title, style="dim"), Padding(content, (0, 0, 0, 2))]


def _state(study: StudyData, rows: list[Trial], again: list[Trial]) -> Text:
    """How far the search and its confirmation are, and whether somebody is at work on them."""
    owner = results.driver(study.place)
    ended = [row for row in rows if row.ending.counts]
    total = f" of {study.budget.trials}" if study.budget.trials is not None else ""
    text = Text(f"{len(ended)}{total} trials")
    text.append(f" ({results.endings(rows)})" if rows else "")
    text.append(f", {_again(again)}" if again else "")
    if owner:
        text.append(f" · running, process {owner[0]} on {owner[1]}", style="cyan")
    else:
        left = study.budget.trials is not None and len(ended) < study.budget.trials
        text.append(" · not running" + (", sweep run goes on with it" if left else ""), style="dim")
    return text


def _again(rows: list[Trial]) -> str:
    """How far the confirmation is."""
    return f"{sum(row.ending.counts for row in rows)} of {words.plural(len(rows), 'confirmation run')}"
