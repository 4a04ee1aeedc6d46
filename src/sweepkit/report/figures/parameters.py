"""What the hyperparameters did: importances, slices, isolation plots, parallel coordinates. Knows no training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import optuna
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sweepkit.report.evidence import Evidence, configuration, gather
from sweepkit.report.figures import style
from sweepkit.report.figures.hover import of_trial
from sweepkit.report.mirror import importances as shares
from sweepkit.report.mirror import optuna_study
from sweepkit.search.samplers import knowingly
from sweepkit.study.parameters import Choice, Scalar
from sweepkit.study.space import Dimension
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Ending, Trial

FEWEST = 4
"""With fewer trained trials than this, importances mean nothing."""
BINS = 8
"""So many parts an isolation plot splits a numeric parameter into, at most."""

Point = tuple[Trial, Scalar]


def importances(about: StudyData | Evidence) -> go.Figure:
    """Return each hyperparameter's share in what sets good trials apart (PED-ANOVA), a bar for each goal."""
    evidence = about if isinstance(about, Evidence) else gather(about)
    study, goals = optuna_study(evidence), evidence.study.objective.goals
    if sum(row.ending.ranks for row in evidence.rows) < FEWEST or not (first := shares(study)):
        return style.nothing("Importances need a few more trained trials.")
    names = list(first)[::-1]
    drawn = style.figure(
        104 + 30 * len(names) * max(1, len(goals) - 1), xaxis={"title": {"text": "share"}, "tickformat": ".0%"}
    )
    for index, goal in enumerate(goals):
        found = first if index == 0 else shares(study, index)
        drawn.add_trace(
            go.Bar(
                x=[found.get(name, 0.0) for name in names],
                y=names,
                orientation="h",
                name=goal.metric,
                text=[f"{found.get(name, 0.0):.0%}" for name in names],
                textposition="outside",
                cliponaxis=False,
                hovertemplate="%{y}: %{x:.1%}<extra></extra>",
            )
        )
    drawn.update_layout(showlegend=len(goals) > 1)
    drawn.update_xaxes(range=[0, 1.08 * max(first.values())])
    return drawn


