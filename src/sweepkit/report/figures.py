"""A study in figures: each function takes a study, or its evidence, and returns a plotly figure.

Optuna draws what it can. Added to its figures: pruned and failed trials, the best trial, axes over the whole space. What it
cannot draw is in :mod:`sweepkit.report.drawings`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Literal

import optuna
import plotly.graph_objects as go
from optuna.trial import FrozenTrial
from plotly.subplots import make_subplots

from sweepkit.report import style
from sweepkit.report.drawings import (
    cell,
    configurations,
    differing,
    evidence_of,
    grid,
    isolation,
    ledger,
    of_goal,
    panels,
    plot,
    ring,
    timeline,
)
from sweepkit.report.evidence import Course, Evidence
from sweepkit.report.mirror import importances as shares
from sweepkit.report.mirror import optuna_study
from sweepkit.report.parallel import parallel
from sweepkit.report.rows import endings
from sweepkit.study import words
from sweepkit.study.parameters import Scalar
from sweepkit.study.space import Dimension
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Ending, Trial

FEWEST = 10
"""With fewer complete trials, importances are noise and are withheld."""
POINTS = 20_000
"""About as many points as all curves have together; longer curves are thinned."""


def history(about: StudyData | Evidence, *, goal: int = 0) -> go.Figure:
    """Return every trial's value in the order tried, the best so far, and the baseline; ``goal`` counts from 0.

    Trials without a final value are crosses, at the edge where they have none or one far worse than the others.
    """
    evidence = of_goal(evidence_of(about), goal)
    shown = [row for row in evidence.rows if row.ending not in (Ending.waiting, Ending.running)]
    ranked = [row.values[0] for row in evidence.answer.ranked]
    window = style.window(ranked or [value for row in shown for value in row.values], maximize=evidence.maximize)
    if window is None:
        return style.nothing("No trial has a value yet.")
    drawn = plot("optimization_history", optuna_study(evidence), target_name=evidence.goal.metric)
    drawn.data = drawn.data[:2]  # the third would be infeasible trials
    if drawn.data:
        _best_so_far(drawn, evidence)
    drawn.add_traces(_marks([(row, row.number) for row in shown], window, maximize=evidence.maximize))
    baseline = evidence.baseline
    if baseline and baseline.values:
        drawn.add_hline(
            y=baseline.values[0],
            line={"color": style.SOFT, "width": 1, "dash": "dot"},
            annotation={"text": "baseline", "font": style.SMALL},
            annotation_position="bottom right" if evidence.maximize else "top right",
        )
    y = {"title": {"text": evidence.goal.metric}, "range": window}
    return style.dressed(drawn, 380, xaxis={"title": {"text": "trial"}}, yaxis=y)


def _best_so_far(drawn: go.Figure, evidence: Evidence) -> None:
    """Restyle Optuna's points and its line of the best so far, and write the best value beside the line."""
    points, best = drawn.data
    rows = {row.number: row for row in evidence.rows}
    points.update(name="complete", **style.hovers(rows[number] for number in points.x))
    points.marker = {"color": style.ENDINGS[Ending.complete], "size": 7}
    best.update(name="best so far", y=[value if math.isfinite(value) else None for value in best.y])
    best.update(line={"color": style.ACCENT, "width": 2, "shape": "hv"}, hoverinfo="skip")
    last = float(best.y[-1])
    label = {"text": f"<b>{words.value(last)}</b>", "font": {"color": style.ACCENT}, "showarrow": False}
    reached = next(number for number, value in zip(best.x, best.y, strict=True) if value == last)
    drawn.add_annotation(x=reached, y=last, yshift=14 if evidence.maximize else -14, **label)


