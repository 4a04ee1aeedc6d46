"""``sweep report``: what a study teaches, as one page. Knows no figure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweepkit.cli import studies


def report(
    study: studies.Argument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; report.html in the study's folder by default.")
    ] = None,
) -> None:
    """Write what a study teaches as one HTML page that works offline: figures, and what to do next in words.

    The page is also put among the files of the study's run in MLflow.
    """
    from sweepkit import report as teaching
    from sweepkit.check.find import find_run
    from sweepkit.report import terminal

    found = find_run(study)
    for finding in teaching.findings(found):
        typer.echo(f"{finding.says} {finding.do}")
    path = teaching.write(found, output)
    typer.echo(f"wrote {terminal.short_path(path)}")
    if said := teaching.record(found, path):
        typer.echo(said)
