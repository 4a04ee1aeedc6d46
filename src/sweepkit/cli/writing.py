"""``sweep new``, ``task``, ``import``, ``check`` and ``schema``: writing study files and checking them."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help=f"{studies.DATA} With --data, the folder to write instead.",
            autocompletion=studies.complete_path,
            show_default=False,
        ),
    ],
    kind: studies.RecognisedKind = "",
    source: Annotated[
        str, typer.Option("--data", help="The data, where the argument is the folder to write.", show_default=False)
    ] = "",
    model: studies.DefaultModel = "",
    metric: Annotated[
        str,
        typer.Option(help="Metric to optimise, for example f1; by default the kind's usual one.", show_default=False),
    ] = "",
    name: studies.Name = "",
    overrides: studies.Overrides = None,
) -> None:
    """Write a study for your data, ready to run: the kind of task and the columns are recognised and printed.

    For example: sweep new reviews.csv --model bert-base-uncased
    """
    from sweepkit.cli.new import write
    from sweepkit.cli.request import Request, default_folder

    default = data if source else default_folder(data, "-study" if Path(data).is_dir() else "")
    typed = {"data": source, "kind": kind, "model": model, "metric": metric, "name": name}
    request = Request(
        command="new",
        data=source or data,
        folder=Path(name or default),
        options={option: value for option, value in typed.items() if value},
        overrides=overrides or [],
        say=typer.echo,
    )
    _next(_wrote(write(request, metric)), request.to_do)


def task(
    folder: Annotated[
        Path, typer.Argument(metavar="NAME", help="Folder to write; the study takes its name.", show_default=False)
    ],
) -> None:
    """Write a skeleton of your own Task and a study that trains it; both run as they are.

    For example: sweep task mytask
    """
    from sweepkit.cli.new import write_task

    _next(_wrote(write_task(folder)))


def _wrote(files: Sequence[Path]) -> str:
    """Say which files were written, and return the first as it is typed."""
    from sweepkit.report import terminal

    for path in files:
        typer.echo(f"wrote {terminal.short_path(path.resolve())}")
    return terminal.short_path(files[0].resolve())


def _next(file: str, to_do: Sequence[str] = ()) -> None:
    """Say what is left to do before a study can run, and how to run it."""
    from sweepkit.check.find import find_study

    found = [*to_do]
    try:
        find_study(file)
    except StudyFileError as error:
        found += map(str, error.problems)
    if found:
        typer.echo("\n  ".join(["\nto do before it can run", *found]))
    typer.echo(f"\nnext\n  sweep check {quote(file)}\n  sweep run {quote(file)}")


def import_(
    sweep: Annotated[Path, typer.Argument(metavar="SWEEP", help="A W&B sweep file.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Study file to write; an existing one is not overwritten."),
    ] = Path("study.yaml"),
    kind: Kind = FIRST_KIND,
    data: Data = "",
    model: Model = "",
) -> None:
    """Convert a W&B sweep file to a study file, with a warning for each key that has no equivalent.

    For example: sweep import wandb-sweep.yaml --kind text-classification --data my.csv --model bert-base-uncased
    """
    from sweepkit.check.wandb import FILL_IN, import_sweep
    from sweepkit.cli.request import check_kind, data_reference, reference
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
    _next(file, to_do)


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
    forecast = run_probe(checked) if probe else None
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


def run_probe(checked: Checked) -> Forecast:
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
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write to this file instead of standard output.", show_default=False
        ),
    ] = None,
    recipe: Annotated[
        bool, typer.Option("--recipe", help="Print the schema of recipes, the files of sweeps/.")
    ] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Print the meaning of every key as text.")] = False,
) -> None:
    """Print the JSON schema of study files, so that editors can complete and check them.

    An editor finds it by the file's first line: # yaml-language-server: $schema=study.schema.json
    """
    from sweepkit.check import reference, schema

    if explain and recipe:
        raise InputError("--explain and --recipe exclude each other")
    found = schema.recipe_schema if recipe else schema.schema
    text = reference.explain() if explain else json.dumps(found(), indent=1, ensure_ascii=False)
    if output is None:
        typer.echo(text)
    else:
        output.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        typer.echo(f"wrote {output}")
