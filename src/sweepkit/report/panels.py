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
    drawable = panels(evidence)
    if not drawable:
        return style.nothing("Slices need trials that have values and differ.")
    traces = []
    for dimension, points in drawable:
        shades = {"color": [row.number for row, _ in points], "colorscale": style.SCALE, "size": 6}
        traces.append([_dots(dimension, points, marker=shades)])
    return _drawn(evidence, drawable, traces)


def isolation(about: StudyData | Evidence) -> go.Figure:
    """Return, for each scientific hyperparameter, the best value over all others at each of its values.

    Numeric ranges are divided into parts of equal width, each with a line at the best value measured there; crosses are
    trials without a final value, whose values count. This is the comparison that a study asks for: what each value can reach
    when everything else is tuned for it (Godbole et al. 2023, Deep Learning Tuning Playbook).
    """
    evidence = evidence_of(about).of_goal(0)
    drawable = [panel for panel in panels(evidence) if panel[0].parameter.role == "scientific"]
    if not drawable:
        return style.nothing("Isolation plots need scientific hyperparameters in which trials with values differ.")
    traces, blue, known = [], style.ENDINGS[Ending.complete], configurations(evidence)
    for dimension, points in drawable:
        key, measured = dimension.key, [row for row in evidence.ended if row.values]
        bins, reachable = (
            _bins(points),
            [(row, known[row.number][key][1]) for row in measured if key in known[row.number]],
        )
        tops = best_along(evidence, dimension, reachable, bins)
        every = _dots(dimension, points, marker={"color": style.NOWHERE, "size": 6})
        best = _dots(dimension, tops, marker={"color": blue, "size": 8})
        traces.append([every, *_steps(dimension, tops, bins), best])
    return _drawn(evidence, drawable, traces)


def _steps(dimension: Dimension, tops: Sequence[Point], bins: int) -> Iterator[go.Scatter]:
    """Yield a line over each part of a numeric range that has trials, at their best value; choices are not joined."""
    parameter = dimension.parameter
    if isinstance(parameter, Choice):
        return
    x, y = list[float | None](), list[float | None]()
    for row, label in tops:
        part = min(bins - 1, int(style.position(dimension, label) * bins))
        x += [*(parameter.real_at(edge / bins) for edge in (part, part + 1)), None]
        y += [row.values[0], row.values[0], None]
    line = {"color": style.ENDINGS[Ending.complete], "width": 2}
    yield go.Scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip")


def _bins(points: Sequence[Point]) -> int:
    """Return into how many parts a numeric range with these points is divided."""
    return min(BINS, max(3, round(math.sqrt(len(points)))))


def importances(about: StudyData | Evidence) -> go.Figure:
    """Return each hyperparameter's share in what sets good trials apart (PED-ANOVA), a bar for each goal.

    Withheld with fewer than ten complete trials.
    """
    evidence = evidence_of(about)
    goals, trials = evidence.study.objective.goals, len(evidence.ranked)
    if trials < FEWEST:
        return style.nothing(f"Importances need {FEWEST} complete trials; this study has {trials}.")
    shares = [mirror.importances(evidence, goal) for goal in range(len(goals))]
    if not any(shares):
        return style.nothing(f"No hyperparameter sets the good ones of {trials} complete trials apart.")
    look = {"orientation": "h", "texttemplate": "%{x:.0%}", "hovertemplate": "%{y}: %{x:.1%}<extra></extra>"}
    bars = [
        go.Bar(x=list(share.values()), y=list(share), name=goal.metric, cliponaxis=False, **look)
        for goal, share in zip(goals, shares, strict=True)
    ]
    largest = max(share for each in shares for share in each.values())
    title = {"text": f"share, over {trials} complete trials"}
    return style.dress(
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
    """Return each dimension in which ended trials differ, with the complete trials that have a value of it.

    Nothing where no ended trial has a value.
    """
    known, ended = configurations(evidence), evidence.ended
    if not any(row.values for row in ended):
        return []
    return [
        (dimension, [(row, known[row.number][key][1]) for row in evidence.ranked if key in known[row.number]])
        for key, dimension in differing(known[row.number] for row in ended).items()
    ]


def best_along(evidence: Evidence, dimension: Dimension, points: Sequence[Point], bins: int) -> list[Point]:
    """Return the best trial at each choice, or in each part of a numeric range, in the order of the axis."""
    parameter, tops = dimension.parameter, dict[int, Point]()
    for row, label in points:
        place = style.position(dimension, label)
        part = round(place * 1000) if isinstance(parameter, Choice) else min(bins - 1, int(place * bins))
        if part not in tops or evidence.better(row.values[0], tops[part][0].values[0]) > 0:
            tops[part] = (row, label)
    return [tops[part] for part in sorted(tops)]


def _drawn(evidence: Evidence, drawable: Sequence[Panel], traces: Sequence[Sequence[go.Scatter]]) -> go.Figure:
    """Return the panels with their traces, the incomplete trials and the best, x over each dimension's whole range.

    Each ending is in the legend once.
    """
    columns, lines = min(COLUMNS, len(drawable)), math.ceil(len(drawable) / COLUMNS)
    space = {"horizontal_spacing": 0.03, "vertical_spacing": 0.28 / lines if lines > 1 else 0.1}
    drawn = style.dress(make_subplots(lines, columns, shared_yaxes=True, **space), 60 + 250 * lines)
    window, known, seen = style.window_of(evidence.rows, maximize=evidence.maximize), configurations(evidence), {None}
    assert window is not None, "panels are of trials with values"
    for index, (dimension, points) in enumerate(drawable):
        at, key = {"row": index // COLUMNS + 1, "col": index % COLUMNS + 1}, dimension.key
        drawn.update_xaxes(title_text=key if len(key) <= 34 else f"…{key[-33:]}", **style.axis(dimension), **at)
        drawn.update_yaxes(range=window, title_text=evidence.goal.metric if at["col"] == 1 else None, **at)
        places = [(row, style.mark(*known[row.number][key])) for row in evidence.ended if key in known[row.number]]
        crosses = style.incomplete(places, window, maximize=evidence.maximize)
        for trace in [*traces[index], *crosses, *_ring(evidence, dimension, points)]:
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
