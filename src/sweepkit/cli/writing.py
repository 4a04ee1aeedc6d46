"""``sweep new``, ``import``, ``check`` and ``schema``: writing study files and checking them."""

from __future__ import annotations

import json
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweepkit.cli import studies
from sweepkit.study.errors import InputError, Problem, StudyFileError
from sweepkit.tasks.kinds import KINDS

if TYPE_CHECKING:
    from sweepkit.check import Checked
    from sweepkit.driver.forecast import Forecast

FIRST_KIND = next(iter(KINDS))
Kind = Annotated[str, typer.Option(help=f"Built-in task kind: {', '.join(KINDS)}.", autocompletion=lambda: list(KINDS))]
Data = Annotated[
    str,
    typer.Option(help="A csv, json or parquet file, a folder of images, or a dataset on the hub.", show_default=False),
]
Model = Annotated[
    str, typer.Option(help="A local folder, a model on the hub, or package:NAME/sub/folder.", show_default=False)
]


def new(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder to write; the study takes its name.", show_default=False)
    ],
    kind: Kind = FIRST_KIND,
    data: Data = "",
    model: Model = "",
    metric: Annotated[
        str,
        typer.Option(help="Metric to optimise, for example f1; by default the kind's usual one.", show_default=False),
    ] = "",
) -> None:
    """Write a study folder from a built-in kind, ready to run.

    For example: sweep new mystudy --kind text-classification --data my.csv --model bert-base-uncased --metric f1
    """
    from sweepkit.cli.new import write
    from sweepkit.report import terminal

    written = write(folder, kind=kind, data=data, model=model, metric=metric)
    for path in written:
        typer.echo(f"wrote {terminal.short_path(path.resolve())}")
    file = quote(terminal.short_path(written[0].resolve()))
    typer.echo(f"\nnext\n  sweep check {file}\n  sweep run {file}")


def import_(
    sweep: Annotated[Path, typer.Argument(metavar="SWEEP", help="A W&B sweep file.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Study file to write; an existing one is not overwritten.")
    ] = Path("study.yaml"),
    kind: Kind = FIRST_KIND,
    data: Data = "",
    model: Model = "",
) -> None:
    """Convert a W&B sweep file to a study file, with a warning for each key that has no equivalent.

    For example: sweep import wandb-sweep.yaml --kind text-classification --data my.csv --model bert-base-uncased
    """
    from sweepkit.check.find import find_study
    from sweepkit.check.wandb import FILL_IN, import_sweep
    from sweepkit.cli.new import check_kind, data_reference, reference
    from sweepkit.report import terminal

    if output.exists():
        raise InputError(f"{output} exists already and is not overwritten; choose another file with --output")
    check_kind(kind)
    home = output.parent
    task = {
        "type": kind,
        "model": reference(model, home, "--model") if model else FILL_IN,
        "data": data_reference(data, home) if data else {"path": FILL_IN},
    }
    converted = import_sweep(sweep, task=task, home=home)
    home.mkdir(parents=True, exist_ok=True)
    output.write_text(converted.text(sweep.name), encoding="utf-8")
    for note in converted.notes:
        typer.echo(f"note: {note}")
    for warning in converted.warnings:
        typer.echo(f"warning: {warning}", err=True)
    file = terminal.short_path(output.resolve())
    typer.echo(f"wrote {file}")
    options = converted.study.task.options
    unnamed = {"model": options.get("model"), "data": (options.get("data") or {}).get("path")}
    to_do = [f"fill in task.{option}" for option, found in unnamed.items() if found == FILL_IN]
    to_do += [] if converted.study.space else ["say in space what may vary; nothing of the sweep could be searched"]
    try:
        find_study(str(output))
    except StudyFileError as error:
        to_do += map(str, error.problems)
    if to_do:
        typer.echo("\n  ".join(["\nto do before it can run", *to_do]))
    typer.echo(f"\nnext\n  sweep check {quote(file)}\n  sweep run {quote(file)}")


def check(
    study: studies.Argument,
    overrides: studies.Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the problems and the resolved study as JSON.")] = False,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="Also train the first steps of a few trials, the most demanding one included, and forecast memory, time and "
            "disk.",
        ),
    ] = False,
) -> None:
    """Check a study file without running anything; every mistake is reported at once, with its line.

    With --probe, exit code 1 means that the study should not run as it is, for example because memory is too small.
    """
    from sweepkit.check.find import find_study

    try:
        checked = find_study(study, overrides or [])
    except StudyFileError as error:
        if as_json:
            typer.echo(json.dumps({"ok": False, "problems": [*map(_plain, error.problems)]}, indent=2))
            raise typer.Exit(error.exit_code) from None
        raise
    data, warnings = checked.study, [_plain(warning) for warning in checked.warnings]
    for warning in () if as_json else checked.warnings:
        typer.echo(f"warning: {warning}", err=True)
    forecast = probed(checked) if probe else None
    objections = forecast.objections(data) if forecast else []
    if as_json:
        from sweepkit.study.identity import plain_study

        resolved = plain_study(data)
        more = {"forecast": {**forecast.plain(), "objections": objections}} if forecast else {}
        typer.echo(json.dumps({"ok": True, "problems": [], "warnings": warnings, **more, "study": resolved}, indent=2))
    else:
        from sweepkit.cli.plan import plan
        from sweepkit.report import terminal

        terminal.show(plan(data, study, forecast))
    raise typer.Exit(1 if objections else 0)


def _plain(problem: Problem) -> dict[str, Any]:
    return {"file": problem.file, "line": problem.line, "path": problem.path, "message": problem.message}


def probed(checked: Checked) -> Forecast:
    """Probe a study, with its progress on standard error."""
    from sweepkit.driver.probe import probe
    from sweepkit.report.watch import Watcher

    class ToStderr(Watcher):
        def on_note(self, text: str) -> None:
            typer.echo(text, err=True)

    return probe(checked, ToStderr())


def schema(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write to this file instead of standard output.", show_default=False),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Print the meaning of every key as text.")] = False,
) -> None:
    """Print the JSON schema of study files, with which editors complete and check them."""
    from sweepkit.check import schema as study_schema

    text = study_schema.explain() if explain else json.dumps(study_schema.schema(), indent=2, ensure_ascii=False)
    if output is None:
        typer.echo(text)
    else:
        output.write_text(text.rstrip("\n") + "\n")
        typer.echo(f"wrote {output}")
