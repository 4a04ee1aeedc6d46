"""What came out: the optimisation's history, the Pareto front, where the hours went. Knows no parameter."""

from __future__ import annotations

import math
from itertools import combinations

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sweepkit.report.evidence import Evidence, gather
from sweepkit.report.figures import style
from sweepkit.report.figures.hover import of_trial
from sweepkit.report.rows import CONFIRMED, LEDGER, hours_by_ending
from sweepkit.study import words
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Ending, Trial


def history(about: StudyData | Evidence, *, goal: int = 0) -> go.Figure:
    """Return every trial's value in the order tried, the best so far, and the baseline; ``goal`` counts from 0.

    Trials without a value, or far below the others, are marked at the figure's edge.
    """
    evidence = about if isinstance(about, Evidence) else gather(about)
    aim = evidence.study.objective.goals[goal]
    up = aim.direction == "maximize"
    valued = {row.number: row.values[goal] for row in evidence.rows if len(row.values) > goal}
    window = style.window(
        [value for row in evidence.rows if (value := valued.get(row.number)) is not None and row.ending.ranks]
        or valued.values(),
        maximize=up,
    )
    shown = [row for row in evidence.rows if row.ending not in (Ending.waiting, Ending.running)]
    if not shown or window is None:
        return style.nothing("No trial has a value yet.")
    edge = window[0] if up else window[1]
    drawn = style.figure(
        xaxis={"title": {"text": "trial"}}, yaxis={"title": {"text": aim.metric}, "range": list(window)}
    )
    for ending in Ending:
        rows = [row for row in shown if row.ending is ending]
        if rows:
            # plotly's legend shows the first one's mark.
            rows.sort(key=lambda row: not _inside(valued.get(row.number), window, edge)[1])
            drawn.add_trace(_points(rows, ending, [_inside(valued.get(row.number), window, edge) for row in rows]))
    running_best = _running_best(shown, valued, up)
    if running_best:
        steps = [*running_best, (shown[-1].number, running_best[-1][1])]
        drawn.add_trace(
            go.Scatter(
                x=[number for number, _ in steps],
                y=[value for _, value in steps],
                mode="lines",
                line={"color": style.ACCENT, "width": 2, "shape": "hv"},
                name="best so far",
                hoverinfo="skip",
            )
        )
        number, value = running_best[-1]
        drawn.add_annotation(
            x=number,
            y=value,
            text=f"<b>{words.value(value)}</b>",
            showarrow=False,
            yshift=14 if up else -14,
            font={"color": style.ACCENT},
        )
    baseline = evidence.baseline
    if baseline and baseline.number in valued:
        drawn.add_hline(y=valued[baseline.number], line={"color": style.SOFT, "width": 1, "dash": "dot"})
        drawn.add_annotation(
            x=1,
            xref="paper",
            xanchor="right",
            y=valued[baseline.number],
            yshift=-9 if up else 9,
            showarrow=False,
            text="baseline",
            font={"color": style.SOFT, "size": 11},
        )
    return drawn


def _points(rows: list[Trial], ending: Ending, heights: list[tuple[float, bool]]) -> go.Scatter:
    return go.Scatter(
        x=[row.number for row in rows],
        y=[height for height, _ in heights],
        mode="markers",
        name=str(ending),
        marker={
            "color": style.ENDINGS[ending],
            "size": 7,
            "symbol": ["circle" if inside else "x-thin-open" for _, inside in heights],
            "line": {"width": [0 if inside else 1.5 for _, inside in heights], "color": style.ENDINGS[ending]},
        },
        text=[of_trial(row) for row in rows],
        hovertemplate="%{text}<extra></extra>",
        cliponaxis=False,
    )


def _inside(value: float | None, window: tuple[float, float], edge: float) -> tuple[float, bool]:
    """Return where a value is drawn, and whether that is where it is."""
    if value is not None and window[0] <= value <= window[1]:
        return value, True
    return edge, False


