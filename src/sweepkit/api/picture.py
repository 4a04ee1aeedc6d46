"""A running study as a piece of HTML: how far it is, the best, what trains now, the learning curves. Knows no display."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from sweepkit.report import rows as results
from sweepkit.report.figures.style import ACCENT, ENDINGS, window
from sweepkit.report.live import Board, shown
from sweepkit.report.moments import fraction
from sweepkit.report.tables import COLUMNS_MOST, goals
from sweepkit.study import words
from sweepkit.trial.trial import Ending

if TYPE_CHECKING:
    from sweepkit.report.watch import Outcome

Curve = Sequence[tuple[float, float]]
"""(epoch, the first goal's metric), oldest first."""

WIDTH, HEIGHT = 420, 190
LEFT, RIGHT, TOP, BOTTOM = 48, 8, 8, 20
CURVES_MOST = 60
"""So many learning curves are drawn, of the latest trials and the best."""

STYLE = """
<style>
.sweepkit{font:13px/1.45 system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;max-width:1000px;padding:2px 0}
.sweepkit .soft{opacity:.65}.sweepkit .parts{display:flex;flex-wrap:wrap;gap:8px 32px;align-items:flex-start}
.sweepkit h4{font-size:12px;font-weight:600;opacity:.65;margin:10px 0 2px}
.sweepkit .bar{height:6px;border-radius:3px;background:rgba(128,128,128,.25);overflow:hidden;margin:5px 0 2px}
.sweepkit .bar i{display:block;height:100%;background:%DONE%}
.sweepkit table{border-collapse:collapse;font-size:12px;margin:0;font-variant-numeric:tabular-nums}
.sweepkit table td,.sweepkit table th{padding:2px 14px 2px 0;text-align:left;white-space:nowrap;border:0;background:none}
.sweepkit table th{font-weight:400;opacity:.65;border-bottom:1px solid rgba(128,128,128,.35)}
.sweepkit table .n{text-align:right}.sweepkit table tr.first td{font-weight:600}
.sweepkit td .bar{width:70px;margin:0}.sweepkit td .bar i{background:%RUNNING%}
.sweepkit svg text{font-size:10px;fill:currentColor;opacity:.65}.sweepkit .wrong{color:%WRONG%}
</style>
"""


def html(
    board: Board,
    curves: Mapping[int, Curve],
    *,
    seconds: float,
    notes: Sequence[str] = (),
    outcome: Outcome | None = None,
    error: str = "",
) -> str:
    """Return the picture at this moment; ``seconds`` since the run began, ``outcome`` once it is over."""
    study, rows = board.study, board.rows
    head = f"<b>{escape(study.name)}</b> <span class=soft>{escape(goals(study))} · {escape(_how(board))}</span>"
    parts = [head, _bar(board.done / board.total if board.total else None), _state(board, seconds, outcome, error)]
    columns = []
    if top := shown(study, rows):
        title = "Pareto front" if len(study.objective.goals) > 1 else "best"
        columns.append(f"<h4>{title}</h4>{_best(board, [row.number for row in top])}")
    if board.running and outcome is None:
        columns.append(f"<h4>training now</h4>{_running(board)}")
    left = f"<div>{''.join(columns)}</div>" if columns else ""
    parts.append(f"<div class=parts>{left}{_curves(board, curves)}</div>")
    wrong = [row for row in rows if row.ending in (Ending.failed, Ending.infeasible, Ending.diverged)]
    for row in wrong[-3:]:
        cause = words.first_line(row.cause)
        parts.append(f"<div class=wrong>trial {row.number} {row.ending}: {escape(cause)}</div>")
    if len(wrong) > 3:
        parts.append(f"<div class=soft>and {len(wrong) - 3} more that went wrong</div>")
    parts += [f"<div class=soft>{escape(note)}</div>" for note in notes]
    return f"{_style()}<div class=sweepkit>{''.join(parts)}</div>"


def starting(notes: Sequence[str], error: str = "") -> str:
    """Return the picture of a run that has not opened its study yet."""
    said = "".join(f"<div class=soft>{escape(note)}</div>" for note in notes)
    wrong = f"<div class=wrong>{escape(error)}</div>" if error else ""
    return f"{_style()}<div class=sweepkit>{said or 'starting …'}{wrong}</div>"


def text(board: Board | None, outcome: Outcome | None, error: str = "") -> str:
    """Return the picture in one line, for what shows no HTML."""
    if board is None:
        return error or "starting"
    done = f"{len(board.ended)}/{board.total}" if board.total else words.plural(len(board.ended), "trial")
    facts = (board.study.name, error or (outcome.status if outcome else "running"), done, board.best())
    return "  ".join(fact for fact in facts if fact)


def _style() -> str:
    colors = {"DONE": Ending.complete, "RUNNING": Ending.running, "WRONG": Ending.diverged}
    found = STYLE
    for name, ending in colors.items():
        found = found.replace(f"%{name}%", ENDINGS[ending])
    return found


def _how(board: Board) -> str:
    pruner = board.study.pruner.type
    return board.study.sampler.type + ("" if pruner == "none" else f" + {pruner}")


def _bar(part: float | None) -> str:
    return "" if part is None else f"<div class=bar><i style='width:{100 * min(1.0, part):.1f}%'></i></div>"


def _state(board: Board, seconds: float, outcome: Outcome | None, error: str) -> str:
    of = f" of {board.total}" if board.total else ""
    facts = [f"{len(board.ended)}{of} trials", results.endings(board.rows), words.span(int(seconds))]
    if error:
        state = f"<span class=wrong>ended with an error: {escape(error)}</span>"
    elif outcome is None:
        state = "running" if board.running else "at work"
    elif outcome.status == "interrupted":
        state = "<b>interrupted</b>: nothing finished is lost, the same cell goes on"
    elif outcome.status == "failed":
        state = f"<span class=wrong><b>failed</b>: {escape(outcome.reason)}</span>"
    else:
        state = f"<b>done</b>: {escape(outcome.reason)}"
    return f"<div>{state} <span class=soft>· {escape(' · '.join(fact for fact in facts if fact))}</span></div>"


def _best(board: Board, numbers: Iterable[int]) -> str:
    rows = [board.ended[number] for number in numbers]
    several = len(board.study.objective.goals) > 1
    against = None if several else results.baseline(board.rows)
    names = list(dict.fromkeys(name for row in rows for name in row.params))
    joined = len(names) > COLUMNS_MOST
    heads = [("trial", "n"), *((goal.metric, "n") for goal in board.study.objective.goals)]
    heads += [("gain", "n")] if against else []
    heads += [("hyperparameters", "")] if joined else [(words.name(name), "") for name in names]
    lines = ["".join(f"<th class='{kind}'>{escape(head)}</th>" for head, kind in heads)]
    for row in rows:
        cells = [str(row.number), *map(words.value, row.values)]
        if against:
            gain = results.gain(board.study, row, against)
            cells.append("baseline" if row.number == against.number else "" if gain is None else words.difference(gain))
        given = [words.settings(row.params)] if joined else [_setting(row.params, name) for name in names]
        filled = zip([*cells, *given], heads, strict=True)
        lines.append("".join(f"<td class='{kind}'>{escape(cell)}</td>" for cell, (_, kind) in filled))
    first = "" if several else " class=first"
    return f"<table><tr>{lines[0]}</tr><tr{first}>{'</tr><tr>'.join(lines[1:])}</tr></table>"


def _setting(params: Mapping[str, object], name: str) -> str:
    return words.setting(params[name]) if name in params else ""


def _running(board: Board) -> str:
    lines = []
    for number, moment in sorted(board.running.items()):
        last = words.value(moment.history[-1]) if moment.history else "–"
        cells = [str(number), _bar(fraction(board.study, moment) or 0.0), last, escape(words.settings(moment.params))]
        lines.append("".join(f"<td>{cell}</td>" for cell in cells))
    return f"<table><tr>{'</tr><tr>'.join(lines)}</tr></table>"


def _curves(board: Board, curves: Mapping[int, Curve]) -> str:
    """Return the learning curves as a drawing: the best thick, those in training coloured, the others in the background."""
    whole = {n: [p for p in curve if math.isfinite(p[1])] for n, curve in curves.items()}
    winners = {row.number for row in results.winners(board.study, board.rows)}
    kept = {*sorted(n for n, curve in whole.items() if curve)[-CURVES_MOST:], *(winners & whole.keys())}
    goal = board.study.objective.goals[0]
    span = window([y for n in kept for _, y in whole[n]], maximize=goal.direction == "maximize")
    if span is None:
        return ""
    low, high = span
    end = max(x for n in kept for x, _ in whole[n]) or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        part = min(1.0, max(0.0, (y - low) / (high - low)))
        return LEFT + (WIDTH - LEFT - RIGHT) * x / end, HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * part

    drawn = []
    for number in sorted(kept, key=lambda n: (n in winners, n in board.running, n)):
        points = [at(x, y) for x, y in whole[number]]
        row = board.ended.get(number)
        color = ACCENT if number in winners else ENDINGS[row.ending if row else Ending.running]
        wide, opacity = (2.5, 1.0) if number in winners else (1.5, 0.9) if row is None else (1.2, 0.55)
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        drawn.append(
            f"<polyline points='{path}' fill=none stroke='{color}' stroke-width={wide} opacity={opacity}>"
            f"<title>trial {number}</title></polyline>"
        )
        drawn.append(f"<circle cx={points[-1][0]:.1f} cy={points[-1][1]:.1f} r=2.5 fill='{color}' opacity={opacity} />")
    for value in (low + 0.06 * (high - low), (low + high) / 2, high - 0.06 * (high - low)):
        _, y = at(0, value)
        drawn.insert(0, f"<line x1={LEFT} x2={WIDTH - RIGHT} y1={y:.1f} y2={y:.1f} stroke=currentColor opacity=.12 />")
        drawn.append(f"<text x={LEFT - 6} y={y + 3:.1f} text-anchor=end>{words.value(value)}</text>")
    drawn.append(f"<text x={LEFT} y={HEIGHT - 5}>0</text>")
    drawn.append(f"<text x={WIDTH - RIGHT} y={HEIGHT - 5} text-anchor=end>epoch {end:.3g}</text>")
    title = f"learning curves, {escape(goal.metric)}"
    return f"<div><h4>{title}</h4><svg width={WIDTH} height={HEIGHT}>{''.join(drawn)}</svg></div>"
