"""``sweep show``, ``best``, ``list`` and ``ui``: what a study has found, read without disturbing whoever runs it."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweepkit.cli import studies
from sweepkit.study.errors import StudyNotFound, SweepError
from sweepkit.study.paths import project_root

if TYPE_CHECKING:
    from sweepkit.study.study import StudyData
    from sweepkit.trial.trial import Trial

Json = Annotated[bool, typer.Option("--json", help="Print JSON with stable keys instead.")]


def show(
    study: studies.Argument,
    as_json: Json = False,
    every: Annotated[
        bool, typer.Option("--all", help="List every trial in the order tried, not the best alone.")
    ] = False,
    once: Annotated[
        bool, typer.Option("--once", help="Print once, also where a running study would be followed.")
    ] = False,
) -> None:
    """Show a study's best trials, what is running, what failed, and where the hours went.

    On a terminal, a study that is running is followed live; Ctrl-C ends the looking, not the study.
    """
    from sweepkit.check.find import find_run
    from sweepkit.report.rows import driver, read, to_json

    found = find_run(study)
    if as_json:
        typer.echo(json.dumps(to_json(found, read(found)), indent=2))
        return
    from sweepkit.report import terminal
    from sweepkit.report.progress import follow, snapshot

    if not every and not once and sys.stdout.isatty() and driver(found.place):
        follow(found)
    else:
        terminal.show(snapshot(found, every=every))


def best(
    study: studies.Argument,
    as_json: Json = False,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write the model with all it takes to train it again to this folder.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print where the best trial's checkpoint lies; in a pipe the path alone, as in $(sweep best STUDY).

    After a confirmation the best is the trial with the best mean over new seeds. With several goals: one path for each
    trial of the Pareto front. --export writes the model, its hyperparameters, a model card and a plain training script.
    """
    from sweepkit.check.find import find_run
    from sweepkit.report.answer import Answer
    from sweepkit.report.rows import read, trial_json

    found = find_run(study)
    rows = read(found)
    ahead = Answer.read(found, rows).winners
    if as_json:
        answers = [trial_json(found, row) for row in ahead]
        goals = [goal.model_dump() for goal in found.objective.goals]
        single = answers[0] if answers else None
        answer = {"study": found.name, "goals": goals, "best": single if len(goals) == 1 else answers}
        typer.echo(json.dumps(answer, indent=2))
        return
    _refuse_nothing(found, rows, ahead)
    if export is not None:
        _export(found, rows, ahead, export)
        return
    if sys.stdout.isatty():
        from sweepkit.report import terminal

        terminal.console(stderr=True).print(terminal.answer(found, rows))
    for row in ahead:
        if row.checkpoint is not None:
            typer.echo(str(row.checkpoint))
        else:
            typer.echo(f"trial {row.number} is Pareto-optimal, but its checkpoint is not on this machine", err=True)


def _export(study: StudyData, rows: list[Trial], winners: list[Trial], folder: Path) -> None:
    from sweepkit.report import terminal
    from sweepkit.report.export import export

    for row in winners:
        target = folder if len(winners) == 1 else folder / f"trial-{row.number:04d}"
        for path in export(study, rows, row, target.resolve()):
            typer.echo(f"wrote {terminal.short_path(path)}")


def _refuse_nothing(study: StudyData, rows: list[Trial], winners: list[Trial]) -> None:
    if not winners:
        count = f"none of its {len(rows)} trials was trained to its end" if rows else "it has no trials yet"
        raise StudyNotFound(f"{study.name} has no best trial: {count}")
    if all(row.checkpoint is None for row in winners):
        raise StudyNotFound(
            f"trial {winners[0].number} is the best of {study.name}, but its checkpoint is not on this machine: "
            f"{study.place.trial(winners[0].number) / 'best'} does not exist"
        )


def list_(as_json: Json = False) -> None:
    """List the studies of this project that ran or are running."""
    from sweepkit.check.find import stored_study, study_folders, study_names
    from sweepkit.report import terminal
    from sweepkit.report.answer import Answer
    from sweepkit.report.rows import read, study_json

    found = []
    for folder in study_folders():
        study = stored_study(folder)
        try:
            found.append((study, read(study)))
        except SweepError as error:  # a database may be away, or want a password that is not recorded
            typer.echo(f"{study.name}: {error}", err=True)
    if as_json:
        lines = [study_json(study, rows, Answer.read(study, rows).winners) for study, rows in found]
        typer.echo(json.dumps({"studies": lines}, indent=2))
    elif found:
        terminal.show(terminal.overview(found))
    elif not study_names():
        typer.echo(f"no study has run in {terminal.short_path(project_root(Path.cwd()))} yet")


def ui(
    study: studies.Argument,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port to serve on; the next free one where it is taken.")
    ] = 5000,
) -> None:
    """Serve MLflow on this machine and print the link that compares the study's runs; Ctrl-C ends it."""
    from sweepkit.check.find import find_run
    from sweepkit.trackers import tracker_of

    found = find_run(study)
    tracker = tracker_of(found)
    server = tracker.open_ui(port)
    link = tracker.link(server.address)
    if not server.command:
        typer.echo(link)
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server must not outlive this process
    try:
        with server:
            typer.echo(f"{tracker.name} serves {found.name}; Ctrl-C ends it\n\n  {link}\n")
            raise typer.Exit(server.wait())
    except KeyboardInterrupt:
        typer.echo("ended")
