"""Which trial held which slot when. Knows no value."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import plotly.graph_objects as go

from sweepkit.report.evidence import Course, Evidence, Stint, gather
from sweepkit.report.figures import style
from sweepkit.report.figures.hover import of_trial
from sweepkit.study import words
from sweepkit.study.study import StudyData

PAUSE_SECONDS = 60.0
"""A shorter time in which no trial ran is no pause."""


def timeline(about: StudyData | Evidence) -> go.Figure:
    """Return which trial held which slot when; times in which nothing ran at all (the study stood still) are cut out."""
    evidence = about if isinstance(about, Evidence) else gather(about)
    held = [(row, stint) for row in evidence.rows for stint in evidence.courses.get(row.number, Course()).stints]
    if not held:
        return style.nothing("The trials' logs are not here, so that nothing is known of the slots.")
    now = max(stint.end or stint.start for _, stint in held)
    held.sort(key=lambda pair: pair[1].start)
    clock = _Clock([(stint.start, stint.end or now) for _, stint in held])
    lanes = _lanes([stint for _, stint in held], now)
    names = sorted(set(lanes))
    unit, seconds = ("hours", 3600.0) if clock.total > 2 * 3600 else ("minutes", 60.0)
    drawn = style.figure(
        max(150, 90 + 34 * len(names)),
        barmode="overlay",
        bargap=0.25,
        xaxis={"title": {"text": f"{unit} since the study began{', pauses cut out' if clock.pauses else ''}"}},
        yaxis={"type": "category", "categoryorder": "array", "categoryarray": names[::-1], "showgrid": False},
    )
    for ending in style.ENDINGS:
        some = [(row, stint, lane) for (row, stint), lane in zip(held, lanes, strict=True) if stint.ending is ending]
        if not some:
            continue
        spans = [(clock.at(stint.start), clock.at(stint.end or now)) for _, stint, _ in some]
        seen = [end - start > clock.total / 60 for start, end in spans]
        facts = [
            f"{of_trial(row)}<br>{_clock_time(stint.start)}, {words.span(end - start)}"
            for (row, stint, _), (start, end) in zip(some, spans, strict=True)
        ]
        drawn.add_trace(
            go.Bar(
                base=[start / seconds for start, _ in spans],
                x=[(end - start) / seconds for start, end in spans],
                y=[lane for *_, lane in some],
                orientation="h",
                name=str(ending),
                marker={"color": style.ENDINGS[ending], "line": {"color": "white", "width": 1}},
                text=[str(row.number) if wide else "" for (row, *_), wide in zip(some, seen, strict=True)],
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                constraintext="inside",
                hovertext=facts,
                hovertemplate="%{hovertext}<extra></extra>",
            )
        )
    for at, length in clock.pauses:
        drawn.add_vline(x=at / seconds, line={"color": style.SOFT, "width": 1, "dash": "dot"})
        drawn.add_annotation(
            x=at / seconds,
            y=1,
            yref="paper",
            yanchor="bottom",
            showarrow=False,
            text=f"paused {words.span(length)}",
            font={"size": 10, "color": style.SOFT},
        )
    return drawn


def _clock_time(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


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
