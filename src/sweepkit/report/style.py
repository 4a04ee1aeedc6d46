"""How figures look: colours with one meaning each, the plotly template, hover texts, axes over a whole range."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from sweepkit.study import words
from sweepkit.study.files import first_line
from sweepkit.study.parameters import Choice, Scalar
from sweepkit.study.space import Dimension
from sweepkit.trial.trial import Ending, Trial

INK = "#1f2a33"
SOFT = "#6b7680"
RULE = "rgba(31, 42, 51, 0.22)"
GRID = "rgba(31, 42, 51, 0.08)"
"""Ink that lets the page show through, as a dark page inverts the figures but not itself."""
ACCENT = "#b4532a"
"""The best trial, in every figure."""
IDLE = "rgba(31, 42, 51, 0.1)"
NOWHERE = "#bdb5a8"
"""Of a trial that does not have the hyperparameter a figure is coloured by."""
ENDINGS = {
    Ending.complete: "#2b5c8a",
    Ending.pruned: "#b5aea1",
    Ending.infeasible: "#d09a2f",
    Ending.diverged: "#a8432f",
    Ending.failed: "#5f1a2c",
    Ending.stopped: "#8b97a3",
    Ending.paused: "#7a5c86",
    Ending.running: "#3c8f86",
    Ending.waiting: "#dcdcdc",
}
CUT = (Ending.pruned, Ending.infeasible, Ending.diverged, Ending.failed)
"""Endings before a trial's training was over; such trials are crosses in every figure."""
SCALE = [[0.0, "#dcb97f"], [0.35, "#9fa98a"], [0.7, "#3f7f8c"], [1.0, "#173a5e"]]
"""From low to high; stays monotonic in greyscale."""
FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
SMALL = {"size": 11, "color": SOFT}

_AXIS = {
    "gridcolor": GRID,
    "linecolor": RULE,
    "zeroline": False,
    "ticks": "outside",
    "tickcolor": RULE,
    "ticklen": 4,
    "automargin": True,
    "title": {"standoff": 8, "font": {"size": 12, "color": SOFT}},
    "tickfont": SMALL,
}
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 12, "color": INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "colorway": [ENDINGS[Ending.complete], ACCENT, "#3c8f86", "#d09a2f", "#7a5c86", SOFT],
        "margin": {"l": 60, "r": 20, "t": 34, "b": 48},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "hoverlabel": {"bgcolor": "white", "bordercolor": RULE, "font": {"family": FONT, "size": 12, "color": INK}},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": SMALL},
        "hovermode": "closest",
        "modebar": {
            "bgcolor": "rgba(0,0,0,0)",
            "color": SOFT,  # else what stands out from the background, which counts as black here
            "activecolor": INK,
            "remove": ["sendChartToCloud", "select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
        },
        "bargap": 0.35,
    }
)


def dress(drawn: go.Figure, height: int, **layout: Any) -> go.Figure:
    """Give a figure the template and a height in pixels, and return it."""
    drawn.layout.title = None
    return drawn.update_layout(template=TEMPLATE, height=height, **layout)


def unit(seconds: float) -> tuple[str, float]:
    """Return the unit for an axis that reaches so far, and its seconds."""
    return ("seconds", 1.0) if seconds < 120 else ("minutes", 60.0) if seconds < 7200 else ("hours", 3600.0)


def nothing(why: str) -> go.Figure:
    """Return a low figure that says why there is nothing to draw."""
    hidden = {"visible": False}
    drawn = dress(go.Figure(), 110, xaxis=hidden, yaxis=hidden, margin={"l": 0, "r": 0, "t": 0, "b": 0})
    place = {"x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper"}
    return drawn.add_annotation(text=why, showarrow=False, font={"color": SOFT, "size": 13}, **place)


def hover(row: Trial) -> str:
    """Return a trial's number, ending, values and hyperparameters as lines of HTML, 14 at most."""
    values = ", ".join(words.value(value) for value in row.values)
    lines = [f"<b>trial {row.number}</b> · {row.ending}{f' · {values}' if values else ''}"]
    if row.cause:
        lines.append(escape(first_line(row.cause)[:90]))
    lines += [f"{escape(name)} = {escape(words.setting(value))}" for name, value in row.params.items()]
    more = len(lines) - 14
    return "<br>".join([*lines[:14], *([f"and {more} more"] if more > 0 else [])])


def dots(rows: Sequence[Trial], x: Iterable[Any], y: Iterable[Any], **look: Any) -> go.Scatter:
    """Return a trace with a point for each trial, and the trials' texts; ``look`` are options of plotly's Scatter."""
    look = {"mode": "markers", "hovertemplate": "%{text}<extra></extra>", **look}
    return go.Scatter(x=list(x), y=list(y), text=[hover(row) for row in rows], **look)


