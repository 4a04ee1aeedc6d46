"""What a finished or running study teaches: its answer, health checks, figures, and one page that holds them all.

Heavy libraries are imported when they are needed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sweepkit.study.errors import StudyFailed
from sweepkit.study.files import write_whole

if TYPE_CHECKING:
    from sweepkit.report.health import Finding
    from sweepkit.study.study import StudyData

PAGE_MODE = 0o644
"""A report is made to be passed on; it has no secrets."""


def findings(study: StudyData) -> list[Finding]:
    """Return what is wrong, or could be better, in a study; the most pressing first."""
    from sweepkit.report.evidence import gather
    from sweepkit.report.health import findings

    return findings(gather(study))


def write(study: StudyData, path: Path | None = None) -> Path:
    """Write the report as one HTML file that needs no network, and return it; by default in the study's folder."""
    from sweepkit.report.evidence import gather
    from sweepkit.report.page import html

    path = path or study.place.report
    page = html(gather(study))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page, mode=PAGE_MODE)
    return path


def record(study: StudyData, path: Path) -> str:
    """Attach a written report to the study's record; return in words how that went.

    Empty where the study is recorded nowhere. Raises StudyFailed where the store does not take it.
    """
    from sweepkit.trackers import tracker_of
    from sweepkit.trackers.courier import answering

    tracker = tracker_of(study)
    if not tracker.name:
        return ""
    with answering(tracker, "the report"):
        attached = tracker.attach(path)
    return (
        f"logged to {tracker.name} with the study's run" if attached else f"{tracker.name} has no run of the study yet"
    )


def conclude(study: StudyData, written: Callable[[], Path], *, recorded: bool) -> str:
    """Attach the report that ``written`` returns to the tracker's record; return in words how both went. Never raises.

    ``recorded`` is whether the tracker took all the rest: a server that is down is not waited for again.
    """
    from sweepkit.report.terminal import short_path

    try:
        path = written()
    except Exception as error:  # noqa: BLE001  # an edge: the study is done, with or without its report
        return f"the report was not written ({type(error).__name__}: {error}); `sweep report` tries again"
    try:
        said = record(study, path) if recorded else ""
    except StudyFailed as error:
        said = str(error)
    return ", ".join(part for part in (f"report: {short_path(path)}", said) if part)
