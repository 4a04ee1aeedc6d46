"""``sweep run``, ``try``, ``enqueue``, ``stop``, ``retry`` and ``sync``: running a study and steering it."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from sweepkit.cli import studies
from sweepkit.study.backends import BACKENDS, meanings
from sweepkit.study.errors import InputError
from sweepkit.study.files import printable

if TYPE_CHECKING:
    from sweepkit.check import Checked

EXIT_CODES = {"done": 0, "failed": 1, "undelivered": 3, "interrupted": 130}


def run(
    study: studies.Argument,
    overrides: studies.Overrides = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over; earlier runs under this name are archived, not deleted.")
    ] = False,
    backend: Annotated[
        str | None,
        typer.Option(
            help=f"Where trials run: {meanings()}. Short for --set backend.type=….",
            autocompletion=lambda: list(BACKENDS),
            show_default=False,
        ),
    ] = None,
    parallel: Annotated[
        str | None,
        typer.Option(
            help="Trials at a time: a number or auto. Short for --set backend.parallel=….", show_default=False
        ),
    ] = None,
) -> None:
    """Run a study until its budget is spent; after an interruption the same command resumes it.

    Ctrl-C lets running trials checkpoint first; pressed twice, it ends them at once.

    Exit codes: 0 done, 1 failed (the study, or a trial that no retry saved), 2 bad input, 3 done, but the tracker has not
    received everything, 130 interrupted.

    For example: sweep run study.yaml --set budget.trials=10 --parallel 2
    """
    _say_at_once(study)
    from sweepkit.check.find import find_study

    options = {"--backend": backend, "--parallel": parallel}
    short = [f"{option}={value}" for option, value in options.items() if value is not None]
    _run(find_study(study, [*(overrides or []), *short]), fresh=fresh)


def _say_at_once(what: str) -> None:
    """Print the first line before the slow imports."""
    typer.echo(f"checking {printable(what)} …")


def _run(checked: Checked, *, fresh: bool = False) -> NoReturn:
    """Run a study with a live view, print its summary, and exit."""
    from sweepkit.driver.run import run_checked
    from sweepkit.report import terminal
    from sweepkit.report.progress import watcher
    from sweepkit.report.rows import open_failures

    with watcher() as view:
        outcome = run_checked(checked, fresh=fresh, watch=view)
    terminal.show(terminal.summary(outcome, checked.study))
    ended = str(outcome.status)
    if ended == "done":
        ended = "failed" if open_failures(outcome.rows) else "undelivered" if outcome.undelivered else "done"
    raise typer.Exit(EXIT_CODES[ended])


def tune(
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help=studies.DATA, autocompletion=studies.complete_path, show_default=False),
    ],
    model: studies.DefaultModel = "",
    minutes: Annotated[
        float | None, typer.Option(help="Minutes in all, confirmation included; 30 by default.", show_default=False)
    ] = None,
    kind: studies.RecognisedKind = "",
    name: studies.Name = "",
    overrides: studies.Overrides = None,
    no_run: Annotated[
        bool, typer.Option("--no-run", "--dry-run", help="Write the study and print the plan, but do not run it.")
    ] = False,
) -> None:
    """Tune a model on your data without writing a study: it is planned, written to a folder, and run.

    Kind and columns follow from the data, length and number of trials from measured steps and --minutes; each decision is
    printed and written to the study file. The same command, or sweep run, resumes the study; exit codes are those of sweep run.

    For example: sweep tune reviews.csv --model distilbert/distilbert-base-uncased --minutes 60
    """
    _say_at_once(data)
    from sweepkit.check.find import find_study
    from sweepkit.cli.plan import plan
    from sweepkit.cli.request import default_folder
    from sweepkit.cli.tune import Plan
    from sweepkit.cli.writing import run_probe
    from sweepkit.report import terminal

    typed = {"model": model, "minutes": "" if minutes is None else f"{minutes:g}", "kind": kind, "name": name}
    request = Plan(
        command="tune",
        data=data,
        folder=Path(name) if name else default_folder(data, "-tuned"),
        options={option: value for option, value in typed.items() if value},
        overrides=overrides or [],
        say=typer.echo,
        probe=run_probe,
    )
    try:
        file = str(request.study_file())
    except KeyboardInterrupt:
        typer.echo("interrupted; no study was written, and the same command plans it again", err=True)
        raise typer.Exit(EXIT_CODES["interrupted"]) from None
    checked = find_study(file)
    if not no_run:
        _run(checked)
    terminal.show(plan(checked.study, file))


def try_(
    study: studies.Argument,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            metavar="NAME=VALUE",
            help="A hyperparameter, for example -p learning_rate=3e-5. May be repeated.",
            show_default=False,
        ),
    ] = None,
    trial: Annotated[
        int | None,
        typer.Option(
            help="Use the hyperparameters of this trial; for a member of a population, its whole schedule.",
            show_default=False,
        ),
    ] = None,
    overrides: studies.Overrides = None,
) -> None:
    """Train one trial in this process, where a debugger works; nothing is recorded.

    Hyperparameters come from --param, then --trial, then the baseline; the rest are their consumer's defaults.

    For example: sweep try study.yaml -p learning_rate=3e-5
    """
    _say_at_once(study)
    from sweepkit.backends.inline import try_one
    from sweepkit.check.find import find_study
    from sweepkit.report import terminal
    from sweepkit.study import words

    checked = find_study(study, overrides or [])
    data = checked.study
    given, turns = studies.schedule_of(data, trial) if trial is not None else (data.baseline or {}, ())
    finished = try_one(data, studies.complete_values(checked, {**given, **studies.assignments(param or [])}), turns)
    goals = zip(data.objective.goals, finished.values, strict=False)
    tail = ", ".join(f"{goal.metric} {words.value(value)}" for goal, value in goals) or finished.cause
    typer.echo(f"{finished.ending} in {words.span(finished.seconds)}" + (f": {tail}" if tail else ""))
    folder = data.place.folder / "try"
    if folder.exists():
        typer.echo(f"files: {terminal.short_path(folder)}")
    raise typer.Exit(0 if finished.ending in ("complete", "pruned") else 1)


def enqueue(
    study: studies.Argument,
    values: Annotated[
        list[str],
        typer.Argument(metavar="NAME=VALUE", help="The configuration; omitted names are sampled.", show_default=False),
    ],
) -> None:
    """Queue a hand-picked configuration: the study tries it next, now or when it runs again.

    For example: sweep enqueue reviews learning_rate=3e-5 per_device_train_batch_size=16
    """
    from sweepkit.check.find import find_study
    from sweepkit.report.rows import read
    from sweepkit.study import words

    checked = find_study(study)
    data = checked.study
    params = studies.within_space(data, studies.assignments(values))
    number = studies.search(checked).enqueue(params)
    typer.echo(f"trial {number} of {data.name} will be {words.settings(params)}")
    total, rows = data.budget.trials, read(data)
    retried = {row.retry_of for row in rows}
    if total is not None and sum(row.ending != "waiting" and row.number not in retried for row in rows) >= total:
        typer.echo(f"budget.trials ({total}) is spent; raise it, for example with --set budget.trials={number + 1}")


def stop(study: studies.Argument) -> None:
    """Stop a running study: its trials checkpoint first, and sweep run resumes them."""
    import os
    import signal
    import socket

    from sweepkit.check.find import find_run
    from sweepkit.study.locks import lock_owners

    data = find_run(study)
    owners = lock_owners(data.place)
    here = [pid for pid, host in owners if host == socket.gethostname()]
    if not owners:
        typer.echo(f"{data.name} is not running")
    elif not here:
        pid, host = owners[0]
        raise InputError(f"{data.name} is run by process {pid} on {host}; run sweep stop there")
    for pid in here:
        try:
            os.kill(pid, signal.SIGTERM)  # not SIGINT, which a shell's background job may ignore
        except ProcessLookupError:
            typer.echo(f"{data.name} is no longer running")
            continue
        typer.echo(f"asked process {pid} to stop {data.name}; its running trials checkpoint first")


def retry(
    study: studies.Argument,
    failed: Annotated[
        bool, typer.Option("--failed", help="Retry every failed trial that has not been retried.")
    ] = False,
    trial: Annotated[
        list[int] | None,
        typer.Option(
            "--trial", metavar="NUMBER", help="Retry this trial, by number. May be repeated.", show_default=False
        ),
    ] = None,
) -> None:
    """Queue trials again with the same hyperparameters, as new trials that refer to the old ones."""
    from sweepkit.check import Checked, known_values
    from sweepkit.check.find import find_run
    from sweepkit.report import rows
    from sweepkit.study import words
    from sweepkit.study.locks import lock_owner

    if not failed and not trial:
        raise InputError("choose the trials: --failed for every failed one, or --trial 7 for one of them")
    data = find_run(study)
    failures = [row.number for row in rows.open_failures(rows.read(data))] if failed else []
    chosen = sorted({*(trial or []), *failures})
    if not chosen:
        typer.echo(f"{data.name} has no failed trial that was not retried")
        return
    for old, new in zip(chosen, studies.search(Checked(data, known_values(data))).retry(chosen), strict=True):
        typer.echo(f"trial {new} retries trial {old}")
    if lock_owner(data.place) is None:
        typer.echo(f"train {words.plural(len(chosen), 'trial')} with: sweep run {quote(study)}")


def sync(study: studies.Argument) -> None:
    """Deliver to MLflow what it missed, for example while its server was down."""
    from sweepkit.check.find import find_run
    from sweepkit.report.answer import Answer
    from sweepkit.report.rows import CONFIRM, Reader
    from sweepkit.report.watch import read_state
    from sweepkit.study import words
    from sweepkit.study.locks import StudyLock
    from sweepkit.trackers import tracker_of
    from sweepkit.trackers.courier import answering

    data = find_run(study)
    if not tracker_of(data).name:
        typer.echo(f"{data.name} is not tracked (tracking.uri: none); there is nothing to deliver")
        return
    state = read_state(data, Reader(data).rows())  # before the lock, which a driver holds
    with StudyLock(data.place):
        behind = 0
        for suffix in (CONFIRM, ""):
            reader = Reader(data, suffix=suffix)
            rows = reader.rows()
            if suffix and not rows:
                continue
            tracker = tracker_of(data, reader.rows, place=reader.place)
            behind += tracker.behind()
            with answering(tracker, "what it lacks"):
                tracker.open()
                if tracker.note:
                    typer.echo(tracker.note)
                tracker.sync()
        with answering(tracker, "the study's answer"):
            tracker.close(Answer.read(data, rows).record(status=state.status, reason=state.reason))
    typer.echo(f"delivered {words.plural(behind, 'trial')}" if behind else "nothing was missing")