def _running_best(rows: list[Trial], valued: dict[int, float], up: bool) -> list[tuple[int, float]]:
    found: list[tuple[int, float]] = []
    for row in rows:
        value = valued.get(row.number, math.nan)
        if (
            row.ending.ranks
            and math.isfinite(value)
            and (not found or (value > found[-1][1]) == up != (value == found[-1][1]))
        ):
            found.append((row.number, value))
    return found


def front(about: StudyData | Evidence) -> go.Figure:
    """Return the trials of a study with several goals, each pair of goals a panel, the Pareto front marked."""
    evidence = about if isinstance(about, Evidence) else gather(about)
    goals = evidence.study.objective.goals
    able = evidence.answer.ranked
    if len(goals) < 2:
        return style.nothing("A Pareto front needs several goals; this study has one.")
    if not able:
        return style.nothing("No trial has been trained to its end yet.")
    best = {row.number for row in evidence.answer.front}
    pairs = list(combinations(range(len(goals)), 2))
    columns = min(len(pairs), 2)
    rows_of_panels = math.ceil(len(pairs) / columns)
    drawn = make_subplots(rows_of_panels, columns, horizontal_spacing=0.12, vertical_spacing=0.2 / rows_of_panels)
    for index, (left, right) in enumerate(pairs):
        at = {"row": index // columns + 1, "col": index % columns + 1}
        for on, name, color in ((False, "beaten", "#b5aea1"), (True, "Pareto front", style.ACCENT)):
            rows = sorted(
                (row for row in able if (row.number in best) is on),
                key=lambda row, axis=left: row.values[axis],  # type: ignore[misc]  # axis is an int
            )
            drawn.add_trace(
                go.Scatter(
                    x=[row.values[left] for row in rows],
                    y=[row.values[right] for row in rows],
                    mode="lines+markers" if on and len(goals) == 2 else "markers",
                    line={"color": color, "width": 1, "dash": "dot"},
                    marker={"color": color, "size": 9 if on else 6},
                    text=[of_trial(row) for row in rows],
                    hovertemplate="%{text}<extra></extra>",
                    name=name,
                    legendgroup=name,
                    showlegend=index == 0,
                ),
                **at,
            )
        drawn.update_xaxes(title_text=_aim(evidence, left), **at)
        drawn.update_yaxes(title_text=_aim(evidence, right), **at)
    return style.dress(drawn, style.HEIGHT if rows_of_panels == 1 else 320 * rows_of_panels)


def _aim(evidence: Evidence, goal: int) -> str:
    aim = evidence.study.objective.goals[goal]
    return f"{aim.metric} {'↑' if aim.direction == 'maximize' else '↓'}"


def ledger(about: StudyData | Evidence) -> go.Figure:
    """Return where the hours went: one bar, by how trials ended, and the time that slots stood idle."""
    evidence = about if isinstance(about, Evidence) else gather(about)
    spent = hours_by_ending(evidence.rows, confirmed=evidence.confirmed, slot_hours=evidence.slot_hours)
    total = sum(spent.values())
    if not total:
        return style.nothing("No hours are recorded yet.")
    colors = {name: style.ENDINGS[ending] for ending, name in LEDGER.items()}
    colors |= {CONFIRMED: style.ACCENT, "idle": style.IDLE}
    drawn = style.figure(130, barmode="stack", xaxis={"title": {"text": "hours"}}, yaxis={"visible": False}, bargap=0.2)
    for name, hours in spent.items():
        if hours <= 0:
            continue
        part = hours / total
        label = f"{name} {words.span(hours * 3600)}"
        drawn.add_trace(
            go.Bar(
                x=[hours],
                y=[""],
                orientation="h",
                name=name,
                marker={"color": colors[name], "line": {"color": "white", "width": 1}},
                text=[label if part > 0.12 else ""],
                textposition="inside",
                insidetextanchor="middle",
                hovertemplate=f"{label} · {part:.0%}<extra></extra>",
            )
        )
    return drawn
