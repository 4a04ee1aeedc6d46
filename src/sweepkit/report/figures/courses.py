"""How training went: learning curves coloured by a hyperparameter. Knows no slot and no hour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import plotly.graph_objects as go

from sweepkit.report.evidence import Course, Evidence, configuration, gather
from sweepkit.report.figures import style
from sweepkit.report.figures.hover import of_trial
from sweepkit.study.parameters import Scalar
from sweepkit.study.space import Dimension
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Trial

POINTS = 20_000
"""So many points all curves together have, about; longer ones are thinned."""


def curves(
    about: StudyData | Evidence, *, color: str | None = None, of: Literal["evaluation", "training"] = "evaluation"
) -> go.Figure:
    """Return the learning curve of every trial, coloured by a hyperparameter; a menu chooses another one.

    ``color`` is the one to begin with; by default the most important. ``of``: the first goal at each evaluation, or the
    training loss. Raises KeyError for a hyperparameter that no trial had.
    """
    evidence = about if isinstance(about, Evidence) else gather(about)
    lines = {row.number: line for row in evidence.rows if (line := _line(evidence, row, of))}
    if not lines:
        return style.nothing(
            "No trial has logged a training loss." if of == "training" else "No trial was evaluated yet."
        )
    rows = [row for row in evidence.rows if row.number in lines]
    best = evidence.best
    values = [point for line in lines.values() for _, point in line]
    epochs = of == "evaluation" and any(evidence.courses.get(row.number, Course()).evaluations for row in rows)
    across = "step" if of == "training" else "epoch" if epochs else "evaluation"
    up = evidence.maximize and of == "evaluation"
    drawn = style.figure(
        420,
        xaxis={"title": {"text": across}},
        yaxis={"title": {"text": "training loss" if of == "training" else evidence.goal.metric}},
        showlegend=False,
        margin={"l": 60, "r": 90, "t": 48, "b": 48},
    )
    drawn.update_yaxes(range=style.window(values, maximize=up))
    for row in rows:
        won = best is not None and row.number == best.number
        line = lines[row.number]
        drawn.add_trace(
            go.Scatter(
                x=[x for x, _ in line],
                y=[y for _, y in line],
                mode="lines+markers" if len(line) <= 12 and of == "evaluation" else "lines",
                line={"width": 3.5 if won else 1.3},
                marker={"size": 7 if won else 4},
                opacity=1.0 if won else 0.75,
                text=of_trial(row),
                hovertemplate="%{text}<br>" + across + " %{x:.4g}: %{y:.5g}<extra></extra>",
            )
        )
        if won:
            drawn.add_annotation(
                x=line[-1][0],
                y=line[-1][1],
                text=f"trial {row.number}",
                showarrow=False,
                xanchor="left",
                xshift=6,
                font={"color": style.ACCENT, "size": 11},
            )
    _colour(drawn, evidence, rows, color)
    return drawn


def _line(evidence: Evidence, row: Trial, of: str) -> list[tuple[float, float]]:
    course = evidence.courses.get(row.number, Course())
    if of == "training":
        line: list[tuple[float, float]] = [(float(step), loss) for step, loss in course.losses]
    elif course.evaluations:
        line = [(event.epoch, event.values[0]) for event in course.evaluations if event.values]
    else:
        line = [(float(number), value) for number, value in row.intermediate.items()]
    line = [(x, y) for x, y in line if math.isfinite(y)]
    most = max(20, POINTS // max(1, len(evidence.rows)))
    return line[:: math.ceil(len(line) / most)] if len(line) > most else line


def _colour(drawn: go.Figure, evidence: Evidence, rows: Sequence[Trial], color: str | None) -> None:
    """Colour the curves, one for each of ``rows``, and add the colour bar and the menu that changes both."""
    chosen = [configuration(evidence.study, row) for row in rows]
    varied: dict[str, Dimension] = {}
    for configured in chosen:
        for key, (dimension, label) in configured.items():
            if any(key in other and other[key][1] != label for other in chosen):
                varied[key] = dimension
    if color is not None and color not in varied:
        raise KeyError(f"no two trials differ in {color}; there is {', '.join(varied) or 'nothing they differ in'}")
    if not varied:
        drawn.update_traces(line_color=style.ENDINGS[rows[0].ending])
        return
    names = _ordered(evidence, varied)
    first = color or names[0]
    drawn.add_trace(
        go.Scatter(
            x=[None], y=[None], mode="markers", marker={"color": [0], "coloraxis": "coloraxis"}, hoverinfo="skip"
        )
    )
    looks = {name: _look(varied[name], [configured.get(name) for configured in chosen]) for name in names}
    for trace, tone in zip(drawn.data, looks[first][0], strict=False):
        trace.line.color = trace.marker.color = tone
    bar = {"thickness": 12, "outlinewidth": 0, "len": 0.9, "tickfont": {"size": 11, "color": style.SOFT}}
    marks, texts = looks[first][1]
    drawn.update_layout(
        coloraxis={
            "cmin": 0,
            "cmax": 1,
            "colorscale": style.SCALE,
            "colorbar": {**bar, "tickvals": marks, "ticktext": texts},
        }
    )
    if len(names) > 1:
        drawn.update_layout(updatemenus=[_menu(looks, names, first)])
    else:
        drawn.update_layout(coloraxis_colorbar_title_text=first)


def _ordered(evidence: Evidence, varied: dict[str, Dimension]) -> list[str]:
    from sweepkit.report.mirror import importances, optuna_study

    ranked = [name for name in importances(optuna_study(evidence)) if name in varied]
    return [*ranked, *(name for name in varied if name not in ranked)]


Look = tuple[list[str], tuple[list[float], list[str]]]


def _look(dimension: Dimension, labels: Sequence[tuple[Dimension, Scalar] | None]) -> Look:
    tones = [style.IDLE if pair is None else style.shade(style.position(dimension, pair[1])) for pair in labels]
    return tones, style.ticks(dimension)


def _menu(looks: dict[str, Look], names: list[str], first: str) -> dict[str, Any]:
    buttons = [
        {
            "label": f"coloured by {name}",
            "method": "update",
            "args": [
                {"line.color": looks[name][0], "marker.color": looks[name][0]},
                {"coloraxis.colorbar.tickvals": looks[name][1][0], "coloraxis.colorbar.ticktext": looks[name][1][1]},
                list(range(len(looks[name][0]))),
            ],
        }
        for name in names
    ]
    return {
        "buttons": buttons,
        "active": names.index(first),
        "x": 0.0,
        "xanchor": "left",
        "y": 1.02,
        "yanchor": "bottom",
        "bgcolor": "white",
        "bordercolor": style.RULE,
        "font": {"size": 11, "color": style.SOFT},
        "pad": {"t": 0, "b": 2},
    }