def front(about: StudyData | Evidence) -> go.Figure:
    """Return the trials of a study with several goals, a panel for each pair of goals, the Pareto front marked."""
    evidence = evidence_of(about)
    goals = evidence.study.objective.goals
    if len(goals) < 2:
        return style.nothing("A Pareto front needs several goals; this study has one.")
    if not evidence.answer.ranked:
        return style.nothing("No trial has been trained to its end yet.")
    pairs = list(combinations(range(len(goals)), 2))
    columns, lines = min(len(pairs), 2), math.ceil(len(pairs) / 2)
    drawn = make_subplots(lines, columns, horizontal_spacing=0.12, vertical_spacing=0.2 / lines)
    study = optuna_study(evidence)
    titles = [f"{goal.metric} {'↑' if goal.direction == 'maximize' else '↓'}" for goal in goals]
    for index, (left, right) in enumerate(pairs):
        at = {"row": index // columns + 1, "col": index % columns + 1}
        for trace in _pair(evidence, study, left, right):
            drawn.add_trace(trace.update(legendgroup=trace.name, showlegend=index == 0), **at)
        drawn.update_xaxes(title_text=titles[left], **at)
        drawn.update_yaxes(title_text=titles[right], **at)
    lost = [row for row in evidence.rows if row.ending.counts and not row.values]
    if lost:
        place = {"x": 1, "y": 1.02, "xref": "paper", "yref": "paper", "xanchor": "right", "yanchor": "bottom"}
        text = f"without values: {endings(lost)}"
        drawn.add_annotation(text=text, showarrow=False, font=style.SMALL, **place)
    return style.dressed(drawn, 380 if lines == 1 else 320 * lines)


def _pair(evidence: Evidence, study: optuna.Study, left: int, right: int) -> list[go.Scatter]:
    """Return the trials in two of the goals: Optuna's dominated ones, those without final values, the front."""
    rows = {row.number: row for row in evidence.rows}

    def targets(trial: FrozenTrial) -> list[float]:
        return [trial.values[left], trial.values[right]]

    dominated, best = plot("pareto_front", study, targets=targets, target_names=["", ""]).data
    dominated.name, best.name = "dominated", "Pareto front"
    for trace, color, size in ((dominated, style.ENDINGS[Ending.complete], 6), (best, style.ACCENT, 10)):
        points = sorted(zip(trace.x, trace.y, trace.marker.color, strict=True))  # Optuna colours by number
        trace.update(x=[x for x, *_ in points], y=[y for _, y, _ in points])
        trace.update(style.hovers(rows[number] for *_, number in points))
        trace.marker = {"color": color, "size": size}
    if len(evidence.study.objective.goals) == 2:
        best.update(mode="lines+markers", line={"color": style.ACCENT, "width": 1, "dash": "dot"})
    unranked = [row for row in evidence.rows if row.values and not row.ending.ranks]
    return [dominated, *_crosses([(row, row.values[left], row.values[right]) for row in unranked]), best]


def curves(
    about: StudyData | Evidence, *, color: str | None = None, of: Literal["evaluation", "training"] = "evaluation"
) -> go.Figure:
    """Return the learning curve of every trial, coloured by a hyperparameter; a menu selects another one.

    ``color`` is the one to start with; by default the most important. ``of``: the first goal at each evaluation, or the
    training loss. A cross ends the curve of a trial that was pruned or failed. Raises KeyError for a hyperparameter in which
    no two trials differ.
    """
    evidence = evidence_of(about)
    lines = {row.number: line for row in evidence.rows if (line := _line(evidence, row, of))}
    training = of == "training"
    if not lines:
        return style.nothing("No trial has logged a training loss." if training else "No trial has been evaluated yet.")
    rows = sorted((row for row in evidence.rows if row.number in lines), key=lambda row: row.number)
    drawn = plot("intermediate_values", optuna_study(replace(evidence, rows=[_bare(row, lines) for row in rows])))
    across = _across(evidence, rows, of)
    for trace, row in zip(drawn.data, rows, strict=True):
        x, y = zip(*lines[row.number], strict=True)
        hover = f"%{{text}}<br>{across} %{{x:.4g}}: %{{y:.5g}}<extra></extra>"
        trace.update(x=x, mode="lines" if training or len(x) > 12 else "lines+markers", opacity=0.75, showlegend=False)
        trace.update(line_width=1.3, marker_size=4, text=style.hover(row), hovertemplate=hover)
        if row == evidence.best:
            trace.update(line_width=3.5, marker_size=7, opacity=1)
            label = {"text": f"trial {row.number}", "font": {"color": style.ACCENT, "size": 11}}
            drawn.add_annotation(x=x[-1], y=y[-1], xanchor="left", xshift=6, showarrow=False, **label)
    _colour(drawn, evidence, rows, color)
    drawn.add_traces(_crosses([(row, *lines[row.number][-1]) for row in rows if row.ending in style.CUT]))
    window = style.window([y for line in lines.values() for _, y in line], maximize=evidence.maximize and not training)
    y_axis = {"title": {"text": "training loss" if training else evidence.goal.metric}, "range": window}
    layout = {"showlegend": True, "legend": {"x": 1, "xanchor": "right"}, "margin": {"r": 90, "t": 48}}
    return style.dressed(drawn, 420, xaxis={"title": {"text": across}}, yaxis=y_axis, **layout)


def _across(evidence: Evidence, rows: Iterable[Trial], of: str) -> str:
    if of == "training":
        return "step"
    logged = all(evidence.courses.get(row.number, Course()).evaluations for row in rows)
    return "epoch" if logged else "evaluation"


def _bare(row: Trial, lines: Mapping[int, Sequence[tuple[float, float]]]) -> Trial:
    """A trial that Optuna draws, however it ended, with one intermediate value for each point of its curve."""
    values = {number: y for number, (_, y) in enumerate(lines[row.number])}
    return replace(row, ending=Ending.running, values=(), intermediate=values)


def _line(evidence: Evidence, row: Trial, of: str) -> list[tuple[float, float]]:
    """A trial's curve, oldest point first, thinned, without what is not finite."""
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
    """Colour the curves, the first traces, one for each of ``rows``; add the colour bar and the menu that changes both."""
    known = configurations(evidence)
    varied = differing(known[row.number] for row in rows)
    if color is not None and color not in varied:
        raise KeyError(f"no two trials differ in {color}; they differ in {', '.join(varied) or 'nothing'}")
    if not varied:
        drawn.update_traces(line_color=style.ENDINGS[Ending.complete])
        return
    ranked = [name for name in shares(optuna_study(evidence)) if name in varied]
    names = [*ranked, *(name for name in varied if name not in ranked)]
    first, curves = names.index(color or names[0]), list(range(len(rows)))
    looks = [_look(varied[name], [known[row.number].get(name) for row in rows]) for name in names]
    for trace, tone in zip(drawn.data, looks[first][0]["line.color"], strict=True):
        trace.update(line_color=tone, marker_color=tone)
    marker = {"color": [0], "coloraxis": "coloraxis"}
    drawn.add_scatter(x=[None], y=[None], mode="markers", marker=marker, showlegend=False)
    drawn.update_layout(coloraxis={"cmin": 0, "cmax": 1, "colorscale": style.SCALE, "colorbar": style.COLORBAR})
    drawn.update_layout(looks[first][1])
    buttons = [
        {"label": f"coloured by {name}", "method": "update", "args": [*look, curves]}
        for name, look in zip(names, looks, strict=True)
    ]
    drawn.update_layout(updatemenus=[{"buttons": buttons, "active": first, **style.MENU}])


def _look(
    dimension: Dimension, labels: Sequence[tuple[Dimension, Scalar] | None]
) -> tuple[dict[str, list[str]], dict[str, list[Any]]]:
    """Return the colours of the curves by a hyperparameter, and the ticks of its colour bar, as plotly's updates."""
    tones = [style.NOWHERE if pair is None else style.shade(style.position(*pair)) for pair in labels]
    marks, texts = style.ticks(dimension)
    bar: dict[str, list[Any]] = {"coloraxis.colorbar.tickvals": marks, "coloraxis.colorbar.ticktext": texts}
    return {"line.color": tones, "marker.color": tones}, bar


def importances(about: StudyData | Evidence) -> go.Figure:
    """Return each hyperparameter's share in what sets good trials apart (PED-ANOVA), a bar for each goal.

    Withheld with fewer than ten complete trials.
    """
    evidence = evidence_of(about)
    goals, trials = evidence.study.objective.goals, len(evidence.answer.ranked)
    if trials < FEWEST:
        return style.nothing(f"Importances need {FEWEST} complete trials; this study has {trials}.")
    try:
        bars = [
            trace
            for goal in range(len(goals))
            for trace in plot("param_importances", optuna_study(of_goal(evidence, goal))).data
        ]
    except (ValueError, RuntimeError):  # Optuna finds nothing to compare
        bars = []
    largest = max((share for bar in bars for share in bar.x if math.isfinite(share)), default=0.0)
    if not largest:
        return style.nothing(f"No hyperparameter sets the good ones of {trials} complete trials apart.")
    drawn = go.Figure(bars)
    drawn.update_traces(
        text=None, texttemplate="%{x:.0%}", hovertemplate="%{y}: %{x:.1%}<extra></extra>", cliponaxis=False
    )
    title = f"share, over {trials} complete trials"
    return style.dressed(
        drawn,
        104 + 30 * len(bars[0].y) * max(1, len(goals) - 1),
        xaxis={"title": {"text": title}, "tickformat": ".0%", "range": [0, 1.08 * largest]},
        showlegend=len(goals) > 1,
    )


def slices(about: StudyData | Evidence) -> go.Figure:
    """Return every hyperparameter against the first goal, a panel each; darker points came later.

    Trials without a final value are crosses: at the value they had, or at the edge.
    """
    evidence = of_goal(evidence_of(about), 0)
    drawable = panels(evidence)
    if not drawable:
        return style.nothing("Slices need complete trials that differ.")
    drawn, window = grid(evidence, drawable)
    study, known = optuna_study(evidence), configurations(evidence)
    rows, seen = {row.number: row for row in evidence.rows}, set[str]()
    for index, (dimension, points) in enumerate(drawable):
        at, key = cell(index), dimension.key
        complete, *_ = plot("slice", study, params=[key], target_name=evidence.goal.metric).data
        complete.update(style.hovers(rows[number] for number in complete.marker.color))
        complete.marker.update(size=6, line_width=0, colorscale=style.SCALE, showscale=False)
        places = [
            (row, style.mark(*known[row.number][key])) for row in evidence.rows if key in known.get(row.number, {})
        ]
        for trace in (
            complete,
            *_marks(places, window, maximize=evidence.maximize),
            *ring(evidence, dimension, points),
        ):
            new = trace.name in map(str, style.CUT) and trace.name not in seen
            seen.add(trace.name)
            drawn.add_trace(trace.update(showlegend=new, legendgroup=trace.name), **at)
    return drawn


def _marks(places: Iterable[tuple[Trial, Any]], window: tuple[float, float], *, maximize: bool) -> list[go.Scatter]:
    """Return what Optuna leaves out, by ending, as crosses: at their value, or at the worse edge of the window."""
    edge = window[0] if maximize else window[1]
    points = []
    for row, x in places:
        inside = bool(row.values) and window[0] <= row.values[0] <= window[1]
        if not (row.ending.ranks and inside):
            points.append((row, x, row.values[0] if inside else edge))
    return _crosses(points)


def _crosses(points: Sequence[tuple[Trial, Any, float]]) -> list[go.Scatter]:
    """Return trials at (x, y) as crosses, a trace for each ending."""
    traces = []
    for ending in (Ending.complete, *style.CUT, Ending.stopped):
        some = [point for point in points if point[0].ending is ending]
        if some:
            rows, x, y = zip(*some, strict=True)
            line = {"width": 1.5, "color": style.ENDINGS[ending]}
            look = {"name": str(ending), "mode": "markers", "cliponaxis": False}
            marker = {"symbol": "x-thin", "size": 7, "line": line}
            traces.append(go.Scatter(x=x, y=y, marker=marker, **look, **style.hovers(rows)))
    return traces


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