def slices(about: StudyData | Evidence) -> go.Figure:
    """Return every hyperparameter against the first goal, a panel each; darker points came later."""
    evidence = about if isinstance(about, Evidence) else gather(about)
    drawable = panels(evidence)
    if not drawable:
        return style.nothing("Slices need trials that differ.")
    drawn = _grid(evidence, drawable)
    last = max(row.number for row in evidence.rows) or 1
    for index, (dimension, points) in enumerate(drawable):
        tones = [style.shade(row.number / last) for row, _ in points]
        drawn.add_trace(_dots(dimension, points, tones), row=index // style.COLUMNS + 1, col=index % style.COLUMNS + 1)
        _mark_best(drawn, evidence, drawable[index], index)
    return drawn


def isolation(about: StudyData | Evidence) -> go.Figure:
    """Return, for each scientific hyperparameter, the best value over all others at each of its values.

    Numeric ones are split into parts of equal width. This is the comparison that a study asks for: what each value can
    reach when everything else is tuned for it (Godbole et al. 2023, Deep Learning Tuning Playbook).
    """
    evidence = about if isinstance(about, Evidence) else gather(about)
    drawable = [
        (dimension, points) for dimension, points in panels(evidence) if dimension.parameter.role == "scientific"
    ]
    if not drawable:
        return style.nothing("Isolation plots need scientific hyperparameters, and trials that differ in them.")
    drawn = _grid(evidence, drawable)
    for index, (dimension, points) in enumerate(drawable):
        at = {"row": index // style.COLUMNS + 1, "col": index % style.COLUMNS + 1}
        drawn.add_trace(_dots(dimension, points, "#c9c3b8"), **at)
        tops = reached(evidence, dimension, points)
        drawn.add_trace(
            go.Scatter(
                x=[style.mark(dimension, label) for _, label in tops],
                y=[row.values[0] for row, _ in tops],
                mode="lines+markers",
                line={"color": style.ENDINGS[Ending.complete], "width": 2},
                marker={"size": 8, "color": style.ENDINGS[Ending.complete]},
                text=[of_trial(row) for row, _ in tops],
                hovertemplate="best here:<br>%{text}<extra></extra>",
                showlegend=False,
            ),
            **at,
        )
        _mark_best(drawn, evidence, drawable[index], index)
    return drawn


def reached(evidence: Evidence, dimension: Dimension, points: Sequence[Point]) -> list[Point]:
    """Return the best trial at each choice, or in each part of a numeric range, in the order of the axis."""
    bins = min(BINS, max(3, round(math.sqrt(len(points)))))
    tops: dict[int, Point] = {}
    for row, label in points:
        choice = isinstance(dimension.parameter, Choice)
        place = style.position(dimension, label)
        part = round(place * 1000) if choice else min(bins - 1, int(place * bins))
        if part not in tops or evidence.better(row.values[0], tops[part][0].values[0]) > 0:
            tops[part] = (row, label)
    return [tops[part] for part in sorted(tops)]


def parallel(about: StudyData | Evidence) -> go.Figure:
    """Return every trained trial as a line across all hyperparameters, the best marked; drawn by Optuna."""
    evidence = about if isinstance(about, Evidence) else gather(about)
    study = optuna_study(evidence)
    trials = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(trials) < 2 or not any(trial.params for trial in trials):
        return style.nothing("Parallel coordinates need trials that differ.")
    with knowingly():
        if len(evidence.study.objective.goals) > 1:
            drawn = optuna.visualization.plot_parallel_coordinate(study)
        else:
            drawn = optuna.visualization.plot_parallel_coordinate(study, target_name=evidence.goal.metric)
    values = [trial.values[0] for trial in trials]
    low, high = style.window(values, maximize=evidence.maximize) or (0.0, 1.0)
    least, range_ = min(values), max(values) - min(values)
    goals, won = len(evidence.study.objective.goals), _best_course(study, evidence)
    for line in (trace for trace in drawn.data if trace.mode == "lines" and trace.customdata is not None):
        value = least + range_ * line.y[0]
        part = (value - low) / (high - low)
        best = evidence.best is not None and line.y[goals:] == won and math.isclose(value, evidence.best.values[0])
        line.line.color = style.ACCENT if best else style.shade(part if evidence.maximize else 1 - part)
        line.line.width, line.opacity = (3.5, 1.0) if best else (1.3, 0.7)
    drawn.data[-1].marker.update(colorscale=style.SCALE, reversescale=not evidence.maximize, color=[low, high])
    drawn.data[-1].marker.update(cmin=low, cmax=high, colorbar={"title": evidence.goal.metric, "tickvals": None})
    drawn.data[-1].marker.colorbar.update(thickness=12, outlinewidth=0, tickfont={"size": 11, "color": style.SOFT})
    drawn.update_layout(plot_bgcolor="white", margin={"l": 40, "r": 40, "t": 44, "b": 60})
    drawn.update_shapes(line_color=style.RULE)
    drawn.update_annotations(font={"size": 10, "color": style.SOFT})
    return style.dress(drawn, 440)


def _best_course(study: optuna.Study, evidence: Evidence) -> tuple[float, ...]:
    """Return where the best trial crosses the axes of the hyperparameters, from 0 to 1.

    Optuna draws the lines in an order of its own and says no trial's number; so it draws once more with "is it the best?"
    as the value.
    """
    best = evidence.best.number if evidence.best else None
    with knowingly():
        drawn = optuna.visualization.plot_parallel_coordinate(
            study, target=lambda trial: float(trial.number == best), target_name="best"
        )
    return next((line.y[1:] for line in drawn.data if line.mode == "lines" and line.y[0] == 1.0), ())


def panels(evidence: Evidence) -> list[tuple[Dimension, list[Point]]]:
    """Return each dimension in which trials differ, with the trials that have a value."""
    found: dict[str, tuple[Dimension, list[Point]]] = {}
    for row in evidence.rows:
        if row.ending.ranks and row.values and math.isfinite(row.values[0]):
            for key, (dimension, label) in configuration(evidence.study, row).items():
                found.setdefault(key, (dimension, []))[1].append((row, label))
    return [pair for pair in found.values() if len({style.text(label) for _, label in pair[1]}) > 1]


def _grid(evidence: Evidence, drawable: Sequence[tuple[Dimension, Sequence[Point]]]) -> go.Figure:
    columns = min(style.COLUMNS, len(drawable))
    lines = math.ceil(len(drawable) / style.COLUMNS)
    drawn = make_subplots(
        lines, columns, shared_yaxes=True, horizontal_spacing=0.03, vertical_spacing=0.28 / lines if lines > 1 else 0.1
    )
    values = [row.values[0] for _, points in drawable for row, _ in points]
    window = style.window(values, maximize=evidence.maximize)
    style.dress(drawn, 60 + style.PANEL * lines, showlegend=False)
    for index, (dimension, _) in enumerate(drawable):
        at = {"row": index // style.COLUMNS + 1, "col": index % style.COLUMNS + 1}
        drawn.update_xaxes(title_text=_short(dimension.key), **style.axis(dimension), **at)
        drawn.update_yaxes(range=window, title_text=evidence.goal.metric if at["col"] == 1 else None, **at)
    return drawn


def _short(key: str) -> str:
    return key if len(key) <= 34 else f"…{key[-33:]}"


def _dots(dimension: Dimension, points: Sequence[Point], color: str | list[str]) -> go.Scatter:
    return go.Scatter(
        x=[
            style.text(label) if not isinstance(label, (int, float)) or isinstance(label, bool) else label
            for _, label in points
        ],
        y=[row.values[0] for row, _ in points],
        mode="markers",
        marker={"color": color, "size": 6},
        text=[of_trial(row) for row, _ in points],
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )


def _mark_best(drawn: go.Figure, evidence: Evidence, panel: tuple[Dimension, list[Point]], index: int) -> None:
    dimension, points = panel
    best = evidence.best
    mine = [(row, label) for row, label in points if best is not None and row.number == best.number]
    if mine:
        ring = _dots(dimension, mine, style.ACCENT)
        ring.marker.update(size=11, symbol="circle", line={"color": "white", "width": 1.5})
        drawn.add_trace(ring, row=index // style.COLUMNS + 1, col=index % style.COLUMNS + 1)
