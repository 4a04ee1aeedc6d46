"""Figures of the hyperparameters: slices, isolation plots, and importances."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sweepkit.report import mirror, style
from sweepkit.report.evidence import Configuration, Evidence, configurations, evidence_of
from sweepkit.study.parameters import Choice, Scalar
from sweepkit.study.space import Dimension
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Ending, Trial

FEWEST = 10
"""With fewer complete trials, importances are noise and are withheld."""
BINS = 8
"""The most parts into which an isolation plot divides a numeric range."""
COLUMNS = 3
"""Panels in a row."""

Point = tuple[Trial, Scalar]
Panel = tuple[Dimension, list[Point]]


def slices(about: StudyData | Evidence) -> go.Figure:
    """Return every hyperparameter against the first goal, a panel each; darker points came later.

    Trials without a final value are crosses: at the value they had, or at the edge.
    """
    evidence = evidence_of(about).of_goal(0)
    drawable, known = panels(evidence), configurations(evidence)
    if not drawable:
        return style.nothing("Slices need complete trials that differ.")
    window = _window(evidence, drawable)
    traces = []
    for dimension, points in drawable:
        key, numbers = dimension.key, [row.number for row, _ in points]
        shades = {"color": numbers, "colorscale": style.SCALE, "size": 6}
        places = [(row, style.mark(*known[row.number][key])) for row in evidence.rows if key in known[row.number]]
        crosses = style.incomplete(places, window, maximize=evidence.maximize)
        traces.append([_dots(dimension, points, marker=shades), *crosses, *_ring(evidence, dimension, points)])
    return _drawn(evidence, drawable, traces)


def isolation(about: StudyData | Evidence) -> go.Figure:
    """Return, for each scientific hyperparameter, the best value over all others at each of its values.

    Numeric ranges are divided into parts of equal width. This is the comparison that a study asks for: what each value can
    reach when everything else is tuned for it (Godbole et al. 2023, Deep Learning Tuning Playbook).
    """
    evidence = evidence_of(about).of_goal(0)
    drawable = [panel for panel in panels(evidence) if panel[0].parameter.role == "scientific"]
    if not drawable:
        return style.nothing("Isolation plots need scientific hyperparameters in which complete trials differ.")
    traces, blue = [], style.ENDINGS[Ending.complete]
    look: dict[str, Any] = {"marker": {"color": blue, "size": 8}, "line": {"color": blue, "width": 2}}
    for dimension, points in drawable:
        every = _dots(dimension, points, marker={"color": style.NOWHERE, "size": 6})
        best = _dots(dimension, reached(evidence, dimension, points), mode="lines+markers", **look)
        traces.append([every, best, *_ring(evidence, dimension, points)])
    return _drawn(evidence, drawable, traces)


def importances(about: StudyData | Evidence) -> go.Figure:
    """Return each hyperparameter's share in what sets good trials apart (PED-ANOVA), a bar for each goal.

    Withheld with fewer than ten complete trials.
    """
    evidence = evidence_of(about)
    goals, trials = evidence.study.objective.goals, len(evidence.answer.ranked)
    if trials < FEWEST:
        return style.nothing(f"Importances need {FEWEST} complete trials; this study has {trials}.")
    study = mirror.optuna_study(evidence)
    shares = [mirror.importances(study, goal) for goal in range(len(goals))]
    if not any(shares):
        return style.nothing(f"No hyperparameter sets the good ones of {trials} complete trials apart.")
    look = {"orientation": "h", "texttemplate": "%{x:.0%}", "hovertemplate": "%{y}: %{x:.1%}<extra></extra>"}
    bars = [
        go.Bar(x=list(share.values()), y=list(share), name=goal.metric, cliponaxis=False, **look)
        for goal, share in zip(goals, shares, strict=True)
    ]
    largest = max(share for each in shares for share in each.values())
    title = {"text": f"share, over {trials} complete trials"}
    return style.dressed(
        go.Figure(bars),
        104 + 30 * max(map(len, shares)) * max(1, len(goals) - 1),
        xaxis={"title": title, "tickformat": ".0%", "range": [0, 1.08 * largest]},
        yaxis={"autorange": "reversed"},
        showlegend=len(goals) > 1,
    )


def differing(configured: Iterable[Configuration]) -> dict[str, Dimension]:
    """Return the dimensions that do not have the same value in all of these configurations, by key."""
    seen: dict[str, tuple[Dimension, set[str]]] = {}
    for chosen in configured:
        for key, (dimension, label) in chosen.items():
            seen.setdefault(key, (dimension, set()))[1].add(repr(label))
    return {key: dimension for key, (dimension, labels) in seen.items() if len(labels) > 1}


def panels(evidence: Evidence) -> list[Panel]:
    """Return each dimension in which complete trials differ, with the complete trials that have a value of it."""
    known = configurations(evidence)
    able = [row for row in evidence.rows if row.ending.ranks and row.values and math.isfinite(row.values[0])]
    return [
        (dimension, [(row, known[row.number][key][1]) for row in able if key in known[row.number]])
        for key, dimension in differing(known[row.number] for row in able).items()
    ]


def reached(evidence: Evidence, dimension: Dimension, points: Sequence[Point]) -> list[Point]:
    """Return the best trial at each choice, or in each part of a numeric range, in the order of the axis."""
    parameter, tops = dimension.parameter, dict[int, Point]()
    bins = min(BINS, max(3, round(math.sqrt(len(points)))))
    for row, label in points:
        place = style.position(dimension, label)
        part = round(place * 1000) if isinstance(parameter, Choice) else min(bins - 1, int(place * bins))
        if part not in tops or evidence.better(row.values[0], tops[part][0].values[0]) > 0:
            tops[part] = (row, label)
    return [tops[part] for part in sorted(tops)]


def _window(evidence: Evidence, drawable: Sequence[Panel]) -> tuple[float, float]:
    values = [row.values[0] for _, points in drawable for row, _ in points]
    return style.window(values, maximize=evidence.maximize) or (0.0, 1.0)


def _drawn(evidence: Evidence, drawable: Sequence[Panel], traces: Sequence[Sequence[go.Scatter]]) -> go.Figure:
    """Return the panels with their traces, x over the whole range of each dimension; each ending once in the legend."""
    columns, lines = min(COLUMNS, len(drawable)), math.ceil(len(drawable) / COLUMNS)
    space = {"horizontal_spacing": 0.03, "vertical_spacing": 0.28 / lines if lines > 1 else 0.1}
    drawn = style.dressed(make_subplots(lines, columns, shared_yaxes=True, **space), 60 + 250 * lines)
    window, seen = _window(evidence, drawable), {None}
    for index, (dimension, _) in enumerate(drawable):
        at, key = {"row": index // COLUMNS + 1, "col": index % COLUMNS + 1}, dimension.key
        drawn.update_xaxes(title_text=key if len(key) <= 34 else f"…{key[-33:]}", **style.axis(dimension), **at)
        drawn.update_yaxes(range=window, title_text=evidence.goal.metric if at["col"] == 1 else None, **at)
        for trace in traces[index]:
            drawn.add_trace(trace.update(showlegend=trace.name not in seen, legendgroup=trace.name), **at)
            seen.add(trace.name)
    return drawn


def _ring(evidence: Evidence, dimension: Dimension, points: Sequence[Point]) -> Iterator[go.Scatter]:
    """Yield the mark of the best trial, where it is among the points."""
    mine = [(row, label) for row, label in points if evidence.best and row.number == evidence.best.number]
    if mine:
        yield _dots(
            dimension, mine, marker={"color": style.ACCENT, "size": 11, "line": {"color": "white", "width": 1.5}}
        )


def _dots(dimension: Dimension, points: Sequence[Point], **look: Any) -> go.Scatter:
    x, y = [style.mark(dimension, label) for _, label in points], [row.values[0] for row, _ in points]
    return style.dots([row for row, _ in points], x, y, **look)
