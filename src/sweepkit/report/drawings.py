"""Figures that Optuna does not have: isolation plots, the hours by ending, who held which slot; and what all figures share."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import optuna
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sweepkit.report import style
from sweepkit.report.evidence import Course, Evidence, Stint, configuration, gather
from sweepkit.report.rows import CONFIRMED, LEDGER, hours_by_ending
from sweepkit.search.samplers import knowingly
from sweepkit.study import words
from sweepkit.study.objective import Objective
from sweepkit.study.parameters import Choice, Scalar
from sweepkit.study.space import Dimension
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Ending, Trial

BINS = 8
"""The most parts into which an isolation plot divides a numeric range."""
COLUMNS = 3
"""Panels in a row."""
PAUSE_SECONDS = 60.0
"""The timeline cuts out longer times in which no trial ran."""

Configuration = Mapping[str, tuple[Dimension, Scalar]]
Point = tuple[Trial, Scalar]


def evidence_of(about: StudyData | Evidence) -> Evidence:
    """Return what is known of a study at this moment; values that are not finite count as none."""
    evidence = about if isinstance(about, Evidence) else gather(about)
    finite = [row if all(map(math.isfinite, row.values)) else replace(row, values=()) for row in evidence.rows]
    return replace(evidence, rows=finite)


def of_goal(evidence: Evidence, goal: int) -> Evidence:
    """Return the evidence as that of a study with this goal alone."""
    aim = evidence.study.objective.goals[goal]
    alone = Objective(metric=aim.metric, direction=aim.direction)
    rows = [replace(row, values=row.values[goal : goal + 1]) for row in evidence.rows]
    study = evidence.study.model_copy(update={"objective": alone}).at(evidence.study.home)
    return replace(evidence, study=study, rows=rows)


def configurations(evidence: Evidence) -> dict[int, Configuration]:
    """Return trial → dimension's key → (dimension, label or number)."""
    return {row.number: configuration(evidence.study, row) for row in evidence.rows}


def isolation(about: StudyData | Evidence) -> go.Figure:
    """Return, for each scientific hyperparameter, the best value over all others at each of its values.

    Numeric ranges are divided into parts of equal width. This is the comparison that a study asks for: what each value can
    reach when everything else is tuned for it (Godbole et al. 2023, Deep Learning Tuning Playbook).
    """
    evidence = of_goal(evidence_of(about), 0)
    drawable = [panel for panel in panels(evidence) if panel[0].parameter.role == "scientific"]
    if not drawable:
        return style.nothing("Isolation plots need scientific hyperparameters in which complete trials differ.")
    drawn, _ = grid(evidence, drawable)
    blue = style.ENDINGS[Ending.complete]
    for index, (dimension, points) in enumerate(drawable):
        tops = reached(evidence, dimension, points)
        drawn.add_trace(_dots(dimension, points, {"color": "#c9c3b8", "size": 6}), **cell(index))
        best = _dots(dimension, tops, {"color": blue, "size": 8})
        drawn.add_trace(best.update(mode="lines+markers", line={"color": blue, "width": 2}), **cell(index))
        for trace in ring(evidence, dimension, points):
            drawn.add_trace(trace, **cell(index))
    return drawn


def differing(configured: Iterable[Configuration]) -> dict[str, Dimension]:
    """Return the dimensions that do not have the same value in all of these configurations, by key."""
    seen: dict[str, tuple[Dimension, set[str]]] = {}
    for chosen in configured:
        for key, (dimension, label) in chosen.items():
            seen.setdefault(key, (dimension, set()))[1].add(repr(label))
    return {key: dimension for key, (dimension, labels) in seen.items() if len(labels) > 1}


def reached(evidence: Evidence, dimension: Dimension, points: Sequence[Point]) -> list[Point]:
    """Return the best trial at each choice, or in each part of a numeric range, in the order of the axis."""
    bins = min(BINS, max(3, round(math.sqrt(len(points)))))
    tops: dict[int, Point] = {}
    for row, label in points:
        place = style.position(dimension, label)
        part = round(place * 1000) if isinstance(dimension.parameter, Choice) else min(bins - 1, int(place * bins))
        if part not in tops or evidence.better(row.values[0], tops[part][0].values[0]) > 0:
            tops[part] = (row, label)
    return [tops[part] for part in sorted(tops)]


def panels(evidence: Evidence) -> list[tuple[Dimension, list[Point]]]:
    """Return each dimension in which complete trials differ, with the complete trials that have a value of it."""
    found: dict[str, tuple[Dimension, list[Point]]] = {}
    known = configurations(evidence)
    for row in evidence.rows:
        if row.ending.ranks and row.values and math.isfinite(row.values[0]):
            for key, (dimension, label) in known[row.number].items():
                found.setdefault(key, (dimension, []))[1].append((row, label))
    return [panel for panel in found.values() if len({repr(label) for _, label in panel[1]}) > 1]


