"""How every figure looks: colours with one meaning each, type, axes, and the note where there is nothing to draw.

Knows no study.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from sweepkit.study.parameters import Choice
from sweepkit.study.space import Dimension
from sweepkit.trial.trial import Ending

INK = "#1f2a33"
SOFT = "#6b7680"
RULE = "#dcd8d0"
ACCENT = "#b4532a"
"""The best, wherever it is drawn."""
IDLE = "#ece8e0"
ENDINGS = {
    Ending.complete: "#2b5c8a",
    Ending.pruned: "#b5aea1",
    Ending.infeasible: "#d09a2f",
    Ending.diverged: "#a8432f",
    Ending.failed: "#5f1a2c",
    Ending.stopped: "#8b97a3",
    Ending.running: "#3c8f86",
    Ending.waiting: "#dcdcdc",
}
"""Ending → its colour."""
SCALE = [[0.0, "#dcb97f"], [0.35, "#9fa98a"], [0.7, "#3f7f8c"], [1.0, "#173a5e"]]
"""From little to much; also readable where colours are printed grey."""
FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
HEIGHT = 380
PANEL = 250
COLUMNS = 3

_AXIS = {
    "gridcolor": "#efece6",
    "linecolor": RULE,
    "zeroline": False,
    "ticks": "outside",
    "tickcolor": RULE,
    "ticklen": 4,
    "automargin": True,
    "title": {"standoff": 8, "font": {"size": 12, "color": SOFT}},
    "tickfont": {"size": 11, "color": SOFT},
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
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 11, "color": SOFT}},
        "hovermode": "closest",
        "modebar": {"remove": ["sendChartToCloud", "select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"]},
        "bargap": 0.35,
    }
)


def figure(height: int = HEIGHT, **layout: Any) -> go.Figure:
    """Return an empty figure in the house style."""
    return dress(go.Figure(), height, **layout)


def dress(drawn: go.Figure, height: int = HEIGHT, **layout: Any) -> go.Figure:
    """Give a figure the house style, whoever drew it, and return it."""
    drawn.update_layout(template=TEMPLATE, height=height, title=None, **layout)
    return drawn


def nothing(why: str) -> go.Figure:
    """Return a low figure that says why there is nothing to draw."""
    drawn = figure(110, xaxis={"visible": False}, yaxis={"visible": False}, margin={"l": 0, "r": 0, "t": 0, "b": 0})
    drawn.add_annotation(
        text=why, showarrow=False, font={"color": SOFT, "size": 13}, x=0.5, y=0.5, xref="paper", yref="paper"
    )
    return drawn


def shade(part: float) -> str:
    """Return the colour at a part (0 to 1) of the scale from little to much."""
    return str(sample_colorscale(SCALE, [min(1.0, max(0.0, part))])[0])


def window(values: Iterable[float], *, maximize: bool) -> tuple[float, float] | None:
    """Return the range worth drawing: everything, but for a few values that lie far off on the bad side.

    Far off: further than three times the distance between the quartiles below the lower one. None: there is no value.

    >>> window([0.9, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96, -40.0], maximize=True)[0] > 0.7
    True
    """
    there = sorted(value for value in values if math.isfinite(value))
    if not there:
        return None
    low, high = there[0], there[-1]
    if len(there) >= 5:
        lower, _, upper = statistics.quantiles(there, n=4)
        far = 3 * (upper - lower)
        if far > 0:
            low, high = (max(low, lower - far), high) if maximize else (low, min(high, upper + far))
    pad = 0.06 * (high - low) or abs(high) * 0.05 or 0.05
    return low - pad, high + pad


def axis(dimension: Dimension) -> dict[str, Any]:
    """Return the axis of a parameter: logarithmic where it is drawn so, its choices in their order."""
    parameter = dimension.parameter
    if isinstance(parameter, Choice):
        return {
            "type": "category",
            "categoryorder": "array",
            "categoryarray": [text(label) for label in parameter.labels],
        }
    if parameter.log:
        return {"type": "log", "exponentformat": "e", "dtick": 1, "minor": {"ticks": ""}}
    return {"type": "linear", "nticks": 6}


def text(label: Any) -> str:
    """Return a choice as an axis names it."""
    return str(label).lower() if isinstance(label, bool) or label is None else str(label)


def mark(dimension: Dimension, label: Any) -> Any:
    """Return a value as its axis takes it: a choice as text, a number as it is."""
    return text(label) if isinstance(dimension.parameter, Choice) else label


def position(dimension: Dimension, label: Any) -> float:
    """Return where in its domain a value lies, from 0 to 1."""
    return dimension.parameter.share(label)


def ticks(dimension: Dimension) -> tuple[list[float], list[str]]:
    """Return (position, text) of the marks a colour bar shows for a parameter."""
    from sweepkit.study.words import setting

    parameter = dimension.parameter
    if isinstance(parameter, Choice):
        return [position(dimension, label) for label in parameter.labels], [text(label) for label in parameter.labels]
    if parameter.log:
        first, last = math.ceil(math.log10(parameter.low) - 1e-9), math.floor(math.log10(parameter.high) + 1e-9)
        marks: Sequence[float] = [10.0**power for power in range(first, last + 1)]
        marks = marks if len(marks) > 1 else [parameter.low, parameter.high]
    else:
        marks = [parameter.low + (parameter.high - parameter.low) * quarter / 4 for quarter in range(5)]
    return [parameter.share(mark) for mark in marks], [setting(float(mark)) for mark in marks]
