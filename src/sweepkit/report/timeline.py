"""Figures of the time that a study took: the hours by ending, and who held which slot when."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import plotly.graph_objects as go

from sweepkit.report import style
from sweepkit.report.evidence import Evidence, Stint, evidence_of
from sweepkit.report.rows import CONFIRMED, WON, hours_by_ending
from sweepkit.study import words
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Ending, Trial

INSIDE = {"textposition": "inside", "insidetextanchor": "middle"}
PAUSE_SECONDS = 60.0
"""The timeline cuts out longer times in which no trial ran."""


def ledger(about: StudyData | Evidence) -> go.Figure:
    """Return where the time went: one bar, by how trials ended, and the time that slots stood idle."""
    evidence = evidence_of(about)
    spent = hours_by_ending(evidence.rows, confirmed=evidence.confirmed, slot_hours=evidence.slot_hours)
    total = sum(spent.values())
    if not total:
        return style.nothing("No time is recorded yet.")
    unit, seconds = style.unit(3600 * total)
    colors = {ending.value: color for ending, color in style.ENDINGS.items()}
    colors |= {WON: style.ENDINGS[Ending.complete], CONFIRMED: style.ACCENT, "idle": style.IDLE}
    drawn = go.Figure()
    for name, hours in spent.items():
        if hours > 0:
            label = f"{name} {words.span(hours * 3600)}"
            drawn.add_bar(
                x=[3600 * hours / seconds],
                y=[""],
                orientation="h",
                name=name,
                marker={"color": colors[name], "line": {"color": "white", "width": 1}},
                text=[label if hours / total > 0.12 else ""],
                **INSIDE,
                hovertemplate=f"{label} · {hours / total:.0%}<extra></extra>",
            )
    hidden = {"visible": False}
    return style.dress(drawn, 130, barmode="stack", xaxis={"title": {"text": unit}}, yaxis=hidden, bargap=0.2)


def timeline(about: StudyData | Evidence) -> go.Figure:
    """Return which trial held which slot when; times in which nothing ran (the study stood still) are cut out."""
    evidence = evidence_of(about)
    held = [(row, stint) for row in evidence.rows for stint in evidence.course(row).stints]
    if not held:
        return style.nothing("The trials' logs are not here; without them the slots are not known.")
    held.sort(key=lambda pair: pair[1].start)
    clock = _Clock([stint for _, stint in held])
    lanes = _lanes([stint for _, stint in held], clock.end)
    unit, seconds = style.unit(clock.total)
    drawn = go.Figure()
    for ending in style.ENDINGS:
        bars = [(row, stint, lane) for (row, stint), lane in zip(held, lanes, strict=True) if stint.ending is ending]
        if bars:
            drawn.add_trace(_bars(bars, clock, seconds))
    for at, length in clock.pauses:
        text = {"text": f"nothing ran for {words.span(length)}", "font": {"size": 10, "color": style.SOFT}}
        line = {"color": style.SOFT, "width": 1, "dash": "dot"}
        drawn.add_vline(x=at / seconds, line=line, annotation=text, annotation_position="top")
    title = f"{unit} since the study began{', idle times cut out' if clock.pauses else ''}"
    names = sorted(set(lanes), reverse=True)
    y_axis = {"type": "category", "categoryorder": "array", "categoryarray": names, "showgrid": False}
    height, x_axis = max(150, 90 + 34 * len(names)), {"title": {"text": title}}
    return style.dress(drawn, height, barmode="overlay", bargap=0.25, xaxis=x_axis, yaxis=y_axis)


def _bars(bars: Sequence[tuple[Trial, Stint, str]], clock: _Clock, unit: float) -> go.Bar:
    """Return the trace of stints of one ending, ``unit`` seconds to one; those that are long enough show their trial."""
    rows, stints, lanes = zip(*bars, strict=True)
    starts = [clock.at(stint.start) for stint in stints]
    lengths = [clock.at(stint.end or clock.end) - start for stint, start in zip(stints, starts, strict=True)]
    days = [datetime.fromtimestamp(stint.start).astimezone() for stint in stints]
    return go.Bar(
        base=[start / unit for start in starts],
        x=[length / unit for length in lengths],
        y=lanes,
        orientation="h",
        name=str(stints[0].ending),
        marker={"color": style.ENDINGS[stints[0].ending], "line": {"color": "white", "width": 1}},
        text=[str(row.number) if length > clock.total / 60 else "" for row, length in zip(rows, lengths, strict=True)],
        textangle=0,
        constraintext="inside",
        hovertext=[
            f"{style.hover(row)}<br>{day:%Y-%m-%d %H:%M:%S}, {words.span(length)}"
            for row, day, length in zip(rows, days, lengths, strict=True)
        ],
        hovertemplate="%{hovertext}<extra></extra>",
        **INSIDE,
    )


class _Clock:
    """Seconds since the first trial began, not counting times in which nothing ran for long."""

    def __init__(self, stints: Sequence[Stint]) -> None:
        self.end = max(stint.end or stint.start for stint in stints)
        self._first = busy_until = stints[0].start
        gaps: list[tuple[float, float]] = []
        for stint in stints:
            if stint.start > busy_until:
                gaps.append((busy_until, stint.start))
            busy_until = max(busy_until, stint.end or self.end)
        whole = self.end - self._first
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
    names = []
    for stint, number in zip(stints, numbers, strict=True):
        device = f"GPU {stint.device}" if stint.device[:1].isdigit() else stint.device
        slot = f"slot {number + 1}" if len(free[stint.host, stint.device]) > 1 else ""
        names.append(" · ".join(part for part in (stint.host * several_hosts, device, slot) if part))
    return names
