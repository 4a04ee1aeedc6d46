"""``sweep best``: the best model's path, its export, its predictions and its place on the Hub."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweepkit.cli import studies
from sweepkit.study.errors import InputError, StudyNotFound

if TYPE_CHECKING:
    from sweepkit.report.answer import Answer
    from sweepkit.study.study import StudyData
    from sweepkit.trial.trial import Trial


def _file(option: str, text: str) -> Any:
    return typer.Option(
        option, metavar="FILE", help=text, show_default=False, autocompletion=studies.complete_path, dir_okay=False
    )


_Export = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Write the model to this folder, with everything needed to train it again.",
        show_default=False,
    ),
]


def best(  # the options of a command
    study: studies.Argument,
    as_json: studies.Json = False,
    export: _Export = None,
    predict: Annotated[
        Path | None,
        _file("--predict", "Write what the model predicts for the test split to this file, .csv or .jsonl."),
    ] = None,
    data: Annotated[
        Path | None,
        _file("--data", "With --predict: rows to predict instead of the test split, labelled or not."),
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Upload the model with its card to the Hub, as NAME.", show_default=False),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="With --push: make a new repository private.")] = False,
) -> None:
    """Print the best trial and the path of its checkpoint; in a pipe only the path, for $(sweep best STUDY).

    After a confirmation, the best trial is the one with the best mean over new seeds. With several goals, one path per trial
    of the Pareto front is printed. --export writes the model, its hyperparameters, a model card and a training script;
    --predict and --push take the first trial of a front.
    """
    from sweepkit.check.find import find_run
    from sweepkit.report.answer import Answer
    from sweepkit.report.rows import read

    if (data is not None and predict is None) or (private and push is None):
        raise InputError("--data goes with --predict, and --private with --push")
    found_study = find_run(study)
    rows = read(found_study)
    found = Answer.read(found_study, rows)
    chosen = found.winners
    if as_json:
        typer.echo(json.dumps(_json(found), indent=2))
        return
    _require_checkpoint(found_study, rows, chosen)
    if export is not None:
        _export(found_study, rows, chosen, export)
    if predict is not None:
        _predict(found_study, chosen, predict, data)
    if push is not None:
        from sweepkit.report.hub import push as upload

        typer.echo(upload(found_study, rows, _first(found_study, chosen), push, private=private))
    if (export, predict, push) == (None, None, None):
        _print(found)


def _json(answer: Answer) -> dict[str, Any]:
    from sweepkit.report.rows import trial_json

    study = answer.study
    winners, goals = [trial_json(study, row) for row in answer.winners], study.objective.goals
    return {
        "study": study.name,
        "goals": [goal.model_dump() for goal in goals],
        "best": winners if len(goals) > 1 else winners[0] if winners else None,
        "verdict": answer.verdict.to_json() if answer.verdict else None,
        "test": asdict(answer.test) if answer.test else None,
    }


def _print(answer: Answer) -> None:
    """Print the answer to a terminal, and the paths of the winners' checkpoints."""
    if sys.stdout.isatty():
        from sweepkit.report import terminal

        terminal.console(stderr=True).print(terminal.answer(answer))
    for row in answer.winners:
        if row.checkpoint is not None:
            typer.echo(str(row.checkpoint))
        else:
            typer.echo(f"trial {row.number} is Pareto-optimal, but its checkpoint is not on this machine", err=True)


def _predict(study: StudyData, winners: list[Trial], output: Path, data: Path | None) -> None:
    from sweepkit.driver.predict import predict
    from sweepkit.report import terminal
    from sweepkit.study import words

    row = _first(study, winners)
    answer = predict(study, row, output, data)
    typer.echo(f"wrote {terminal.short_path(output)}: {words.plural(answer['rows'], 'row')} by trial {row.number}")
    if answer["metrics"]:
        typer.echo(words.metrics(answer["metrics"]))


def _first(study: StudyData, winners: list[Trial]) -> Trial:
    """Return the first winner. Raises StudyNotFound where its checkpoint is gone."""
    _require_checkpoint(study, winners, winners[:1])
    return winners[0]


def _export(study: StudyData, rows: list[Trial], winners: list[Trial], folder: Path) -> None:
    from sweepkit.report import terminal
    from sweepkit.report.export import export

    for row in winners:
        target = folder if len(winners) == 1 else folder / f"trial-{row.number:04d}"
        for path in export(study, rows, row, target.resolve()):
            typer.echo(f"wrote {terminal.short_path(path)}")


def _require_checkpoint(study: StudyData, rows: list[Trial], winners: list[Trial]) -> None:
    if not winners:
        count = f"none of its {len(rows)} trials completed" if rows else "it has no trials yet"
        raise StudyNotFound(f"{study.name} has no best trial: {count}")
    if all(row.checkpoint is None for row in winners):
        raise StudyNotFound(
            f"trial {winners[0].number} is the best of {study.name}, but its checkpoint is not on this machine: "
            f"{study.place.trial(winners[0].number) / 'best'} does not exist"
        )