def crosses(points: Iterable[tuple[Trial, Any, float]]) -> list[go.Scatter]:
    """Return trials at (x, y) as crosses, a trace for each ending; complete ones are off the scale."""
    traces, points = [], list(points)
    for ending in (Ending.complete, *CUT, Ending.stopped, Ending.paused):
        if some := [point for point in points if point[0].ending is ending]:
            marker = {"symbol": "x-thin", "size": 7, "line": {"width": 1.5, "color": ENDINGS[ending]}}
            name = f"{ending}, off the scale" if ending.ranks else str(ending)
            traces.append(dots(*zip(*some, strict=True), name=name, marker=marker, cliponaxis=False))
    return traces


def incomplete(places: Iterable[tuple[Trial, Any]], window: tuple[float, float], *, maximize: bool) -> list[go.Scatter]:
    """Return the trials at x that are not ranked or lie outside the window as crosses: at their value or the worse edge."""
    points, edge = [], window[0] if maximize else window[1]
    for row, x in places:
        inside = bool(row.values) and window[0] <= row.values[0] <= window[1]
        if not (row.ending.ranks and inside):
            points.append((row, x, row.values[0] if inside else edge))
    return crosses(points)


def shade(part: float) -> str:
    """Return the colour at a part (0 to 1) of the scale."""
    return str(sample_colorscale(SCALE, [min(1.0, max(0.0, part))])[0])


def colorbar(title: str, marks: Sequence[float], texts: Sequence[str]) -> go.Scatter:
    """Return an invisible trace that adds the scale of colours, with texts at marks from 0 to 1."""
    bar = {"title": {"text": title, "side": "right"}, "thickness": 12, "outlinewidth": 0, "len": 0.9, "tickfont": SMALL}
    bar |= {"tickvals": marks, "ticktext": texts}
    marker = {"color": [0], "cmin": 0, "cmax": 1, "colorscale": SCALE, "colorbar": bar}
    return go.Scatter(x=[None], y=[None], mode="markers", marker=marker, showlegend=False)


def window(values: Iterable[float], *, maximize: bool) -> tuple[float, float] | None:
    """Return the range worth drawing, None without a finite value: all values but outliers on the bad side.

    An outlier is more than three interquartile ranges beyond the quartile of that side.

    >>> window([0.9, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96, -40.0], maximize=True)[0] > 0.7
    True
    """
    finite = sorted(value for value in values if math.isfinite(value))
    if not finite:
        return None
    low, high = finite[0], finite[-1]
    if len(finite) >= 5:
        lower, _, upper = statistics.quantiles(finite, n=4)
        far = 3 * (upper - lower)
        if far > 0:
            low, high = (max(low, lower - far), high) if maximize else (low, min(high, upper + far))
    pad = 0.06 * (high - low) or abs(high) * 0.05 or 0.05
    return low - pad, high + pad


def window_of(rows: Iterable[Trial], *, maximize: bool) -> tuple[float, float] | None:
    """Return the range worth drawing of these trials: that of the complete ones, up to the best value of any trial."""
    valued = [(row.values[0], row.ending.ranks) for row in rows if row.values]
    every, complete = [value for value, _ in valued], [value for value, ranks in valued if ranks]
    best = {(max if maximize else min)(every)} if every else set()
    return window([*complete, *best.difference(complete)] if complete else every, maximize=maximize)


def axis(dimension: Dimension) -> dict[str, Any]:
    """Return an x axis over a hyperparameter's whole range: all choices in order, logarithmic where it is searched so."""
    parameter = dimension.parameter
    if isinstance(parameter, Choice):
        marks = [mark(dimension, label) for label in parameter.labels]
        return {
            "type": "category",
            "categoryorder": "array",
            "categoryarray": marks,
            "range": [-0.5, len(marks) - 0.5],
            "tickvals": marks,
            "ticktext": [words.setting(label, width=16) for label in parameter.labels],
        }
    low, high = float(parameter.low), float(parameter.high)
    if parameter.log:
        low, high = math.log10(low), math.log10(high)
    pad = 0.03 * (high - low)
    common = {"range": [low - pad, high + pad]}
    if not parameter.log:
        return {"type": "linear", "nticks": 6, **common}
    return {"type": "log", "exponentformat": "e", **({"dtick": 1} if high - low > 1.5 else {"nticks": 4}), **common}


def mark(dimension: Dimension, label: Scalar) -> Scalar:
    """Return a value as the axis has it: numbers as they are, choices as Optuna's figures write them."""
    return repr(label) if isinstance(dimension.parameter, Choice) else label


def position(dimension: Dimension, label: Any) -> float:
    """Return where in its range a value lies, from 0 to 1."""
    return dimension.parameter.share(label)


def ticks(dimension: Dimension) -> tuple[list[float], list[str]]:
    """Return positions (0 to 1) and texts of the ticks of a colour bar or a parallel axis: all choices, or three values."""
    parameter = dimension.parameter
    marks = parameter.labels if isinstance(parameter, Choice) else [parameter.at(share) for share in (0.0, 0.5, 1.0)]
    return [position(dimension, mark) for mark in marks], [words.setting(mark) for mark in marks]
