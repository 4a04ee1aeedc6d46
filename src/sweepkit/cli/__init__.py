"""The command ``sweep``: parses, calls and prints. Knows no rule of its own; what a command does is in the library.

Commands import what they need when they run, so that ``sweep --help`` and the shell's completion are quick.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

from sweepkit.cli import looking, reporting, running, writing
from sweepkit.study.errors import StudyFileError, SweepError

DEBUG = "SWEEPKIT_DEBUG"

app = typer.Typer(
    name="sweep",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="STUDY is a study file, its folder, or the name of a study that ran. SWEEPKIT_DEBUG=1 shows tracebacks.",
)

COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Write a study": {
        "new": writing.new,
        "import": writing.import_,
        "check": writing.check,
        "schema": writing.schema,
        "try": running.try_,
    },
    "Run it": {
        "run": running.run,
        "enqueue": running.enqueue,
        "stop": running.stop,
        "retry": running.retry,
        "sync": running.sync,
    },
    "Look at it": {
        "show": looking.show,
        "best": looking.best,
        "report": reporting.report,
        "list": looking.list_,
        "ui": looking.ui,
    },
}
"""Panel of ``sweep --help`` → command → function; a new command is one function and one entry here."""

for panel, commands in COMMANDS.items():
    for name, function in commands.items():
        app.command(name, rich_help_panel=panel)(function)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version as installed

        typer.echo(f"sweepkit {installed('sweepkit')}")
        raise typer.Exit


@app.callback()
def sweep(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Hyperparameter studies for Hugging Face Trainer models."""


def main() -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed, 2 bad input, 130 interrupted. Errors are printed here alone."""
    try:
        app()
    except SweepError as error:
        _tell(error, str(error) if isinstance(error, StudyFileError) else f"error: {error}")
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001  # the last edge: whatever happened, a person gets a sentence
        hint = f"{DEBUG}=1 in front of the command shows where this was raised"
        _tell(error, f"error: {type(error).__name__}: {error}\n{hint}")
        sys.exit(1)
    sys.exit(0)


def _tell(error: Exception, text: str) -> None:
    if os.environ.get(DEBUG):
        traceback.print_exception(error)
    else:
        typer.echo(text, err=True)
