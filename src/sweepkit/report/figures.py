"""A study in figures: each function takes a study, or its evidence, and returns a plotly figure.

Pruned and failed trials are crosses or dotted, the best trial has a colour of its own, and axes span the whole space.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, combinations
from typing import Any, Literal

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sweepkit.report import mirror, style
from sweepkit.report.evidence import Evidence, configurations, evidence_of
from sweepkit.report.panels import FEWEST, differing, importances, isolation, slices
from sweepkit.report.rows import endings
from sweepkit.report.timeline import ledger, timeline
from sweepkit.study import words
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Ending, Trial

POINTS = 20_000
"""About as many points as all curves have together; longer curves are thinned."""

Line = list[tuple[float, float]]


def history(about: StudyData | Evidence, *, goal: int = 0) -> go.Figure:
    """Return every trial's value in the order tried, the best so far, and the baseline; ``goal`` counts from 0.

    Trials without a final value are crosses, at the edge where they have none or one far worse than the others.
    """
    evidence = evidence_of(about).of_goal(goal)
    ranked, metric, maximize = evidence.ranked, evidence.goal.metric, evidence.maximize
    shown = [row for row in evidence.rows if row.ending not in (Ending.waiting, Ending.running)]
    window = style.window_of(shown, maximize=maximize)
    if window is None:
        return style.nothing("No trial has a value yet.")
    drawn = go.Figure()
    if evidence.best:
        done = sorted(ranked, key=lambda row: row.number)
        marker = {"color": style.ENDINGS[Ending.complete], "size": 7}
        x, y = [row.number for row in done], [row.values[0] for row in done]
        drawn.add_trace(style.dots(done, x, y, name="complete", marker=marker))
        so_far = list(accumulate(y, max if maximize else min))
        look = {"mode": "lines", "line": {"color": style.ACCENT, "width": 2, "shape": "hv"}, "hoverinfo": "skip"}
        x, best = [*x, evidence.rows[-1].number], so_far[-1]
        drawn.add_scatter(x=x, y=[*so_far, best], name="best so far", **look)
        label = {"text": f"<b>{words.value(best)}</b>", "font": {"color": style.ACCENT}, "showarrow": False}
        drawn.add_annotation(x=evidence.best.number, y=best, yshift=14 if maximize else -14, **label)
    drawn.add_traces(style.incomplete([(row, row.number) for row in shown], window, maximize=maximize))
    if evidence.reference:
        text = {"text": "baseline", "font": style.SMALL}
        place = "bottom right" if maximize else "top right"
        line = {"color": style.SOFT, "width": 1, "dash": "dot"}
        drawn.add_hline(evidence.reference.values[0], line=line, annotation=text, annotation_position=place)
    y_axis = {"title": {"text": metric}, "range": window}
    return style.dress(drawn, 380, xaxis={"title": {"text": "trial"}}, yaxis=y_axis)


def front(about: StudyData | Evidence) -> go.Figure:
    """Return the trials of a study with several goals, a panel for each pair of goals, the Pareto front marked."""
    evidence = evidence_of(about)
    goals = evidence.study.objective.goals
    if len(goals) < 2:
        return style.nothing("A Pareto front needs several goals; this study has one.")
    if not evidence.ranked:
        return style.nothing("No trial has been trained to its end yet.")
    pairs = list(combinations(range(len(goals)), 2))
    columns, lines = min(len(pairs), 2), math.ceil(len(pairs) / 2)
    drawn = make_subplots(lines, columns, horizontal_spacing=0.12, vertical_spacing=0.2 / lines)
    for index, (left, right) in enumerate(pairs):
        at = {"row": index // columns + 1, "col": index % columns + 1}
        for trace in _pair(evidence, left, right):
            drawn.add_trace(trace.update(legendgroup=trace.name, showlegend=index == 0), **at)
        drawn.update_xaxes(title_text=goals[left].title, **at)
        drawn.update_yaxes(title_text=goals[right].title, **at)
    lost = [row for row in evidence.rows if row.ending.counts and not row.values]
    if lost:
        place = {"x": 1, "y": 1.02, "xref": "paper", "yref": "paper", "xanchor": "right", "yanchor": "bottom"}
        text = f"without values: {endings(lost)}"
        drawn.add_annotation(text=text, showarrow=False, font=style.SMALL, **place)
    return style.dress(drawn, 380 if lines == 1 else 320 * lines)


def _pair(evidence: Evidence, left: int, right: int) -> Iterator[go.Scatter]:
    """Yield the trials in two of the goals: the dominated ones, those without final values, the front."""

    def dots(rows: Sequence[Trial], **look: Any) -> go.Scatter:
        rows = sorted(rows, key=lambda row: row.values[left])
        return style.dots(rows, [row.values[left] for row in rows], [row.values[right] for row in rows], **look)

    best = evidence.front
    marker = {"color": style.ENDINGS[Ending.complete], "size": 6}
    yield dots([row for row in evidence.ranked if row not in best], name="dominated", marker=marker)
    unranked = [row for row in evidence.rows if row.values and not row.ending.ranks]
    yield from style.crosses((row, row.values[left], row.values[right]) for row in unranked)
    mode = "lines+markers" if len(evidence.study.objective.goals) == 2 else "markers"
    look = {"mode": mode, "line": {"color": style.ACCENT, "width": 1, "dash": "dot"}}
    yield dots(best, name="Pareto front", marker={"color": style.ACCENT, "size": 10}, **look)


def curves(
    about: StudyData | Evidence, *, color: str | None = None, of: Literal["evaluation", "training"] = "evaluation"
) -> go.Figure:
    """Return the learning curve of every trial, coloured by a hyperparameter, by default the most important one known.

    ``of``: the first goal at each evaluation, or the training loss. A cross ends the curve of a trial that was pruned or
    failed. Raises KeyError for a hyperparameter in which no two trials differ.
    """
    evidence, training = evidence_of(about), of == "training"
    lines = {row.number: line for row in evidence.rows if (line := _line(evidence, row, training=training))}
    if not lines:
        return style.nothing("No trial has logged a training loss." if training else "No trial has been evaluated yet.")
    rows = [row for row in evidence.rows if row.number in lines]
    tones, scale = _tones(evidence, rows, color)
    logged = all(evidence.course(row).evaluations for row in rows)
    across = "step" if training else "epoch" if logged else "evaluation"
    drawn = go.Figure([_curve(row, lines[row.number], best=row == evidence.best) for row in rows])
    for trace, tone in zip(drawn.data, tones, strict=True):
        hover = f"%{{text}}<br>{across} %{{x:.4g}}: %{{y:.5g}}<extra></extra>"
        trace.update(line_color=tone, marker_color=tone, hovertemplate=hover)
    if evidence.best and evidence.best.number in lines:
        x, y = lines[evidence.best.number][-1]
        label = {"text": f"trial {evidence.best.number}", "font": {"color": style.ACCENT, "size": 11}}
        drawn.add_annotation(x=x, y=y, xanchor="left", xshift=6, showarrow=False, **label)
    drawn.add_traces([*style.crosses((r, *lines[r.number][-1]) for r in rows if r.ending in style.CUT), *scale])
    window = style.window([y for line in lines.values() for _, y in line], maximize=evidence.maximize and not training)
    y_axis = {"title": {"text": "training loss" if training else evidence.goal.metric}, "range": window}
    layout = {"showlegend": True, "margin": {"r": 90, "t": 48}}
    return style.dress(drawn, 420, xaxis={"title": {"text": across}}, yaxis=y_axis, **layout)


def _curve(row: Trial, line: Line, *, best: bool) -> go.Scatter:
    x, y = zip(*line, strict=True)
    width, size, opacity = (3.5, 7, 1.0) if best else (1.3, 4, 0.75)
    look = {"mode": "lines+markers" if len(x) <= 12 else "lines", "showlegend": False, "opacity": opacity}
    return go.Scatter(x=x, y=y, text=style.hover(row), line={"width": width}, marker={"size": size}, **look)


def _line(evidence: Evidence, row: Trial, *, training: bool) -> Line:
    """Return a trial's curve, oldest point first, thinned, without what is not finite."""
    course = evidence.course(row)
    line: Line = [(float(step), loss) for step, loss in course.losses]
    if not training:
        line = [(event.epoch, event.values[0]) for event in course.evaluations if event.values]
        line = line if course.evaluations else [(float(number), value) for number, value in row.intermediate.items()]
    line = [(x, y) for x, y in line if math.isfinite(y)]
    most = max(20, POINTS // max(1, len(evidence.rows)))
    return line[:: math.ceil(len(line) / most)] if len(line) > most else line


def _tones(evidence: Evidence, rows: Sequence[Trial], color: str | None) -> tuple[list[str], list[go.Scatter]]:
    """Return the colour of each trial by a hyperparameter, and the colour bar; one colour where no two trials differ."""
    known = configurations(evidence)
    varied = differing(known[row.number] for row in rows)
    if color is not None and color not in varied:
        raise KeyError(f"no two trials differ in {color}; they differ in {', '.join(varied) or 'nothing'}")
    if not varied:
        return [style.ENDINGS[Ending.complete]] * len(rows), []
    enough = len(evidence.ranked) >= FEWEST
    shares = mirror.importances(evidence) if enough and color is None else {}
    by_importance = [name for name in shares if name in varied]
    dimension = varied[color or next(iter([*by_importance, *varied]))]
    labels = [known[row.number].get(dimension.key) for row in rows]
    tones = [style.NOWHERE if pair is None else style.shade(style.position(*pair)) for pair in labels]
    return tones, [style.colorbar(dimension.key, *style.ticks(dimension))]


def parallel(about: StudyData | Evidence) -> go.Figure:
    """Return every trial as a line across the goals and all hyperparameters, each axis over its whole range.

    Darker is better in the first goal. The best (the Pareto front) is marked; pruned and failed trials are dotted. The line of
    a trial without a hyperparameter passes over its axis.
    """
    evidence = evidence_of(about)
    ranked, known = evidence.ranked, configurations(evidence)
    metrics = [goal.metric for goal in evidence.study.objective.goals]
    axes = differing(known.values())
    if not ranked or not axes:
        return style.nothing("Parallel coordinates need trials that differ, and one that was trained to its end.")
    rows = [row for row in evidence.rows if row.ending.counts]
    whole = [row.values for row in rows if len(row.values) == len(metrics)]
    ends = [(min(values), max(values)) for values in zip(*whole, strict=True)]
    best = [evidence.best] if evidence.best else evidence.front
    window = _window([row.values[0] for row in ranked], maximize=evidence.maximize)
    drawn = go.Figure()
    named: set[str | None] = set()
    for row in sorted(rows, key=lambda row: row in best):
        y = _shares(row, ends) + [style.position(*pair) if pair else None for pair in map(known[row.number].get, axes)]
        name = None if row.ending.ranks else str(row.ending)
        look = {"mode": "lines", "connectgaps": True, "opacity": 0.75, "name": name, "legendgroup": name}
        look |= {
            "showlegend": name not in {None, *named},
            "line": _look(row, window, best=row in best, maximize=evidence.maximize),
        }
        named.add(name)
        drawn.add_trace(style.dots([row] * len(y), range(len(y)), y, **look))
    worst_and_best = sorted(window, reverse=not evidence.maximize)
    drawn.add_trace(style.colorbar(metrics[0], [0, 1], list(map(words.value, worst_and_best))))
    ticks = [([0.0, 1.0], [f"{end:.4g}" for end in pair]) for pair in ends]
    ticks += [style.ticks(dimension) for dimension in axes.values()]
    return _with_axes(drawn, [*metrics, *axes], ticks)


def _window(values: Sequence[float], *, maximize: bool) -> tuple[float, float]:
    """Return the ends of the values that the colours tell apart."""
    low, high = style.window(values, maximize=maximize) or (0.0, 1.0)
    inside = [value for value in values if low <= value <= high]
    return min(inside), max(inside)


def _shares(row: Trial, ends: Sequence[tuple[float, float]]) -> list[float | None]:
    """Return where a trial's values lie between the ends of each goal, from 0 to 1."""
    if len(row.values) != len(ends):
        return [None] * len(ends)
    return [(value - low) / (high - low or 1.0) for value, (low, high) in zip(row.values, ends, strict=True)]


def _look(row: Trial, window: tuple[float, float], *, best: bool, maximize: bool) -> dict[str, Any]:
    """Return the look of a trial's line in the parallel coordinates."""
    if best:
        return {"color": style.ACCENT, "width": 3}
    if not row.ending.ranks or not row.values:
        return {"color": style.ENDINGS[row.ending], "width": 1.3, "dash": "dot"}
    part = (row.values[0] - window[0]) / (window[1] - window[0] or 1.0)
    return {"color": style.shade(part if maximize else 1 - part), "width": 1.3}


def _with_axes(drawn: go.Figure, names: Sequence[str], ticks: Sequence[tuple[list[float], list[str]]]) -> go.Figure:
    """Draw the vertical axes, with texts at their ticks."""
    look = {"showarrow": False, "font": {"size": 10, "color": style.SOFT}, "bgcolor": "rgba(255,255,255,0.75)"}
    for place, (marks, texts) in enumerate(ticks):
        drawn.add_vline(x=place, line={"color": style.RULE, "width": 1}, layer="below")
        for mark, text in zip(marks, texts, strict=True):
            drawn.add_annotation(x=place, y=mark, text=text, xanchor="left", xshift=2, **look)
    short = [name if len(name) <= 20 else f"…{name[-19:]}" for name in names]
    across = {"tickvals": list(range(len(names))), "ticktext": short, "range": [-0.2, len(names) - 0.5]}
    hidden = {"visible": False, "range": [-0.04, 1.04]}
    margin = {"l": 50, "r": 20, "t": 30, "b": 60}
    return style.dress(drawn, 440, xaxis={"showgrid": False, **across}, yaxis=hidden, margin=margin)


FIGURES: dict[str, Callable[..., go.Figure]] = {
    "history": history,
    "front": front,
    "curves": curves,
    "importances": importances,
    "isolation": isolation,
    "slices": slices,
    "parallel": parallel,
    "timeline": timeline,
    "ledger": ledger,
}
"""Every figure by its name."""