def plot(kind: str, study: optuna.Study, **options: Any) -> go.Figure:
    """Return Optuna's figure of a kind, drawn without warnings; ``kind`` as in ``plot_slice``."""
    loud = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with knowingly():
            warnings.filterwarnings("ignore", category=UserWarning, module="optuna")  # few trials, NaN and the like
            drawn: go.Figure = getattr(optuna.visualization, f"plot_{kind}")(study, **options)
    finally:
        optuna.logging.set_verbosity(loud)
    return drawn


def grid(
    evidence: Evidence, drawable: Sequence[tuple[Dimension, Sequence[Point]]]
) -> tuple[go.Figure, tuple[float, float]]:
    """Return empty panels, one for each dimension, x over its whole range; and the range of y, the points' values."""
    columns, lines = min(COLUMNS, len(drawable)), math.ceil(len(drawable) / COLUMNS)
    space = {"horizontal_spacing": 0.03, "vertical_spacing": 0.28 / lines if lines > 1 else 0.1}
    drawn = style.dressed(make_subplots(lines, columns, shared_yaxes=True, **space), 60 + 250 * lines)
    values = [row.values[0] for _, points in drawable for row, _ in points]
    window = style.window(values, maximize=evidence.maximize) or (0.0, 1.0)
    for index, (dimension, _) in enumerate(drawable):
        at, key = cell(index), dimension.key
        drawn.update_xaxes(title_text=key if len(key) <= 34 else f"…{key[-33:]}", **style.axis(dimension), **at)
        drawn.update_yaxes(range=window, title_text=evidence.goal.metric if at["col"] == 1 else None, **at)
    return drawn, window


