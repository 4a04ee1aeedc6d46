"""``sweep show``, ``replay``, ``report``, ``list`` and ``ui``: results, read without disturbing a running driver."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweepkit.cli import studies
from sweepkit.study.errors import InputError, StudyNotFound, SweepError

if TYPE_CHECKING:
    from sweepkit.study.study import StudyData


def show(
    study: studies.Argument,
    as_json: studies.Json = False,
    every: Annotated[bool, typer.Option("--all", help="List every trial in the order tried.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Print once instead of following a running study.")] = False,
) -> None:
    """Show a study's best trials, what is running, what failed, and where the hours went.

    On a terminal, a running study is followed live; Ctrl-C leaves the view, and the study keeps running.
    """
    from sweepkit.check.find import find_run
    from sweepkit.report.rows import read, to_json
    from sweepkit.study.locks import lock_owner

    data = find_run(study)
    if as_json:
        typer.echo(json.dumps(to_json(data, read(data)), indent=2))
        return
    from sweepkit.report import terminal
    from sweepkit.report.progress import follow, snapshot

    if not every and not once and sys.stdout.isatty() and lock_owner(data.place):
        follow(data)
    else:
        terminal.show(snapshot(data, every=every))


def replay(study: studies.Argument, overrides: studies.Overrides = None) -> None:
    """Show how a study would have ended under another pruner, from the curves it recorded; trains and writes nothing.

    The configurations that the study tried are replayed in the same order. --set takes pruner.*, search, backend.parallel,
    budget.trials, budget.worth and confirm.top. For example: sweep replay reviews --set pruner.type=median
    """
    from sweepkit.check.find import find_run
    from sweepkit.driver.replay import replay as replayed

    for line in replayed(find_run(study), overrides or []).sentences():
        typer.echo(line)


def report(
    study: studies.Argument,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="File to write; by default report.html in the study's folder."
        ),
    ] = None,
) -> None:
    """Write the report as one HTML page that needs no network: figures, findings, and what to do next.

    The page is also attached to the study's run in MLflow.
    """
    from sweepkit import report as package
    from sweepkit.check.find import find_run
    from sweepkit.report import terminal

    data = find_run(study)
    for finding in package.findings(data):
        typer.echo(f"{finding.message} {finding.advice}")
    path = package.write(data, output)
    typer.echo(f"wrote {terminal.short_path(path)}")
    if result := package.record(data, path):
        typer.echo(result)


def list_(as_json: studies.Json = False) -> None:
    """List the studies of this project that ran or are running."""
    from sweepkit.check.find import stored_study, study_folders, study_names
    from sweepkit.report import terminal
    from sweepkit.report.answer import Answer
    from sweepkit.report.rows import read, study_json
    from sweepkit.report.watch import read_state
    from sweepkit.study.damage import name_files

    runs = []
    for folder in study_folders():
        try:
            with name_files():
                study = stored_study(folder)
                runs.append(Answer.read(study, read(study)))
        except SweepError as error:  # its database may be down, or need a password, which is never recorded
            typer.echo(f"{folder.name}: {error}", err=True)
    if as_json:
        lines = [
            study_json(each.study, each.rows, each.winners, read_state(each.study, each.rows).status) for each in runs
        ]
        typer.echo(json.dumps({"studies": lines}, indent=2))
    elif runs:
        terminal.show(terminal.overview(runs))
    elif not study_names():
        typer.echo("no study of this project has run yet")


def ui(
    study: studies.Argument = "",
    port: Annotated[
        int,
        typer.Option(min=1, max=65535, help="Port to serve on; if it is taken, the next free one."),
    ] = 5000,
) -> None:
    """Serve MLflow on this machine and print the link to the study's runs; Ctrl-C stops it.

    Without STUDY, the link leads to everything in the store that this project's studies are recorded in.
    """
    from sweepkit.check.find import find_run
    from sweepkit.trackers import tracker_of
    from sweepkit.trackers.courier import answering

    data = find_run(study) if study else _recorded(port)
    tracker = tracker_of(data)
    server = tracker.open_ui(port)
    link, shown = server.front, server.store
    if study:
        with answering(tracker, "the view of the study"):
            link, shown = tracker.link(server.address), data.name
    if not server.command:
        typer.echo(link)
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server must not outlive this process
    try:
        with server.serving() as process:
            typer.echo(f"{tracker.name} serves {shown}; Ctrl-C stops it\n\n  {link}\n")
            raise typer.Exit(process.wait())
    except KeyboardInterrupt:
        typer.echo("ended")


def _recorded(port: int) -> StudyData:
    """Return a study of this project that is recorded. Raises StudyNotFound without one, InputError for several stores."""
    from sweepkit.check.find import stored_study, study_folders
    from sweepkit.trackers import tracker_of

    stores: dict[str, list[StudyData]] = {}
    for folder in study_folders():
        try:
            data = stored_study(folder)
            server = tracker_of(data).open_ui(port) if tracker_of(data).name else None
        except SweepError as error:  # the password of its store, for example, which is never recorded
            typer.echo(f"{folder.name}: {error}", err=True)
            continue
        if server and server.exists:
            stores.setdefault(server.store, []).append(data)
    if not stores:
        raise StudyNotFound("no study of this project is recorded; sweep run does it, unless tracking.uri is none")
    if len(stores) > 1:
        listed = "; ".join(f"{', '.join(data.name for data in found)} in {store}" for store, found in stores.items())
        raise InputError(
            f"the studies here are recorded in {len(stores)} places: {listed}; name a study: sweep ui STUDY"
        )
    return next(iter(stores.values()))[-1]
