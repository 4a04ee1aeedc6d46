"""Parallel coordinates by Optuna, with every axis over its whole range and each line known by its trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import optuna
import plotly.graph_objects as go
from optuna.distributions import IntDistribution
from optuna.trial import create_trial

from sweepkit.report import style
from sweepkit.report.drawings import Configuration, configurations, differing, evidence_of, plot
from sweepkit.report.evidence import Evidence
from sweepkit.report.mirror import empty
from sweepkit.search.samplers import distribution, knowingly
from sweepkit.study.parameters import Choice, Scalar
from sweepkit.study.space import Dimension
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Trial

NUMBER = "№"
"""A parameter that no study has and that sorts after all others: the trial's number."""


def parallel(about: StudyData | Evidence) -> go.Figure:
    """Return every trial as a line across the goals and all hyperparameters, each axis over its whole range.

    Darker is better in the first goal. The best (the Pareto front) is marked; pruned and failed trials are dotted.
    """
    evidence = evidence_of(about)
    ranked = evidence.answer.ranked
    known, goals = configurations(evidence), len(evidence.study.objective.goals)
    axes = differing(known.values())
    if not ranked or not axes:
        return style.nothing("Parallel coordinates need trials that differ, and one that was trained to its end.")
    rows = {row.number: row for row in evidence.rows if row.ending.counts}
    study = _spanning(evidence, axes, [(row, known[row.number]) for row in rows.values()])
    named = {} if goals > 1 else {"target_name": evidence.goal.metric}
    drawn = plot("parallel_coordinate", study, **named)
    low, high = style.window([row.values[0] for row in ranked], maximize=evidence.maximize) or (0.0, 1.0)
    best = {row.number for row in ([evidence.best] if evidence.best else evidence.answer.front)}
    numbers = [trial.params[NUMBER] for trial in study.get_trials(deepcopy=False)]
    *lines, scale = drawn.data
    kept: dict[bool, list[go.Scatter]] = {True: [], False: []}
    for line in lines:
        row = rows.get(round(min(numbers) + line.y[-1] * (max(numbers) - min(numbers))))
        if row is not None:
            part = (row.values[0] - low) / (high - low) if row.values else 0.0
            tone = style.ACCENT if row.number in best else style.shade(part if evidence.maximize else 1 - part)
            y = line.y[:-1] if row.values else (*(None,) * goals, *line.y[goals:-1])
            line.update(x=line.x[:-1], y=y, customdata=None, **style.hovers([row] * len(y)))
            line.update(line={"color": tone, "width": 3 if row.number in best else 1.3}, opacity=0.75)
            if not row.ending.ranks:
                line.update(line={"color": style.ENDINGS[row.ending], "dash": "dot"})
            kept[row.number in best].append(line)
    colors = {"color": [low, high], "cmin": low, "cmax": high, "colorscale": style.SCALE}
    scale.marker.update(reversescale=not evidence.maximize, **colors)
    scale.marker.colorbar = {**style.COLORBAR, "title": {"text": evidence.goal.metric}}
    drawn.data = [*kept[False], *kept[True], scale]
    return _without_last_axis(style.dressed(drawn, 440, margin={"l": 50, "r": 20, "t": 30, "b": 60}))


def _spanning(
    evidence: Evidence, axes: Mapping[str, Dimension], configured: Sequence[tuple[Trial, Configuration]]
) -> optuna.Study:
    """Return an Optuna study of these trials whose ranges are the space's, with each trial's number as a parameter.

    Optuna's axes end at the trials' lowest and highest values: made-up trials with negative numbers reach the ends. They, and
    trials without values, have the values of the best one.
    """
    goals = evidence.study.objective.goals
    made = empty(evidence.study.name, [goal.direction for goal in goals])
    with knowingly():
        made.set_metric_names([goal.metric for goal in goals])
    distributions = {key: distribution(dimension.parameter) for key, dimension in axes.items()}
    distributions[NUMBER] = IntDistribution(-1_000_000, 1_000_000_000)
    stand_in = evidence.answer.ranked[0].values

    def add(params: dict[str, Scalar], values: Sequence[float]) -> None:
        own = {key: distributions[key] for key in params}
        made.add_trial(create_trial(params=params, distributions=own, values=list(values)))

    for corner in range(max([2, *(len(d.parameter.labels) for d in axes.values() if isinstance(d.parameter, Choice))])):
        ends = {
            key: dimension.parameter.labels[min(corner, len(dimension.parameter.labels) - 1)]
            if isinstance(dimension.parameter, Choice)
            else getattr(distributions[key], "high" if corner else "low")
            for key, dimension in axes.items()
        }
        add({**ends, NUMBER: -1 - corner}, stand_in)
    for row, chosen in configured:
        params = {key: label for key, (_, label) in chosen.items() if key in axes}
        add({**params, NUMBER: row.number}, row.values if len(row.values) == len(goals) else stand_in)
    return made


def _without_last_axis(drawn: go.Figure) -> go.Figure:
    across = drawn.layout.xaxis
    last = max(across.tickvals)
    drawn.layout.annotations = [each for each in drawn.layout.annotations if each.x < last]
    drawn.layout.shapes = [each for each in drawn.layout.shapes if each.x0 < last]
    across.update(tickvals=across.tickvals[:-1], ticktext=across.ticktext[:-1], range=[-0.2, last - 0.8])
    drawn.update_shapes(line_color=style.RULE)
    return drawn.update_annotations(font={"size": 10, "color": style.SOFT}, bgcolor="rgba(255,255,255,0.75)")