def cell(index: int) -> dict[str, int]:
    """Return row and column of a panel, both from 1."""
    return {"row": index // COLUMNS + 1, "col": index % COLUMNS + 1}


def ring(evidence: Evidence, dimension: Dimension, points: Sequence[Point]) -> Iterator[go.Scatter]:
    """Yield the mark of the best trial, where it is among the points."""
    mine = [(row, label) for row, label in points if evidence.best and row.number == evidence.best.number]
    if mine:
        line = {"color": "white", "width": 1.5}
        yield _dots(dimension, mine, {"color": style.ACCENT, "size": 11, "line": line})


def _dots(dimension: Dimension, points: Sequence[Point], marker: Mapping[str, Any]) -> go.Scatter:
    return go.Scatter(
        x=[style.mark(dimension, label) for _, label in points],
        y=[row.values[0] for row, _ in points],
        mode="markers",
        marker=marker,
        showlegend=False,
        **style.hovers(row for row, _ in points),
    )


def ledger(about: StudyData | Evidence) -> go.Figure:
    """Return where the hours went: one bar, by how trials ended, and the time that slots stood idle."""
    evidence = evidence_of(about)
    spent = hours_by_ending(evidence.rows, confirmed=evidence.confirmed, slot_hours=evidence.slot_hours)
    total = sum(spent.values())
    if not total:
        return style.nothing("No hours are recorded yet.")
    colors = {name: style.ENDINGS[ending] for ending, name in LEDGER.items()}
    colors |= {CONFIRMED: style.ACCENT, "idle": style.IDLE}
    drawn = go.Figure()
    for name, hours in spent.items():
        label = f"{name} {words.span(hours * 3600)}"
        if hours > 0:
            drawn.add_bar(
                x=[hours],
                y=[""],
                orientation="h",
                name=name,
                marker={"color": colors[name], "line": {"color": "white", "width": 1}},
                text=[label if hours / total > 0.12 else ""],
                textposition="inside",
                insidetextanchor="middle",
                hovertemplate=f"{label} · {hours / total:.0%}<extra></extra>",
            )
    hidden = {"visible": False}
    return style.dressed(drawn, 130, barmode="stack", xaxis={"title": {"text": "hours"}}, yaxis=hidden, bargap=0.2)


def timeline(about: StudyData | Evidence) -> go.Figure:
    """Return which trial held which slot when; times in which nothing ran (the study stood still) are cut out."""
    evidence = evidence_of(about)
    held = [(row, stint) for row in evidence.rows for stint in evidence.courses.get(row.number, Course()).stints]
    if not held:
        return style.nothing("The trials' logs are not here; without them the slots are not known.")
    held.sort(key=lambda pair: pair[1].start)
    now = max(stint.end or stint.start for _, stint in held)
    clock = _Clock([(stint.start, stint.end or now) for _, stint in held])
    lanes = _lanes([stint for _, stint in held], now)
    unit, seconds = ("hours", 3600.0) if clock.total > 2 * 3600 else ("minutes", 60.0)
    bars = [
        _Bar(row, stint, lane, clock.at(stint.start) / seconds, clock.at(stint.end or now) / seconds)
        for (row, stint), lane in zip(held, lanes, strict=True)
    ]
    drawn = go.Figure()
    for ending in style.ENDINGS:
        drawn.add_traces(
            _bars([bar for bar in bars if bar.stint.ending is ending], clock.total / 60 / seconds, seconds)
        )
    for at, length in clock.pauses:
        text = {"text": f"paused {words.span(length)}", "font": {"size": 10, "color": style.SOFT}}
        line = {"color": style.SOFT, "width": 1, "dash": "dot"}
        drawn.add_vline(x=at / seconds, line=line, annotation=text, annotation_position="top")
    return _on_lanes(drawn, sorted(set(lanes), reverse=True), unit, pauses=bool(clock.pauses))


def _on_lanes(drawn: go.Figure, names: list[str], unit: str, *, pauses: bool) -> go.Figure:
    title = f"{unit} since the study began{', pauses cut out' if pauses else ''}"
    lane_axis = {"type": "category", "categoryorder": "array", "categoryarray": names, "showgrid": False}
    layout = {"xaxis": {"title": {"text": title}}, "yaxis": lane_axis}
    return style.dressed(drawn, max(150, 90 + 34 * len(names)), barmode="overlay", bargap=0.25, **layout)


@dataclass(frozen=True)
class _Bar:
    """A trial's time in a lane, in the figure's unit since the study began."""

    row: Trial
    stint: Stint
    lane: str
    start: float
    end: float


def _bars(bars: Sequence[_Bar], shortest: float, seconds: float) -> list[go.Bar]:
    """Return the trace of bars of one ending, if there are any; those longer than ``shortest`` show their trial's number."""
    if not bars:
        return []
    hovers = [
        f"{style.hover(bar.row)}<br>{datetime.fromtimestamp(bar.stint.start).astimezone():%Y-%m-%d %H:%M:%S}, "
        f"{words.span((bar.end - bar.start) * seconds)}"
        for bar in bars
    ]
    trace = go.Bar(
        base=[bar.start for bar in bars],
        x=[bar.end - bar.start for bar in bars],
        y=[bar.lane for bar in bars],
        orientation="h",
        name=str(bars[0].stint.ending),
        marker={"color": style.ENDINGS[bars[0].stint.ending], "line": {"color": "white", "width": 1}},
        text=[str(bar.row.number) if bar.end - bar.start > shortest else "" for bar in bars],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        constraintext="inside",
        hovertext=hovers,
        hovertemplate="%{hovertext}<extra></extra>",
    )
    return [trace]


class _Clock:
    """Seconds since the first trial began, not counting times in which nothing ran for long."""

    def __init__(self, spans: Sequence[tuple[float, float]]) -> None:
        self._first = spans[0][0]
        busy_until = spans[0][1]
        gaps: list[tuple[float, float]] = []
        for start, end in spans:
            if start > busy_until:
                gaps.append((busy_until, start))
            busy_until = max(busy_until, end)
        whole = busy_until - self._first
        limit = max(PAUSE_SECONDS, 0.05 * (whole - sum(end - start for start, end in gaps)))
        self._gaps = [(start, end) for start, end in gaps if end - start > limit]
        self.total = whole - sum(end - start for start, end in self._gaps)
        self.pauses = [(self.at(start), end - start) for start, end in self._gaps]

    def at(self, moment: float) -> float:
        """Return where a moment (seconds since the epoch) lies on this clock."""
        return moment - self._first - sum(min(moment, end) - start for start, end in self._gaps if moment > start)


def _lanes(stints: Sequence[Stint], now: float) -> list[str]:
    """Return each stint's lane; those of one device that overlap take lanes of their own. Stints come in order."""
    free: dict[tuple[str, str], list[float]] = {}
    numbers: list[int] = []
    for stint in stints:
        ends = free.setdefault((stint.host, stint.device), [])
        lane = next((index for index, end in enumerate(ends) if end <= stint.start + 1e-6), len(ends))
        ends[lane : lane + 1] = [stint.end or now]
        numbers.append(lane)
    several_hosts = len({stint.host for stint in stints}) > 1
    return [
        _name(stint, number if len(free[stint.host, stint.device]) > 1 else None, several_hosts)
        for stint, number in zip(stints, numbers, strict=True)
    ]


def _name(stint: Stint, number: int | None, several_hosts: bool) -> str:
    device = f"GPU {stint.device}" if stint.device[:1].isdigit() else stint.device
    parts = [stint.host if several_hosts else "", device, "" if number is None else f"slot {number + 1}"]
    return " · ".join(part for part in parts if part)
